"""Aptitude tests inside the gateway: jobs that measure a model over the gateway's own upstream layer."""
