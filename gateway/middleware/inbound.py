"""`Inbound`: what the middleware knows of a request before any handler runs; found in `scope["orbweaver"]`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, cast

from gateway.registry.records import ClientKey

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_DATA_PLANE = frozenset({"chat", "completions", "embeddings", "responses", "models", "route", "feedback"})
_SCOPE_FIELD = "orbweaver"


@dataclass(slots=True)
class Inbound:
    """`headers` has lower-case names; of a repeated one the last counts. `started` is `time.perf_counter()`.

    `send` is the server's own: once the head of an answer is out, its body may go there directly, past all middleware.
    `data_plane` is true for the paths that need a client key and count as traffic.
    """

    request_id: str
    headers: dict[bytes, bytes]
    started: float
    data_plane: bool
    send: Send
    key: ClientKey | None = None


def inbound_of(scope: Scope) -> Inbound:
    """The request's `Inbound`, set by the outermost middleware."""
    return cast(Inbound, scope[_SCOPE_FIELD])


def set_inbound(scope: Scope, inbound: Inbound) -> None:
    scope[_SCOPE_FIELD] = inbound


def forget_inbound(scope: Scope) -> None:
    """Cut the circle of the server's request, its scope, `Inbound` and the server's `send`.

    Left alone it keeps every request until the garbage collector comes, which stops the event loop when it does.
    """
    scope.pop(_SCOPE_FIELD, None)


def is_data_plane(path: str) -> bool:
    """Whether a path belongs to the OpenAI-compatible surface, with or without `/v1`."""
    path = path.lstrip("/")
    if path.startswith("v1/"):
        path = path[3:]
    return path.partition("/")[0] in _DATA_PLANE
