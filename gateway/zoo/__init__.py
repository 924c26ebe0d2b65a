"""The bundled zoo behind the gateway: its engine as a child process, its models as candidates with known profiles."""
