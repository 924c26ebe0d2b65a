"""Aptitude jobs: queued, run under a lease, cancelled, taken up again. What is kept of each is in the jobs table.

A job's `progress` holds the `wish`, the last state of the run (`run`), and at its end the `card`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from aptitude_tests.errors import AptitudeError
from aptitude_tests.progress import Progress
from gateway.aptitude.wish import FIRST_TAKE, Wish, fresh_take
from gateway.errors import Conflict, InvalidBody, OrbweaverError
from gateway.registry.jobs import FINAL, Job
from gateway.registry.registry import Registry

if TYPE_CHECKING:
    from gateway.aptitude.measure import Bench, Measured

log = logging.getLogger(__name__)
KIND = "aptitude"
LEASE_S = 6.0
HEARTBEAT_S = 1.0
UNMEASURED = "{name} stays routable by its declared figures; it is not measured."


async def queue(registry: Registry, name: str, wish: Wish) -> Job:
    """A job for a candidate: the open one with the same wish, else a new one.

    Raises:
        NotFound: no such candidate. Conflict: a job with another wish is open for it.
    """
    registry.candidate(name)
    for job in await registry.newest_jobs(20, subject=name):
        if job.kind == KIND and job.state not in FINAL:
            open_wish = Wish.of(job.progress.get("wish", {}))
            if replace(open_wish, take=wish.take) == wish:
                return job
            raise Conflict(
                f"{name!r} is being measured already: job {job.id} is {job.state}.",
                hint=f"Wait for it, or cancel it: orbweaver aptitude cancel {job.id}.",
                param="name",
            )
    if wish.reprofile and wish.take == FIRST_TAKE:
        wish = replace(wish, take=fresh_take())
    return await registry.create_job(KIND, name, {"wish": wish.as_record()})


def read_wish(given: Mapping[str, Any]) -> Wish:
    """A wish as the API takes it. Raises InvalidBody for a suite that does not exist."""
    from aptitude_tests.build import bundled_suites, is_path

    wish = Wish.of(given)
    if not is_path(wish.suite) and wish.suite not in bundled_suites():
        raise InvalidBody(
            f"There is no aptitude suite {wish.suite!r}.",
            hint=f"Bundled are {', '.join(bundled_suites())}; a .jsonl file or a folder of them is a suite too.",
            param="suite",
        )
    return wish


async def cancel(registry: Registry, job_id: str) -> Job:
    """Cancel a job; one that runs stops within two seconds. A job that has ended stays as it is. Raises NotFound."""
    while (job := await registry.job(job_id)).state not in FINAL:
        error = "Cancelled. " + UNMEASURED.format(name=job.subject)
        if (ended := await registry.advance_job(job, state="cancelled", error=error)) is not None:
            return ended
    return job


async def resume(registry: Registry, job_id: str, changes: Mapping[str, Any] | None = None) -> Job:
    """Queue a failed or cancelled job again; what it had answered is not asked again. Raises NotFound, Conflict.

    Args:
        changes: other values of its wish, for instance a higher cap.
    """
    job = await registry.job(job_id)
    if job.state not in ("failed", "cancelled"):
        raise Conflict(f"Job {job_id!r} is {job.state}; only a failed or cancelled job can be resumed.", param="id")
    wish = {**job.progress.get("wish", {}), **{name: value for name, value in (changes or {}).items() if value}}
    again = await registry.advance_job(job, state="queued", error=None, progress={**job.progress, "wish": wish})
    if again is None:
        raise Conflict(f"Job {job_id!r} was changed at the same time.", hint="Look at it again.", param="id")
    return again


async def run_job(registry: Registry, job: Job, bench: Bench) -> Job | None:
    """Run a claimed job to its end and store the outcome.

    Returns:
        the ended job; None where it was cancelled or taken over meanwhile, and nothing was stored.
    """
    lease = _Lease(registry, job)
    work = asyncio.create_task(_measured(registry, job, bench, lease), name=f"aptitude {job.subject}")
    heart = asyncio.create_task(lease.beat(), name=f"lease of {job.id}")
    try:
        await asyncio.wait({work, heart}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            return None
        return await _store(registry, lease, heart, work.result())
    except asyncio.CancelledError:
        # The process ends: whoever looks next goes on at once instead of waiting for the lease to run out.
        await lease.end(heart, state="queued")
        raise
    except (AptitudeError, OrbweaverError) as error:
        return await lease.end(heart, state="failed", error=f"{error} {UNMEASURED.format(name=job.subject)}")
    except Exception as error:
        # A border: whatever a suite or an endpoint brings about must end as a failed job, not as one that hangs.
        log.exception("The aptitude job %s failed.", job.id)
        what = f"{type(error).__name__}: {error}. {UNMEASURED.format(name=job.subject)}"
        return await lease.end(heart, state="failed", error=what)
    finally:
        for task in (work, heart):
            task.cancel()
        await asyncio.gather(work, heart, return_exceptions=True)


async def _measured(registry: Registry, job: Job, bench: Bench, lease: _Lease) -> Measured:
    from gateway.aptitude.measure import run_measurement  # heavy: not for a gateway that measures nothing

    candidate = registry.candidate(job.subject)
    wish = Wish.of(job.progress.get("wish", {}))
    return await run_measurement(candidate, wish, bench, lease.note)


async def _store(registry: Registry, lease: _Lease, heart: asyncio.Task[None], measured: Measured) -> Job | None:
    """Put what was found in force: abilities, then the profile, then the job's end.

    The lease is renewed first, so that a job that was cancelled or taken over changes nothing.
    """
    job = await lease.renew()
    if job is None:
        return None
    name = job.subject
    before = registry.candidate(name)
    if measured.candidate != before and before.source == "registry":
        shown = replace(before, can=measured.candidate.can, context_window=measured.candidate.context_window)
        await registry.put_candidate(shown, replace_existing=True)
    record = measured.profile.as_record()
    stored = {"name": name, "answers": record.get("answers", []), "known_as": record.get("known_as")}
    await registry.put_profile(name, stored)
    return await lease.end(heart, state="done", card=measured.card.as_record())


class _Lease:
    """Keeps a job ours: writes its progress every second, and notices when somebody else has changed it."""

    def __init__(self, registry: Registry, job: Job) -> None:
        self._registry = registry
        self._job = job
        self._run: dict[str, Any] = {}
        self._one_at_a_time = asyncio.Lock()

    def note(self, progress: Progress) -> None:
        """The state that the next heartbeat writes."""
        self._run = progress.as_record()

    async def beat(self) -> None:
        """Write until the job is no longer ours. A database that is away is tried again."""
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            try:
                if await self.renew() is None:
                    log.info("The aptitude job %s was cancelled or taken over.", self._job.id)
                    return
            except OrbweaverError as error:
                log.warning("The progress of the aptitude job %s cannot be stored now: %s", self._job.id, error)

    async def renew(self, **changes: Any) -> Job | None:
        """Write progress and changes; None where the job is not ours any more."""
        async with self._one_at_a_time:
            progress = {**self._job.progress, "run": self._run, **changes.pop("progress", {})}
            job = await self._registry.advance_job(self._job, progress=progress, **changes)
            if job is not None:
                self._job = job
            return job

    async def end(
        self, heart: asyncio.Task[None], *, state: str, error: str | None = None, card: dict[str, Any] | None = None
    ) -> Job | None:
        """Write the end, after the last heartbeat."""
        heart.cancel()
        return await self.renew(state=state, error=error, progress={} if card is None else {"card": card})
