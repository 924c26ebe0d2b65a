"""The engine: an OpenAI-compatible server over local causal LMs, mixtures, merges and sentence encoders.

A process of its own; the gateway treats it as any other upstream. `serve` in `server.py` starts it.
"""
