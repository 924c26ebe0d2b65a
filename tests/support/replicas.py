"""Two real gateway processes with folders of their own that share one PostgreSQL and one Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.servers import (
    PostgresServer,
    RedisServer,
    postgres_binaries,
    postgres_server,
    redis_is_installed,
    redis_server,
)
from tests.support.serving import Serving, serving


@dataclass
class Backends:
    """The real servers that the replicas share."""

    postgres: PostgresServer
    redis: RedisServer


@contextmanager
def backends() -> Iterator[Backends]:
    """Fresh servers; skips the test where they are not installed."""
    if not redis_is_installed() or postgres_binaries() is None:
        pytest.skip("redis-server and postgresql are not both installed")
    with postgres_server() as postgres, redis_server() as redis:
        yield Backends(postgres, redis)


@asynccontextmanager
async def replica(folder: Path, behind: Backends, database_url: str, **sections: Any) -> AsyncIterator[Serving]:
    """One gateway process; its models come from the registry."""
    shared = {"database_url": database_url, "redis_url": behind.redis.url}
    async with serving(folder, [], **shared, **sections) as gateway:
        yield gateway
