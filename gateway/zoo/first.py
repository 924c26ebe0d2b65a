"""The candidates of a gateway that nobody has given any: found keys and servers, and the bundled zoo."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from gateway.registry.records import Candidate
from gateway.registry.registry import Registry
from gateway.registry.snapshot import Snapshot
from gateway.settings import Settings, environment
from gateway.zoo.keeper import ZooKeeper


class FirstCandidates:
    """Offers what was found until the operator registers the first model; then it steps back.

    Nothing is then sent to a provider that the operator did not choose. The zoo stays where `zoo: on` asks for it.
    """

    def __init__(self, registry: Registry, settings: Settings) -> None:
        self._registry, self._settings = registry, settings
        self._configured = tuple(candidate.to_candidate() for candidate in settings.candidates)
        self._found: tuple[Candidate, ...] = ()
        self._of_zoo: tuple[Candidate, ...] = ()
        self._closing: asyncio.Task[None] | None = None
        self.zoo: ZooKeeper | None = None

    async def start(self) -> list[str]:
        """Look, and start what is to be started; gives notes for the operator."""
        registry, settings = self._registry, self._settings
        is_new = registry.loaded and not registry.snapshot.candidates and settings.discover
        notes: list[str] = []
        if is_new:
            from gateway.upstreams.discovery import ADD_FIRST, discover

            found = await discover(environment(), own_port=settings.server.port)
            self._found = found.candidates
            self._declare()
            notes += found.notes
        if settings.zoo == "on" or (settings.zoo == "auto" and is_new):
            self.zoo = ZooKeeper(registry, settings.state_dir, environment(), self._offer_zoo)
            said = await self.zoo.start()
            if self._of_zoo and is_new and not self._found:
                notes = [f"{ADD_FIRST}; that replaces the zoo (`zoo: on` keeps it)."]
            notes = [*said, *notes]
        if is_new:
            registry.subscribe(self._step_back)
        return notes

    async def close(self) -> None:
        """Stop the zoo's engine."""
        if self._closing is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._closing
        if self.zoo is not None:
            await self.zoo.close()

    def _offer_zoo(self, candidates: Sequence[Candidate]) -> None:
        self._of_zoo = tuple(candidates)
        self._declare()

    def _declare(self) -> None:
        self._registry.declare((*self._configured, *self._found, *self._of_zoo))

    def _step_back(self, snapshot: Snapshot) -> None:
        if not any(item.source == "registry" for item in snapshot.candidates.values()):
            return
        keeps_zoo = self._settings.zoo == "on"
        if not self._found and (keeps_zoo or self.zoo is None):
            return
        self._found = ()
        if not keeps_zoo:
            self._of_zoo = ()
            if self.zoo is not None:
                self._closing = asyncio.get_running_loop().create_task(self.zoo.close(), name="zoo steps back")
                self.zoo = None
        self._declare()
