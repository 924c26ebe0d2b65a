"""The border to providers: one Protocol, and the plain values that cross it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.registry.records import Deployment, Endpoint

RawHeaders = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Limits of one upstream call, in seconds. A ping or a role-only chunk does not count as a first token."""

    connect_s: float = 10.0
    first_token_s: float = 120.0
    answer_s: float = 300.0
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
    """An answer whose head has arrived; `headers` as on the wire. `close` is idempotent and frees the connection."""

    status: int
    headers: RawHeaders

    async def read(self, on_piece: Callable[[], None]) -> bytes:
        """The whole body as it came (still compressed, where the upstream compressed it). Raises UpstreamError.

        `on_piece` is called whenever something more has arrived.
        """
        ...

    async def chunk(self) -> bytes:
        """The next piece of the body, decompressed, as it arrives; empty at the end. Raises UpstreamError."""
        ...

    def close(self) -> None: ...


class Upstream(Protocol):
    """Something that can send a call: aiohttp for OpenAI-compatible servers, litellm for other dialects."""

    async def send(self, call: UpstreamCall) -> UpstreamReply:
        """Raises UpstreamUnreachable or UpstreamTimeout; an error status is a reply, not an exception."""
        ...

    async def close(self) -> None: ...
