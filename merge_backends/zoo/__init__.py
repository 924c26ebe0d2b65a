"""The bundled zoo: small language models trained from scratch, each with a skill whose answers can be checked exactly."""
