"""`RedisLink`: one pool of connections, with bounded waits, that knows whether Redis is there."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from redis.asyncio import Redis

log = logging.getLogger(__name__)
Result = TypeVar("Result")
ANSWER_S = 0.25
RETRY_S = 1.0


class RedisLink:
    """Asks Redis; None where it does not answer in time. While it is away one call a second asks again.

    Args:
        url: `redis://[user:password@]host[:port][/db]`, `rediss://` for TLS, or `unix://path`.
        what: what the process does by itself meanwhile, for the log: "limits are counted in this process".
        back: what is true again afterwards: "limits are shared".
    """

    def __init__(self, url: str, *, what: str, back: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.redis = connect(url)
        self.failures = 0
        self.degraded = False
        self._what, self._back = what, back
        self._monotonic = monotonic
        self._retry_at = 0.0

    async def ask(self, question: Callable[[], Awaitable[Result]]) -> Result | None:
        """Redis's answer to one command or script."""
        from redis.exceptions import RedisError

        if self.degraded:
            if self._monotonic() < self._retry_at:
                return None
            self._retry_at = self._monotonic() + RETRY_S
        try:
            async with asyncio.timeout(2 * ANSWER_S):
                answer = await question()
        except (RedisError, OSError, TimeoutError) as error:
            self.failures += 1
            self._retry_at = self._monotonic() + RETRY_S
            if not self.degraded:
                self.degraded = True
                log.error("Redis does not answer (%s): %s meanwhile.", error, self._what)
            return None
        if self.degraded:
            self.degraded = False
            log.warning("Redis answers again: %s.", self._back)
        return answer

    async def close(self) -> None:
        """Drop the connections."""
        await self.redis.aclose()


def connect(url: str) -> Redis:
    """A client whose every wait is bounded; nothing is opened yet."""
    from redis.asyncio import BlockingConnectionPool, Redis
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=64,
        timeout=ANSWER_S,
        socket_timeout=ANSWER_S,
        socket_connect_timeout=ANSWER_S,
        retry=Retry(NoBackoff(), 0),
        decode_responses=True,
    )
    return Redis.from_pool(pool)
