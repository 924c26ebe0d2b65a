"""`AptitudeWorker`: takes queued jobs in a running gateway, a few at a time, beside the requests it serves."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.aptitude.jobs import KIND, LEASE_S, run_job
from gateway.errors import OrbweaverError
from gateway.registry.jobs import Job
from gateway.registry.registry import Registry
from gateway.settings import Settings
from gateway.upstreams.base import Timeouts
from gateway.upstreams.probe import ProbeUpstreams

if TYPE_CHECKING:
    from aptitude_tests.ability import Measure
    from capability_encoder.scorer import CapabilityScorer
    from gateway.aptitude.measure import Bench
    from gateway.encoder.scorer import EncoderScorer

log = logging.getLogger(__name__)
LOOK_S = 1.0
MOST_JOBS = 2
ENCODER_PATIENCE_S = 60.0


def answers_path(state_dir: Path) -> Path:
    """Where the answers of all models are kept."""
    return state_dir / "aptitude" / "answers.db"


class Measures:
    """One `Measure` for each scorer, made in a thread when first wanted."""

    def __init__(self) -> None:
        self._made: dict[str, Measure] = {}

    async def of(self, scorer: CapabilityScorer) -> Measure:
        """The measure that reads profiles through this scorer."""
        found = self._made.get(scorer.version)
        if found is None:
            from aptitude_tests.ability import Measure

            found = await asyncio.to_thread(Measure, scorer)
            self._made = {scorer.version: found}
        return found


class AptitudeWorker:
    """Looks for jobs every second; `nudge` makes it look at once. One for each process.

    Args:
        encoder: the gateway's own, None where it is switched off; profiles are then stored unread.
    """

    def __init__(
        self,
        registry: Registry,
        settings: Settings,
        encoder: EncoderScorer | None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._registry, self._settings, self._encoder, self._clock = registry, settings, encoder, clock
        self._measures = Measures()
        self._wanted = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None
        self._running: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin to look for jobs."""
        self._loop = asyncio.create_task(self._look(), name="aptitude-worker")

    def nudge(self) -> None:
        """There is a new job: look now."""
        self._wanted.set()

    async def close(self) -> None:
        """Stop; jobs under way are left to whoever looks next, and their answers are kept."""
        tasks = [*self._running, *([self._loop] if self._loop is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _look(self) -> None:
        while True:
            if self._registry.loaded and len(self._running) < MOST_JOBS:
                try:
                    job = await self._registry.claim_job(KIND, LEASE_S)
                except OrbweaverError:
                    job = None  # the registry says itself that its database is away
                if job is not None:
                    task = asyncio.create_task(self._run(job), name=f"job {job.id}")
                    self._running.add(task)
                    task.add_done_callback(self._running.discard)
                    continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._wanted.wait()
            self._wanted.clear()

    async def _run(self, job: Job) -> None:
        log.info("Measuring %s (%s).", job.subject, job.id)
        try:
            # The command line may have written candidate and job a moment ago: our snapshot must know both.
            await self._registry.refresh()
            async with open_bench(self._registry, self._settings, self._measure, clock=self._clock) as bench:
                ended = await run_job(self._registry, job, bench)
        except OrbweaverError as error:
            log.error("The outcome of the aptitude job %s could not be stored: %s", job.id, error)
            return
        if ended is not None:
            log.info("The aptitude job %s of %s is %s. %s", job.id, job.subject, ended.state, ended.error or "")

    async def _measure(self) -> Measure | None:
        """The measure of the encoder in use; waits until it is loaded, None where it cannot be."""
        if self._encoder is None:
            return None
        scorer = await self._encoder.opened(ENCODER_PATIENCE_S)
        return None if scorer is None else await self._measures.of(scorer)


@contextlib.asynccontextmanager
async def open_bench(
    registry: Registry,
    settings: Settings,
    measure: Callable[[], Awaitable[Measure | None]],
    *,
    clock: Callable[[], float] = time.time,
) -> AsyncIterator[Bench]:
    """What a measurement works with, opened for one job and closed after it."""
    from aptitude_tests.answers import SqliteAnswers
    from gateway.aptitude.measure import Bench

    answers = SqliteAnswers(answers_path(settings.state_dir))
    try:
        async with ProbeUpstreams() as upstream_for:
            yield Bench(
                answers=answers,
                upstream_for=upstream_for,
                timeouts=Timeouts(**settings.timeouts.model_dump()),
                measure=measure,
                clock=clock,
                suite_data=settings.suite_data,
                pool=registry.snapshot.enabled,
                profiles=registry.snapshot.profiles,
            )
    finally:
        await answers.close()
