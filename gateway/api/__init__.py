"""HTTP endpoints. Thin: unpack, call one function, wrap."""
