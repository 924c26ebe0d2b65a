"""Schema history of the registry (alembic). `HEAD` is the newest revision; a test compares it with the scripts."""

HEAD = "0002"
