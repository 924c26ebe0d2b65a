"""Bounded label values: what a client or a provider sends never becomes a label as it stands."""

from __future__ import annotations

from typing import Final

from gateway.registry.records import Endpoint
from gateway.routing.wishes import PRESETS

OTHER: Final = "_other"
NONE: Final = "none"

# Operation names of the OpenTelemetry GenAI conventions; `/responses` generates content by chatting.
OPERATIONS: Final[dict[str, str]] = {
    Endpoint.CHAT: "chat",
    Endpoint.RESPONSES: "chat",
    Endpoint.COMPLETIONS: "text_completion",
    Endpoint.EMBEDDINGS: "embeddings",
}
OUTCOMES: Final = frozenset(
    {"ok", "client_error", "upstream_error", "timeout", "disconnected", "limited", "gateway_error"}
)


class BoundedNames:
    """Lets the first `limit` distinct values through and folds all later ones into `_other`."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: set[str] = set()

    def fold(self, value: str) -> str:
        """`value` itself while it is one of the first `limit`; `none` for an empty one."""
        if value in self._known:
            return value
        if not value:
            return NONE
        if len(self._known) >= self._limit:
            return OTHER
        self._known.add(value)
        return value


def route_of(requested: str, answered: str, *, named: bool) -> str:
    """auto, a preset, named, or unknown: what the request asked for, without repeating a client's text."""
    if requested in PRESETS:
        return requested
    return "named" if named or answered else "unknown"


def endpoint_of(endpoint: str) -> str:
    """The path below `/v1` where it is one of ours, else `_other`."""
    return str(endpoint) if endpoint in OPERATIONS else OTHER


def status_class(status: int) -> str:
    """`2xx`, `4xx` ...; `none` where no answer was sent."""
    return f"{status // 100}xx" if 100 <= status <= 599 else NONE


def tenth_of(probability: float) -> str:
    """The tenth a probability lies in, such as `0.7-0.8`; 1.0 counts to the last."""
    low = min(max(int(probability * 10), 0), 9)
    return f"{low / 10:.1f}-{(low + 1) / 10:.1f}"
