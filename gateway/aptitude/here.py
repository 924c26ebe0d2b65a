"""Runs one aptitude job in this process, for the command line where no gateway is running."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from gateway.aptitude.jobs import KIND, LEASE_S, run_job
from gateway.aptitude.worker import open_bench
from gateway.encoder.scorer import EncoderScorer
from gateway.registry.jobs import Job
from gateway.registry.registry import Registry, opened
from gateway.settings import Settings

if TYPE_CHECKING:
    from aptitude_tests.ability import Measure

ENCODER_PATIENCE_S = 120.0
SHOW_S = 0.5


async def run_here(settings: Settings, job_id: str, show: Callable[[Job], None]) -> Job | None:
    """Claim the job and run it to its end.

    Args:
        show: called with the job every half second.
    Returns:
        the ended job; None where another process has it or has cancelled it.
    """
    async with opened(settings) as registry:
        job = await registry.claim_job(KIND, LEASE_S, job_id=job_id)
        if job is None:
            return None
        encoder = _encoder(settings, registry)
        try:
            async with open_bench(registry, settings, lambda: _measure(encoder)) as bench:
                running = asyncio.create_task(run_job(registry, job, bench))
                try:
                    while not (await asyncio.wait({running}, timeout=SHOW_S))[0]:
                        show(await registry.job(job_id))
                    return running.result()
                finally:
                    running.cancel()
                    await asyncio.gather(running, return_exceptions=True)
        finally:
            if encoder is not None:
                await encoder.close()


def _encoder(settings: Settings, registry: Registry) -> EncoderScorer | None:
    if settings.routing.scorer == "prior":
        return None
    logging.getLogger("gateway.encoder").setLevel(logging.ERROR)
    return EncoderScorer(settings.state_dir, settings.routing.artifact, lambda: registry.snapshot.profiles)


async def _measure(encoder: EncoderScorer | None) -> Measure | None:
    scorer = None if encoder is None else await encoder.opened(ENCODER_PATIENCE_S)
    if scorer is None:
        return None
    from aptitude_tests.ability import Measure

    return await asyncio.to_thread(Measure, scorer)
