"""`HashKey`: what asks and sessions are hashed with, so that no table and no log can be searched for a text.

One gateway keeps it in its state folder. Gateways that share a database share the key too: a session must have the
same name at each of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from pathlib import Path

from gateway.errors import OrbweaverError
from gateway.registry.registry import Registry
from gateway.routing.router import Router

log = logging.getLogger(__name__)
BYTES = 32
RETRY_S = 1.0


class HashKey:
    """Puts the shared key into the router as soon as the database gives it; until then the process's own is used."""

    def __init__(self, registry: Registry, router: Router) -> None:
        self._registry, self._router = registry, router
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Ask in the background, again and again while the database is away."""
        self._task = asyncio.create_task(self._share(), name="shared-hash-key")

    async def close(self) -> None:
        """Stop asking."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _share(self) -> None:
        while True:
            try:
                self._router.hash_key = await self._registry.shared_key("hash", self._router.hash_key[:BYTES])
                return
            except OrbweaverError as error:
                log.debug("No shared hash key yet: %s", error)
                await asyncio.sleep(RETRY_S)

    @staticmethod
    def own(state_dir: Path) -> bytes:
        """This installation's key: made once, kept in the state folder.

        Where the folder cannot be written, a key for this process alone is used: sessions then end with it.
        """
        path = state_dir / "hash.key"
        try:
            state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            try:
                with path.open("xb") as file:
                    path.chmod(0o600)
                    file.write(secrets.token_bytes(BYTES))
            except FileExistsError:
                pass
            stored = path.read_bytes()
            if len(stored) >= 16:
                return stored[:64]
            log.warning("%s is too short to be a key; using one for this process alone.", path)
        except OSError as error:
            log.warning("The state folder %s cannot be used (%s); hashes change at the next start.", state_dir, error)
        return secrets.token_bytes(BYTES)
