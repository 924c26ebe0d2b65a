"""The border to providers: one Protocol, and the plain values that cross it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.registry.records import Deployment, Endpoint


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Limits of one upstream call, in seconds. A ping or a role-only chunk does not count as a first token."""

    connect_s: float = 10.0
    first_token_s: float = 120.0
    idle_s: float = 60.0
    total_s: float = 600.0


@dataclass(frozen=True, slots=True)
class UpstreamCall:
    """One request to one deployment. `body` is JSON ready to send, with the upstream's own model name in it."""

    endpoint: Endpoint
    deployment: Deployment
    body: bytes
    headers: Mapping[str, str]
    stream: bool
    timeouts: Timeouts


class UpstreamReply(Protocol):
    """An answer whose head has arrived. `close` is idempotent and frees the connection at once."""

    status: int
    headers: Sequence[tuple[str, str]]

    async def read(self) -> bytes:
        """The whole body. Raises UpstreamError."""
        ...

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives, in the upstream's own pieces. Raises UpstreamError."""
        ...

    async def close(self) -> None: ...


class Upstream(Protocol):
    """Something that can send a call: aiohttp for OpenAI-compatible servers, litellm for other dialects."""

    async def send(self, call: UpstreamCall) -> UpstreamReply:
        """Raises UpstreamUnreachable or UpstreamTimeout; an error status is a reply, not an exception."""
        ...

    async def close(self) -> None: ...
