"""The embedder for asyncio: a small thread pool, micro-batches, a cache by hash of the prompt, deadlines, cancellation.

Nothing runs on the event loop but bookkeeping. Prompts of one batch go through the model one by one (see `embed`), so
a batch saves thread hops, each prompt is answered as soon as it is done, and its vector does not depend on the others.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
_ENTRY_OVERHEAD = 200


class EmbedTimeout(TimeoutError):
    """No vector within the deadline: the caller should go on with its fallback."""


@dataclass(frozen=True, slots=True)
class FrontSettings:
    """Threads, largest micro-batch, bytes of cached vectors, seconds a caller waits, and the most prompts waiting."""

    threads: int = 2
    batch: int = 16
    cache_bytes: int = 64 * 2**20
    deadline_s: float = 2.0
    waiting: int = 1_024


@dataclass(slots=True)
class FrontStatistics:
    """Counts since the start."""

    hits: int = 0
    misses: int = 0
    batches: int = 0
    timeouts: int = 0
    refused: int = 0


@dataclass(slots=True)
class _Waiting:
    """One prompt on its way, and everybody who waits for it."""

    key: bytes
    prompt: str
    future: asyncio.Future[FloatArray]
    callers: int = 1


class VectorCache:
    """Least recently used vectors, bounded in bytes. For one thread (the event loop's)."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._entries: OrderedDict[bytes, FloatArray] = OrderedDict()
        self.size_bytes = 0

    def get(self, key: bytes) -> FloatArray | None:
        """The vector of a key, which becomes the most recently used."""
        vector = self._entries.get(key)
        if vector is not None:
            self._entries.move_to_end(key)
        return vector

    def put(self, key: bytes, vector: FloatArray) -> None:
        """Keep a vector (made read-only: it is shared), dropping the least recently used beyond the limit."""
        if key in self._entries or vector.nbytes + _ENTRY_OVERHEAD > self._limit:
            return
        vector.flags.writeable = False
        self._entries[key] = vector
        self.size_bytes += vector.nbytes + _ENTRY_OVERHEAD
        while self.size_bytes > self._limit:
            _, dropped = self._entries.popitem(last=False)
            self.size_bytes -= dropped.nbytes + _ENTRY_OVERHEAD


@dataclass
class AsyncEmbedder:
    """Embeds prompts for many concurrent callers of one event loop.

    Args:
        embed_one: text -> vector; called in worker threads, so it must be thread-safe (`PromptEmbedder.embed_one` is).
    """

    embed_one: Callable[[str], FloatArray]
    settings: FrontSettings = field(default_factory=FrontSettings)
    statistics: FrontStatistics = field(default_factory=FrontStatistics)

    def __post_init__(self) -> None:
        self._cache = VectorCache(self.settings.cache_bytes)
        self._pool = ThreadPoolExecutor(self.settings.threads, thread_name_prefix="embed")
        self._queue: deque[_Waiting] = deque()
        self._in_flight: dict[bytes, _Waiting] = {}
        self._busy = 0

    async def vector(self, prompt: str, *, deadline_s: float | None = None) -> FloatArray:
        """The vector of a prompt, from the cache or the pool; equal prompts in flight are embedded once.

        Raises:
            EmbedTimeout: the deadline (default: of the settings) has passed, or too many prompts wait already.
        """
        key = hashlib.blake2b(prompt.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        cached = self._cache.get(key)
        if cached is not None:
            self.statistics.hits += 1
            return cached
        waiting = self._in_flight.get(key)
        if waiting is None:
            waiting = self._enqueue(key, prompt)
        else:
            waiting.callers += 1
        try:
            limit = self.settings.deadline_s if deadline_s is None else deadline_s
            return await asyncio.wait_for(asyncio.shield(waiting.future), limit)
        except TimeoutError as error:
            self.statistics.timeouts += 1
            raise EmbedTimeout(f"no vector within {limit:g} s") from error
        finally:
            waiting.callers -= 1

    async def close(self) -> None:
        """Drop what waits and end the threads; a running prompt is finished first."""
        while self._queue:
            self._queue.popleft().future.cancel()
        await asyncio.to_thread(self._pool.shutdown, wait=True, cancel_futures=True)

    async def __aenter__(self) -> AsyncEmbedder:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def _enqueue(self, key: bytes, prompt: str) -> _Waiting:
        if len(self._queue) >= self.settings.waiting:
            self.statistics.refused += 1
            raise EmbedTimeout(f"{len(self._queue)} prompts wait for the embedder already")
        self.statistics.misses += 1
        waiting = _Waiting(key, prompt, asyncio.get_running_loop().create_future())
        # Nobody may be left to look at a failure after a timeout; it must not be reported as unretrieved.
        waiting.future.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._in_flight[key] = waiting
        self._queue.append(waiting)
        self._start_workers()
        return waiting

    def _start_workers(self) -> None:
        while self._queue and self._busy < self.settings.threads:
            idle = self.settings.threads - self._busy
            size = min(self.settings.batch, math.ceil(len(self._queue) / idle))
            batch = [self._queue.popleft() for _ in range(size)]
            self._busy += 1
            self.statistics.batches += 1
            self._pool.submit(self._run_batch, batch, asyncio.get_running_loop())

    def _run_batch(self, batch: list[_Waiting], loop: asyncio.AbstractEventLoop) -> None:
        """In a worker thread: answer each prompt as soon as it is done."""
        for waiting in batch:
            vector: FloatArray | None = None
            failure: Exception | None = None
            if waiting.callers > 0:
                try:
                    vector = self.embed_one(waiting.prompt)
                except Exception as error:  # handed to the caller, who names and logs it
                    failure = error
            loop.call_soon_threadsafe(self._finish, waiting, vector, failure)
        loop.call_soon_threadsafe(self._release)

    def _finish(self, waiting: _Waiting, vector: FloatArray | None, failure: Exception | None) -> None:
        self._in_flight.pop(waiting.key, None)
        if vector is not None:
            self._cache.put(waiting.key, vector)
        if waiting.future.done():
            return
        if vector is not None:
            waiting.future.set_result(vector)
        elif failure is not None:
            waiting.future.set_exception(failure)
        elif waiting.callers > 0:
            # Somebody joined after the worker had passed over an abandoned prompt.
            self._in_flight[waiting.key] = waiting
            self._queue.append(waiting)
        else:
            waiting.future.cancel()

    def _release(self) -> None:
        self._busy -= 1
        self._start_workers()
