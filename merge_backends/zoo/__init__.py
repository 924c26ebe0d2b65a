"""The bundled zoo: small language models trained from scratch, each with a skill that can be checked exactly."""
