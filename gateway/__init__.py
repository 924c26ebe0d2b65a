"""Orbweaver's gateway: an OpenAI-compatible proxy that chooses the model for each instruction."""

__version__ = "0.1.0"
