"""Concurrent callers share threads, cache and work; deadlines, cancellation and failures reach the right caller."""

import asyncio
import threading
import time

import numpy as np
import numpy.typing as npt
import pytest

from capability_encoder.async_embed import AsyncEmbedder, EmbedTimeout, FrontSettings, VectorCache


class CountingEmbedder:
    """Gives the length of the text; `gate` holds it up until it is set."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, text: str) -> npt.NDArray[np.float32]:
        self.gate.wait(5)
        self.seen.append(text)
        if text == "bad":
            raise ValueError("cannot embed this")
        return np.array([len(text)], dtype=np.float32)


async def test_many_callers_get_their_own_vectors() -> None:
    async with AsyncEmbedder(CountingEmbedder()) as front:
        vectors = await asyncio.gather(*(front.vector("x" * number) for number in range(1, 60)))
    assert [int(vector[0]) for vector in vectors] == list(range(1, 60))


async def test_a_repeated_prompt_comes_from_the_cache_and_cannot_be_changed() -> None:
    embedder = CountingEmbedder()
    async with AsyncEmbedder(embedder) as front:
        first = await front.vector("abc")
        assert await front.vector("abc") is first
        assert front.statistics.hits == 1
        with pytest.raises(ValueError, match="read-only"):
            first[0] = 7
    assert embedder.seen == ["abc"]


async def test_equal_prompts_in_flight_are_embedded_once() -> None:
    embedder = CountingEmbedder()
    embedder.gate.clear()
    async with AsyncEmbedder(embedder) as front:
        callers = [asyncio.create_task(front.vector("same")) for _ in range(10)]
        await asyncio.sleep(0.01)
        embedder.gate.set()
        await asyncio.gather(*callers)
    assert embedder.seen == ["same"]


async def test_waiting_prompts_are_taken_in_batches() -> None:
    embedder = CountingEmbedder()
    embedder.gate.clear()
    async with AsyncEmbedder(embedder, FrontSettings(threads=1, batch=16)) as front:
        callers = [asyncio.create_task(front.vector(f"prompt {number}")) for number in range(33)]
        await asyncio.sleep(0.01)
        embedder.gate.set()
        await asyncio.gather(*callers)
    assert front.statistics.batches == 3


async def test_a_deadline_is_kept_and_the_loop_stays_free() -> None:
    embedder = CountingEmbedder()
    embedder.gate.clear()
    async with AsyncEmbedder(embedder) as front:
        start = time.monotonic()
        with pytest.raises(EmbedTimeout, match=r"no vector within 0.05 s"):
            await front.vector("slow", deadline_s=0.05)
        assert time.monotonic() - start < 2.0
        embedder.gate.set()
        assert (await front.vector("slow"))[0] == 4
    assert front.statistics.timeouts == 1


async def test_a_cancelled_prompt_that_has_not_started_is_not_embedded() -> None:
    embedder = CountingEmbedder()
    embedder.gate.clear()
    async with AsyncEmbedder(embedder, FrontSettings(threads=1, batch=1)) as front:
        first = asyncio.create_task(front.vector("first"))
        second = asyncio.create_task(front.vector("second"))
        await asyncio.sleep(0.01)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        embedder.gate.set()
        await first
        await front.vector("third")
    assert embedder.seen == ["first", "third"]


async def test_cancelling_one_of_two_callers_leaves_the_other() -> None:
    embedder = CountingEmbedder()
    embedder.gate.clear()
    async with AsyncEmbedder(embedder) as front:
        one, two = (asyncio.create_task(front.vector("same")) for _ in range(2))
        await asyncio.sleep(0.01)
        one.cancel()
        embedder.gate.set()
        assert (await two)[0] == 4


async def test_a_failure_reaches_its_caller_only() -> None:
    async with AsyncEmbedder(CountingEmbedder()) as front:
        results = await asyncio.gather(front.vector("bad"), front.vector("good"), return_exceptions=True)
        assert isinstance(results[0], ValueError)
        assert isinstance(results[1], np.ndarray)
        assert (await front.vector("fine"))[0] == 4


async def test_too_many_waiting_prompts_are_refused() -> None:
    embedder = CountingEmbedder()
    embedder.gate.clear()
    async with AsyncEmbedder(embedder, FrontSettings(threads=1, batch=1, waiting=2)) as front:
        callers = [asyncio.create_task(front.vector(f"p{number}")) for number in range(3)]
        await asyncio.sleep(0.01)
        with pytest.raises(EmbedTimeout, match="2 prompts wait"):
            await front.vector("one more")
        embedder.gate.set()
        await asyncio.gather(*callers)


def test_the_cache_keeps_to_its_bytes_and_drops_the_least_recent() -> None:
    cache = VectorCache(1_000)
    for name in (b"a", b"b"):
        cache.put(name, np.zeros(50, dtype=np.float32))
    cache.get(b"a")
    cache.put(b"c", np.zeros(50, dtype=np.float32))
    assert cache.get(b"b") is None
    assert cache.get(b"a") is not None
    assert cache.size_bytes <= 1_000
    cache.put(b"huge", np.zeros(10_000, dtype=np.float32))
    assert cache.get(b"huge") is None
