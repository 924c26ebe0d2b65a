"""Plain ASGI middleware, one class each."""
