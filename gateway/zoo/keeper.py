"""`ZooKeeper`: runs the bundled zoo for this gateway, or joins the one that another process of its state folder has."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from gateway.errors import OrbweaverError
from gateway.registry.records import Candidate
from gateway.registry.registry import Registry
from gateway.zoo.bundle import ZooModel, as_candidate, missing_packages, read_zoo
from gateway.zoo.engine import EngineProcess, State, engine_command

log = logging.getLogger(__name__)
LOOK_S = 1.0
INSTALL = 'pip install "orbweaver-gateway[merge]"'
Offer = Callable[[Sequence[Candidate]], None]


class ZooKeeper:
    """One per gateway process.

    The first process of a state folder starts the engine and holds a lock; the others send their requests to it, and
    one of them takes over where it ends.

    Args:
        registry: takes the profiles.
        offer: declares the zoo's candidates; called again when their address changes, with none where there are none.
        environment: of the engine.
    """

    def __init__(self, registry: Registry, state_dir: Path, environment: dict[str, str], offer: Offer) -> None:
        self._registry, self._folder, self._offer = registry, state_dir / "zoo", offer
        self._environment = environment
        self._models: tuple[ZooModel, ...] = ()
        self._lock: IO[bytes] | None = None
        self._follower: asyncio.Task[None] | None = None
        self._address: str | None = None
        self.engine: EngineProcess | None = None

    async def start(self) -> list[str]:
        """Start or join the zoo; gives notes for the operator. Never raises: a gateway without the zoo is one too."""
        self._models = read_zoo()
        if not self._models:
            return ["This installation has no zoo of bundled models."]
        missing = missing_packages()
        if missing:
            return [f"The bundled zoo needs {', '.join(missing)}: {INSTALL}."]
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._follower = asyncio.create_task(self._follow(), name="zoo")
            if self._take_lock():
                self._run()
        except OSError as error:
            log.error("The bundled zoo cannot be started: %s", error)
            return [f"The bundled zoo cannot be started: {error}."]
        await self._import_profiles()
        return [
            f"The bundled zoo is loading: {len(self._models)} small models, named zoo/..., that run on this machine."
        ]

    async def close(self) -> None:
        """Stop what this process started."""
        if self._follower is not None:
            self._follower.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._follower
            self._follower = None
        if self.engine is not None:
            with contextlib.suppress(OSError):
                self._note_file.unlink()
            await self.engine.close()
            self.engine = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    @property
    def _note_file(self) -> Path:
        return self._folder / "engine.json"

    def _run(self) -> None:
        # The engine's own copy of the weights: the state folder is the one place that we may write to.
        command = engine_command(self._folder / "models")
        self.engine = EngineProcess(command, self._folder / "engine.log", self._environment, self._changed)
        address = self.engine.start()
        scratch = self._note_file.with_suffix(f".{os.getpid()}")
        scratch.write_text(json.dumps({"address": address}))
        scratch.replace(self._note_file)
        self._use(address)

    def _changed(self, state: State) -> None:
        if state == "ready":
            log.info("The bundled zoo is ready.")
        elif state == "failed":
            with contextlib.suppress(OSError):
                self._note_file.unlink()
            self._use(None)

    def _take_lock(self) -> bool:
        lock = (self._folder / "lock").open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            return False
        self._lock = lock
        return True

    async def _follow(self) -> None:
        """While another process runs the engine: use it where it is, and take over where that process has ended."""
        while True:
            if self.engine is None:
                try:
                    if self._take_lock():
                        self._run()
                    else:
                        self._use(json.loads(self._note_file.read_text("utf-8"))["address"])
                except (OSError, ValueError, KeyError) as error:
                    log.debug("The zoo's engine is not there yet: %s", error)
            await asyncio.sleep(LOOK_S)

    def _use(self, address: str | None) -> None:
        if address != self._address:
            self._address = address
            self._offer([as_candidate(model, address) for model in self._models] if address else [])

    async def _import_profiles(self) -> None:
        """Give the registry what is known of the models, where it does not know just that already."""
        for model in self._models:
            if model.name not in self._registry.snapshot.candidates:
                continue
            known = self._registry.snapshot.profiles.get(model.name)
            if known is not None and known.get("answers") == model.profile["answers"]:
                continue
            try:
                await self._registry.put_profile(model.name, model.profile)
            except OrbweaverError as error:
                log.error("The profile of %s cannot be stored: %s", model.name, error)
                return
