"""Sessions shared by several gateways through Redis; in memory as well, for the time that Redis is away."""

from __future__ import annotations

from gateway.routing.session import MemorySessions
from gateway.shared.redis_link import RedisLink

PREFIX = "orbweaver:session:"


class RedisSessions:
    """A `SessionStore`: the newest model of a session, wherever it was answered.

    Args:
        url: of Redis, as for `RedisLink`.
        ttl_s: seconds of silence after which a session is forgotten.
        local: remembers this process's own sessions, and answers while Redis is away.
    """

    def __init__(self, url: str, ttl_s: float, local: MemorySessions) -> None:
        self.link = RedisLink(
            url, what="sessions are remembered by each process for itself", back="sessions are shared"
        )
        self._ttl_ms = max(1, int(ttl_s * 1000))
        self._local = local

    async def get(self, session: str) -> str | None:
        found = await self.link.ask(lambda: self._read(session))
        return found[0] if found is not None and found[0] is not None else await self._local.get(session)

    async def put(self, session: str, model: str) -> None:
        await self._local.put(session, model)
        await self.link.ask(lambda: self.link.redis.set(PREFIX + session, model, px=self._ttl_ms))

    async def close(self) -> None:
        """Drop the connections."""
        await self.link.close()

    async def _read(self, session: str) -> tuple[str | None]:
        """In a tuple, so that a session that Redis does not know differs from a Redis that does not answer."""
        model = await self.link.redis.get(PREFIX + session)
        return (None if model is None else str(model),)
