"""Jobs and their owners: one claim wins, a silent owner loses its job, and what is not ours is not written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.registry.registry import Registry
from tests.support.registry import settings_in


class Clock:
    """Wall time that a test moves."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def registries(tmp_path: Path, clock: Clock) -> AsyncIterator[list[Registry]]:
    settings = settings_in(tmp_path)
    async with Registry(settings, clock=clock) as one, Registry(settings, clock=clock) as other:
        yield [one, other]


async def test_of_many_that_ask_for_a_job_one_gets_it(registries: list[Registry]) -> None:
    await registries[0].create_job("aptitude", "small", {"wish": {"budget": 5}})
    claims = await asyncio.gather(*(registry.claim_job("aptitude", 6.0) for registry in registries * 4))
    (job,) = [claim for claim in claims if claim is not None]
    assert (job.state, job.progress) == ("running", {"wish": {"budget": 5}})


async def test_only_jobs_of_the_kind_are_claimed_the_oldest_first(registries: list[Registry], clock: Clock) -> None:
    await registries[0].create_job("merge", "a")
    clock.now += 1
    oldest = await registries[0].create_job("aptitude", "b")
    clock.now += 1
    await registries[0].create_job("aptitude", "c")
    claimed = await registries[1].claim_job("aptitude", 6.0)
    assert claimed is not None
    assert claimed.id == oldest.id


async def test_a_job_whose_owner_is_silent_goes_to_another_and_the_first_cannot_write(
    registries: list[Registry], clock: Clock
) -> None:
    one, other = registries
    await one.create_job("aptitude", "small")
    mine = await one.claim_job("aptitude", 6.0)
    assert mine is not None
    clock.now += 5
    assert await other.claim_job("aptitude", 6.0) is None
    clock.now += 2
    theirs = await other.claim_job("aptitude", 6.0)
    assert theirs is not None
    assert await one.advance_job(mine, state="done") is None
    ended = await other.advance_job(theirs, state="done")
    assert ended is not None
    assert ended.finished_at == pytest.approx(clock.now, abs=0.01)


async def test_a_heartbeat_keeps_a_job(registries: list[Registry], clock: Clock) -> None:
    one, other = registries
    await one.create_job("aptitude", "small")
    job = await one.claim_job("aptitude", 6.0)
    for _ in range(3):
        clock.now += 5
        assert job is not None
        job = await one.advance_job(job, progress={"run": {"done": 1}})
        assert await other.claim_job("aptitude", 6.0) is None
