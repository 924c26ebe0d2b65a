"""The capability encoder inside the gateway: loaded off the event loop, swapped while running, taught by feedback."""
