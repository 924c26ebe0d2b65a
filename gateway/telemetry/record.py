"""`RequestRecord`: everything known of one data-plane request once its last byte is out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from gateway.routing.decision import RoutingDecision


@dataclass(slots=True)
class Usage:
    """Token counts as the upstream reported them (estimated ones say so)."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    estimated: bool = False


@dataclass(slots=True)
class RequestRecord:
    """Filled while a request passes; handed to the sinks after the last byte. Times in seconds, money in USD.

    `outcome` is one of ok, client_error, upstream_error, timeout, disconnected, limited, gateway_error.
    `attempts` lists `(model, deployment id, outcome)` in order; all but the last failed.
    `traceparent` is the caller's own header, `upstream_traceparent` the one sent on (set by `Tracing.outgoing`).
    """

    request_id: str
    endpoint: str
    started_at: float
    stream: bool = False
    decision: RoutingDecision | None = None
    requested_model: str = ""
    model: str = ""
    deployment: str = ""
    provider: str = ""
    key_id: str | None = None
    status: int = 0
    outcome: str = "ok"
    error_code: str | None = None
    attempts: tuple[tuple[str, str, str], ...] = ()
    duration_s: float = 0.0
    overhead_s: float = 0.0
    decide_s: float = 0.0
    first_token_s: float | None = None
    usage: Usage | None = None
    cost_usd: float | None = None
    baseline_cost_usd: float | None = None
    retry_count: int = 0
    traceparent: str | None = None
    upstream_traceparent: str | None = None


class Sink(Protocol):
    """Takes finished records. Must not block and must not raise."""

    def record(self, record: RequestRecord) -> None: ...
