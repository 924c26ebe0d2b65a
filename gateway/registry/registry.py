"""The registry as the gateway sees it: a snapshot that is always there, and writes that every process sees within 1 s.

Requests read `Registry.snapshot`, a plain attribute. A background task asks the database for its version; all SQL runs
in a small thread pool, never on the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar

from gateway.errors import Conflict, NotFound, OrbweaverError
from gateway.registry.database import Database
from gateway.registry.encoding import hash_secret, new_secret
from gateway.registry.jobs import FINAL, Job, JobStore
from gateway.registry.records import Candidate, ClientKey
from gateway.registry.snapshot import Snapshot, merge_candidates
from gateway.registry.store import Contents, Store
from gateway.settings import Settings

log = logging.getLogger(__name__)
Result = TypeVar("Result")
POLL_S = 0.4
START_WAIT_S = 4.0


class Registry:
    """Candidates, client keys, profiles and jobs, shared by every process on one database.

    Args:
        settings: gives the database URL and the candidates of the config file.
        clock: wall time in seconds.

    The gateway runs without the database too: `start` then leaves the declared candidates in force, sets `problem`,
    and goes on trying; later the last known state stays in force while the database is away.
    """

    def __init__(self, settings: Settings, *, clock: Callable[[], float] = time.time) -> None:
        self.database = Database(settings.registry_url)
        self.snapshot = Snapshot()
        self.problem: str | None = "The registry has not been read yet."
        self.loaded = False
        self._clock = clock
        self._store = Store(self.database)
        self._jobs = JobStore(self.database)
        self._contents = Contents()
        self._logged: str | None = None
        # `_loading` lets one thread at a time read the database; `_swapping` is held for a moment only, so the event
        # loop may take it too.
        self._loading = threading.Lock()
        self._swapping = threading.Lock()
        self._listeners: list[Callable[[Snapshot], None]] = []
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="registry")
        self._poller: asyncio.Task[None] | None = None
        self._declared: tuple[Candidate, ...] = ()
        self._declared_version = 0
        self.declare([candidate.to_candidate() for candidate in settings.candidates])

    # -- life ----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Read the database (a failure is logged and kept in `problem`) and go on watching it.

        A database that does not answer holds the start up for `START_WAIT_S` at most.
        """
        first = asyncio.create_task(self._watch_once(), name="registry-first-look")
        await asyncio.wait({first}, timeout=START_WAIT_S)
        if not first.done():
            log.error("The registry %r does not answer; going on without it until it does.", self.database.place)
        self._poller = asyncio.create_task(self._watch(first), name="registry-poller")

    async def close(self) -> None:
        """Stop watching and drop the connections."""
        if self._poller is not None:
            self._poller.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._poller
            self._poller = None
        with contextlib.suppress(RuntimeError):
            await self._in_thread(self.database.close)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def __aenter__(self) -> Registry:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def refresh(self) -> Snapshot:
        """Read what changed since the last look. Raises RegistryError; the last known state then stays in force."""
        before = self.snapshot
        snapshot = await self._in_thread(self._load)
        if snapshot is not before:
            self._tell(snapshot)
        return snapshot

    def declare(self, candidates: Sequence[Candidate]) -> None:
        """Replace the candidates that come from the config file or from discovery."""
        with self._swapping:
            self._declared = tuple(candidates)
            self._declared_version += 1
            self.snapshot = self._merged()

    def subscribe(self, listener: Callable[[Snapshot], None]) -> None:
        """Call `listener` on the event loop after every change of the snapshot. It must not block or raise."""
        self._listeners.append(listener)

    # -- candidates ----------------------------------------------------------------------------------------------

    async def put_candidate(self, candidate: Candidate, *, replace_existing: bool = False) -> Candidate:
        """Register a candidate, or replace one. Raises Conflict where the name is taken."""
        await self._change(lambda: self._store.put_candidate(candidate, self._clock(), replace=replace_existing))
        return self.snapshot.candidates[candidate.name]

    async def switch_candidate(self, name: str, enabled: bool) -> Candidate:
        """Switch a candidate on or off, one of the config file too. Raises NotFound."""
        self.candidate(name)
        await self._change(lambda: self._store.switch_candidate(name, enabled, self._clock()))
        return self.candidate(name)

    async def remove_candidate(self, name: str) -> None:
        """Forget a registered candidate. Raises NotFound, or Conflict for one that stands in the config file."""
        candidate = self.candidate(name)
        if candidate.source != "registry":
            raise Conflict(
                f"{name!r} comes from the {'config file' if candidate.source == 'config' else 'discovery'} and cannot "
                "be removed at run time.",
                hint=f"Take it out there, or switch it off: `orbweaver models disable {name}`.",
                param="name",
            )
        await self._change(lambda: self._store.remove_candidate(name))

    def candidate(self, name: str) -> Candidate:
        """One candidate, switched off or not. Raises NotFound with near names."""
        import difflib

        found = self.snapshot.candidates.get(name)
        if found is None:
            near = difflib.get_close_matches(name, self.snapshot.candidates, n=3)
            hint = (
                f"Did you mean {', '.join(repr(other) for other in near)}?" if near else "See `orbweaver models list`."
            )
            raise NotFound(f"There is no candidate named {name!r}.", hint=hint, param="name", code="model_not_found")
        return found

    # -- client keys ---------------------------------------------------------------------------------------------

    async def create_key(self, draft: ClientKey) -> tuple[ClientKey, str]:
        """Make a client key with the name, models and limits of `draft`.

        Returns:
            The stored record and the secret, which is shown this once and kept nowhere.
        """
        secret = new_secret()
        key = replace(
            draft,
            id=f"key-{secrets.token_hex(6)}",
            key_hash=hash_secret(secret),
            prefix=secret[:7],
            revoked=False,
            created_at=self._clock(),
        )
        await self._change(lambda: self._store.put_key(key))
        return key, secret

    async def change_key(self, key_id: str, **changes: Any) -> ClientKey:
        """Change name, models or limits of a key. Raises NotFound."""
        key = replace(self.key(key_id), **changes)
        await self._change(lambda: self._store.change_key(key))
        return self.key(key.id)

    async def revoke_key(self, key_id: str) -> ClientKey:
        """Revoke a key for good, by id or name; other processes refuse it within a second. Raises NotFound."""
        return await self.change_key(key_id, revoked=True)

    def key(self, key_id: str) -> ClientKey:
        """One key by its id, or by its name where only one key in force has it. Raises NotFound, Conflict."""
        keys = self.snapshot.keys.values()
        for key in keys:
            if key.id == key_id:
                return key
        named = [key for key in keys if key.name == key_id]
        named = [key for key in named if not key.revoked] or named
        if len(named) > 1:
            raise Conflict(f"{len(named)} client keys are named {key_id!r}.", hint="Give the key's id.", param="id")
        if not named:
            raise NotFound(f"There is no client key {key_id!r}.", hint="See `orbweaver keys list`.", param="id")
        return named[0]

    def find_key(self, secret: str) -> ClientKey | None:
        """The key that a client presented, revoked or not; None if it is unknown."""
        return self.snapshot.keys.get(hash_secret(secret))

    async def shared_key(self, name: str, offered: bytes) -> bytes:
        """A key of at most 32 bytes that every gateway on this database uses. Raises RegistryError."""
        return await self._in_thread(lambda: self._store.shared_key(name, offered))

    # -- profiles and jobs ---------------------------------------------------------------------------------------

    async def put_profile(self, name: str, profile: Mapping[str, Any]) -> None:
        """Store the capability profile of a candidate. Raises NotFound."""
        self.candidate(name)
        await self._change(lambda: self._store.put_profile(name, profile, self._clock()))

    async def create_job(self, kind: str, subject: str, progress: dict[str, Any] | None = None) -> Job:
        """A new job in state `queued`."""
        return await self._in_thread(lambda: self._jobs.create(kind, subject, self._clock(), progress))

    async def claim_job(self, kind: str, lease_s: float, *, job_id: str | None = None) -> Job | None:
        """Take a job that waits or was left by its owner, this one where given; None where there is none."""
        return await self._in_thread(lambda: self._jobs.claim(kind, self._clock(), lease_s, job_id=job_id))

    async def advance_job(self, before: Job, **changes: Any) -> Job | None:
        """The job with some fields changed, stored; None where another process has changed it since `before`."""
        now = max(self._clock(), before.updated_at + 1e-3)
        ended = {"finished_at": now if changes.get("state", before.state) in FINAL else None}
        after = replace(before, **{**ended, **changes}, updated_at=now)
        return after if await self._in_thread(lambda: self._jobs.replace(before, after)) else None

    async def update_job(self, job: Job) -> None:
        """Store a job's state, progress and error. Raises NotFound."""
        await self._in_thread(lambda: self._jobs.update(job))

    async def job(self, job_id: str) -> Job:
        """One job. Raises NotFound."""
        return await self._in_thread(lambda: self._jobs.get(job_id))

    async def newest_jobs(self, limit: int = 50, *, subject: str | None = None) -> list[Job]:
        """The newest jobs, of one candidate where given."""
        return await self._in_thread(lambda: self._jobs.newest(limit, subject=subject))

    # -- inside --------------------------------------------------------------------------------------------------

    async def _change(self, work: Callable[[], None]) -> None:
        """Write, then read back, so that the writer's own next request sees it."""
        await self._in_thread(work)
        await self.refresh()

    def _load(self) -> Snapshot:
        """In a thread: read what changed and swap the snapshot. Raises RegistryError."""
        with self._loading:
            try:
                contents = self._store.load(self._contents)
            except OrbweaverError as error:
                self.problem = str(error)
                raise
            self.problem = None
            self.loaded = True
            if contents is not self._contents:
                with self._swapping:
                    self._contents = contents
                    self.snapshot = self._merged()
            return self.snapshot

    def _merged(self) -> Snapshot:
        contents = self._contents
        candidates, notes = merge_candidates(self._declared, contents.candidates)
        return Snapshot(
            version=contents.version + self._declared_version,
            candidates=candidates,
            keys=contents.keys,
            profiles=contents.profiles,
            notes=notes,
        )

    def _tell(self, snapshot: Snapshot) -> None:
        for listener in self._listeners:
            listener(snapshot)

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def _watch(self, first: asyncio.Task[None]) -> None:
        await first
        while True:
            await asyncio.sleep(POLL_S)
            await self._watch_once()

    async def _watch_once(self) -> None:
        """One look at the database; says once when it goes away and once when it is back."""
        try:
            await self.refresh()
        except OrbweaverError as error:
            if str(error) != self._logged:
                self._logged = str(error)
                kept = "the last known state" if self.loaded else "the candidates of the config file"
                log.error("%s Going on with %s.", error, kept)
        except Exception:
            # The watcher must outlive whatever a database driver throws.
            log.exception("The registry could not be read.")
        else:
            if self._logged is not None:
                self._logged = None
                log.warning("The registry %r can be read again.", self.database.place)


@contextlib.asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Registry]:
    """The registry for one short job of the CLI: read once, not watched. Raises RegistryError."""
    registry = Registry(settings)
    try:
        await registry.refresh()
        yield registry
    finally:
        await registry.close()
