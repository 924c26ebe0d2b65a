"""One suite over every session store: in memory, and in a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack

import pytest

from gateway.routing.session import MemorySessions, SessionStore
from gateway.shared.redis_sessions import RedisSessions
from tests.support.servers import RedisServer, redis_is_installed, redis_server


class Clock:
    """Wall time that a test moves."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    if not redis_is_installed():
        pytest.skip("redis-server is not installed")
    with redis_server() as server:
        yield server


@pytest.fixture(params=["memory", "redis"])
async def new_store(request: pytest.FixtureRequest) -> AsyncIterator[Callable[[float], SessionStore]]:
    async with AsyncExitStack() as stack:

        def build(ttl_s: float) -> SessionStore:
            local = MemorySessions(ttl_s, Clock())
            store: SessionStore = local
            if request.param == "redis":
                store = RedisSessions(request.getfixturevalue("redis").url, ttl_s, local)
            stack.push_async_callback(store.close)
            return store

        yield build


async def test_the_newest_model_of_a_session_is_remembered(new_store: Callable[[float], SessionStore]) -> None:
    store = new_store(60.0)
    assert await store.get("unknown") is None
    await store.put("one", "small")
    await store.put("one", "large")
    await store.put("two", "small")
    assert [await store.get("one"), await store.get("two")] == ["large", "small"]


async def test_two_gateways_see_the_same_session(redis: RedisServer) -> None:
    first, second = (RedisSessions(redis.url, 60.0, MemorySessions(60.0, Clock())) for _ in range(2))
    await first.put("shared", "small")
    assert await second.get("shared") == "small"
    await second.put("shared", "large")
    assert await first.get("shared") == "large"
    await first.close()
    await second.close()


async def test_a_session_ends_in_redis_as_in_memory(redis: RedisServer) -> None:
    clock = Clock()
    store = RedisSessions(redis.url, 0.05, MemorySessions(0.05, clock))
    await store.put("short", "small")
    clock.now += 1
    for _ in range(200):
        await asyncio.sleep(0.01)
        if ended := await store.get("short") is None:
            break
    await store.close()
    assert ended


async def test_without_redis_a_process_remembers_its_own_sessions(redis: RedisServer) -> None:
    store = RedisSessions(redis.url, 60.0, MemorySessions(60.0, Clock()))
    await store.put("one", "small")
    redis.stop()
    try:
        assert await store.get("one") == "small"
        await store.put("two", "large")
        assert await store.get("two") == "large"
        assert store.link.degraded
    finally:
        redis.start()

    async def answers_again() -> None:
        while store.link.degraded:
            await store.get("one")

    await asyncio.wait_for(answers_again(), 10)
    assert await store.get("one") == "small", "what this process knows is kept though the new Redis is empty"
    await store.close()
