"""One suite over every limiter: in memory, and in a real Redis."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime

import pytest

from gateway.errors import LimitExceeded, RegistryError
from gateway.limits.base import Limiter
from gateway.limits.memory import MemoryLimiter
from gateway.limits.redis import RedisLimiter
from gateway.registry.records import ClientKey
from tests.support.servers import RedisServer, redis_is_installed, redis_server

NOON = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC).timestamp()


class Spent:
    """The durable count of money, scripted."""

    def __init__(self) -> None:
        self.usd: dict[str, float] = {}
        self.asked: list[tuple[str, str]] = []
        self.away = False
        self.hangs = False

    async def spent(self, key_id: str, since_day: str) -> float:
        self.asked.append((key_id, since_day))
        if self.hangs:
            await asyncio.Event().wait()
        if self.away:
            raise RegistryError("The registry cannot be used.")
        return self.usd.get(key_id, 0.0)


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    if not redis_is_installed():
        pytest.skip("redis-server is not installed")
    with redis_server() as server:
        yield server


@pytest.fixture
def spent() -> Spent:
    return Spent()


@pytest.fixture(params=["memory", "redis"])
async def limiter(request: pytest.FixtureRequest, spent: Spent) -> AsyncIterator[Limiter]:
    limiter: Limiter
    if request.param == "memory":
        limiter = MemoryLimiter(spent)
    else:
        limiter = RedisLimiter(request.getfixturevalue("redis").url, MemoryLimiter(spent), spent)
    yield limiter
    await limiter.close()


@pytest.fixture
def key(request: pytest.FixtureRequest) -> ClientKey:
    return ClientKey(id=f"key-{request.node.name}", name="team", key_hash="", prefix="ow-abcd")


async def refusal(limiter: Limiter, key: ClientKey, tokens: int, now: float) -> LimitExceeded:
    with pytest.raises(LimitExceeded) as caught:
        await limiter.admit(key, tokens, now)
    return caught.value


async def _admit_until_refused(limiter: Limiter, key: ClientKey, now: float) -> None:
    while True:
        await limiter.admit(key, 1, now)
        await asyncio.sleep(0.01)


async def test_a_key_without_limits_is_never_refused(limiter: Limiter, key: ClientKey) -> None:
    for _ in range(200):
        await limiter.admit(key, 10**9, NOON)
    assert limiter.headers(key, NOON) == {}


async def test_the_request_after_the_last_allowed_one_is_refused_with_the_openai_code(
    limiter: Limiter, key: ClientKey
) -> None:
    key = dataclasses.replace(key, requests_per_minute=3)
    for second in range(3):
        await limiter.admit(key, 1, NOON + second)
    error = await refusal(limiter, key, 1, NOON + 3)
    assert (error.status, error.code) == (429, "rate_limit_exceeded")


async def test_room_is_back_exactly_after_retry_after_and_not_a_moment_earlier(
    limiter: Limiter, key: ClientKey
) -> None:
    key = dataclasses.replace(key, requests_per_minute=2)
    await limiter.admit(key, 1, NOON)
    await limiter.admit(key, 1, NOON + 30)
    wait = (await refusal(limiter, key, 1, NOON + 40)).retry_after_s
    assert wait == pytest.approx(21.0, abs=0.01)
    await refusal(limiter, key, 1, NOON + 40 + wait - 0.05)
    await limiter.admit(key, 1, NOON + 40 + wait + 0.01)


async def test_no_sixty_seconds_see_more_than_the_limit(limiter: Limiter, key: ClientKey) -> None:
    key = dataclasses.replace(key, requests_per_minute=5)
    let_in: list[float] = []
    for step in range(800):
        now = NOON + step * 0.37
        try:
            await limiter.admit(key, 1, now)
            let_in.append(now)
        except LimitExceeded:
            continue
    assert max(sum(1 for t in let_in if start <= t < start + 60) for start in let_in) == 5
    assert len(let_in) >= 5 * 4


async def test_tokens_are_reserved_before_they_are_used(limiter: Limiter, key: ClientKey) -> None:
    key = dataclasses.replace(key, tokens_per_minute=1000)
    await limiter.admit(key, 700, NOON)
    assert (await refusal(limiter, key, 400, NOON + 1)).retry_after_s == pytest.approx(60.0, abs=0.01)
    await limiter.admit(key, 300, NOON + 1)


async def test_an_unused_reservation_is_given_back(limiter: Limiter, key: ClientKey) -> None:
    key = dataclasses.replace(key, tokens_per_minute=1000)
    await limiter.admit(key, 900, NOON)
    await limiter.settle(key, reserved=900, used=100, cost_usd=0.0, now=NOON + 2)
    await limiter.admit(key, 900, NOON + 2)
    await refusal(limiter, key, 1, NOON + 2)


async def test_tokens_beyond_the_reservation_count_too(limiter: Limiter, key: ClientKey) -> None:
    key = dataclasses.replace(key, tokens_per_minute=1000)
    await limiter.admit(key, 10, NOON)
    await limiter.settle(key, reserved=10, used=1500, cost_usd=0.0, now=NOON + 5)
    assert (await refusal(limiter, key, 1, NOON + 6)).retry_after_s == pytest.approx(60.0, abs=0.01)


async def test_a_request_larger_than_the_whole_limit_is_told_so(limiter: Limiter, key: ClientKey) -> None:
    key = dataclasses.replace(key, tokens_per_minute=1000)
    error = await refusal(limiter, key, 1001, NOON)
    assert "too large" in str(error)
    assert error.retry_after_s is None


async def test_a_refusal_for_tokens_costs_no_request(limiter: Limiter, key: ClientKey) -> None:
    key = dataclasses.replace(key, requests_per_minute=1, tokens_per_minute=100)
    other = dataclasses.replace(key, tokens_per_minute=50)
    await limiter.admit(dataclasses.replace(key, requests_per_minute=None), 80, NOON)
    await refusal(limiter, key, 30, NOON)
    await refusal(limiter, other, 51, NOON)
    await limiter.admit(key, 20, NOON)


async def test_a_used_up_budget_is_insufficient_quota(limiter: Limiter, key: ClientKey) -> None:
    key = dataclasses.replace(key, budget_usd=0.5)
    await limiter.admit(key, 1, NOON)
    await limiter.settle(key, reserved=1, used=1, cost_usd=0.4, now=NOON)
    await limiter.admit(key, 1, NOON)
    await limiter.settle(key, reserved=1, used=1, cost_usd=0.1, now=NOON)
    error = await refusal(limiter, key, 1, NOON)
    assert (error.status, error.code, error.retry_after_s) == (429, "insufficient_quota", None)


@pytest.mark.parametrize(("period", "wait_s"), [("day", 12 * 3600), ("month", 9.5 * 86400)])
async def test_a_budget_starts_anew_with_its_period(
    limiter: Limiter, key: ClientKey, period: str, wait_s: float
) -> None:
    key = dataclasses.replace(key, budget_usd=0.5, budget_period=period)  # type: ignore[arg-type]
    await limiter.admit(key, 1, NOON)
    await limiter.settle(key, reserved=1, used=1, cost_usd=0.6, now=NOON)
    assert (await refusal(limiter, key, 1, NOON)).retry_after_s == pytest.approx(wait_s)
    await limiter.admit(key, 1, NOON + wait_s + 1)


async def test_a_budget_starts_from_what_the_ledger_remembers(limiter: Limiter, key: ClientKey, spent: Spent) -> None:
    spent.usd[key.id] = 2.0
    key = dataclasses.replace(key, budget_usd=2.0, budget_period="month")
    assert (await refusal(limiter, key, 1, NOON)).code == "insufficient_quota"
    assert spent.asked == [(key.id, "2026-11-01")]


async def test_money_spent_through_another_gateway_counts_within_seconds(
    limiter: Limiter, key: ClientKey, spent: Spent
) -> None:
    key = dataclasses.replace(key, budget_usd=2.0)
    await limiter.admit(key, 1, NOON)
    spent.usd[key.id] = 5.0
    await limiter.admit(key, 1, NOON + 6)
    with pytest.raises(LimitExceeded, match="budget"):
        await asyncio.wait_for(_admit_until_refused(limiter, key, NOON + 7), 5)


async def test_callers_at_the_same_moment_cannot_share_one_place(limiter: Limiter, key: ClientKey) -> None:
    key = dataclasses.replace(key, requests_per_minute=10, tokens_per_minute=1_000)
    answers = await asyncio.gather(*(limiter.admit(key, 100, NOON) for _ in range(50)), return_exceptions=True)
    assert sum(answer is None for answer in answers) == 10


async def test_headers_say_what_is_left_in_openai_names(limiter: Limiter, key: ClientKey) -> None:
    key = dataclasses.replace(key, requests_per_minute=10, tokens_per_minute=1_000)
    await limiter.admit(key, 100, NOON)
    headers = limiter.headers(key, NOON)
    assert headers["x-ratelimit-limit-requests"] == "10"
    assert headers["x-ratelimit-remaining-requests"] == "9"
    assert headers["x-ratelimit-remaining-tokens"] == "900"
    assert headers["x-ratelimit-reset-tokens"] == "1m1s"


async def test_two_gateways_on_one_redis_share_every_limit(redis: RedisServer, key: ClientKey, spent: Spent) -> None:
    key = dataclasses.replace(key, requests_per_minute=4, budget_usd=1.0)
    first, second = (RedisLimiter(redis.url, MemoryLimiter(spent), spent) for _ in range(2))
    try:
        # On a busy machine a first connection may take longer than a limiter waits for Redis.
        for limiter in (first, second):
            await limiter.admit(dataclasses.replace(key, id="warm-up"), 1, NOON)
        answers = await asyncio.gather(
            *(limiter.admit(key, 1, NOON) for limiter in (first, second) * 4), return_exceptions=True
        )
        assert sum(answer is None for answer in answers) == 4
        await first.settle(key, reserved=1, used=1, cost_usd=1.0, now=NOON)
        assert (await refusal(second, key, 1, NOON + 100)).code == "insufficient_quota"
    finally:
        await first.close()
        await second.close()


@pytest.mark.parametrize("fault", ["stopped", "frozen"])
async def test_redis_away_lets_requests_through_under_the_local_limits(key: ClientKey, fault: str) -> None:
    if not redis_is_installed():
        pytest.skip("redis-server is not installed")
    key = dataclasses.replace(key, requests_per_minute=3)
    clock = [0.0]
    with redis_server() as server:
        limiter = RedisLimiter(server.url, MemoryLimiter(), monotonic=lambda: clock[0])
        await limiter.admit(key, 1, NOON)
        server.stop() if fault == "stopped" else server.freeze()
        for _ in range(3):
            await asyncio.wait_for(limiter.admit(key, 1, NOON), 5)
        await refusal(limiter, key, 1, NOON)
        assert limiter.status().degraded
        assert limiter.status().failures == 1
        server.start() if fault == "stopped" else server.thaw()
        clock[0] += 1.5
        await limiter.admit(key, 1, NOON + 1)
        assert not limiter.status().degraded
        await limiter.close()


async def test_a_used_up_budget_stays_used_up_with_redis_and_the_durable_count_away(key: ClientKey) -> None:
    """Also where Redis comes back empty, and the durable count not yet."""
    if not redis_is_installed():
        pytest.skip("redis-server is not installed")
    key, clock, spent = dataclasses.replace(key, budget_usd=1.0), [0.0], Spent()
    with redis_server() as server:
        limiter = RedisLimiter(server.url, MemoryLimiter(spent), spent, monotonic=lambda: clock[0])
        await limiter.admit(key, 1, NOON)
        await limiter.settle(key, reserved=1, used=1, cost_usd=1.0, now=NOON)
        spent.away = True
        server.stop()
        assert (await refusal(limiter, key, 1, NOON + 1)).code == "insufficient_quota"
        server.start()
        clock[0] += 1.5
        assert (await refusal(limiter, key, 1, NOON + 2)).code == "insufficient_quota"
        assert not limiter.status().degraded
        await limiter.close()


async def test_a_durable_count_that_never_answers_holds_up_the_first_request_for_moments_only(
    limiter: Limiter, key: ClientKey, spent: Spent, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("memory", "redis"):
        monkeypatch.setattr(f"gateway.limits.{module}.SPENT_WAIT_S", 0.1)
    spent.hangs = True
    key = dataclasses.replace(key, budget_usd=1.0)
    async with asyncio.timeout(2):
        await limiter.admit(key, 1, NOON)
        await limiter.settle(key, reserved=1, used=1, cost_usd=1.0, now=NOON)
        assert (await refusal(limiter, key, 1, NOON)).code == "insufficient_quota"
