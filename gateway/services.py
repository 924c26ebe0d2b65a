"""`Services`: everything a request handler may use, wired by `gateway.app.build_app` and read from `app.state`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gateway.telemetry.workers import Workers

if TYPE_CHECKING:
    from gateway.aptitude.worker import AptitudeWorker
    from gateway.encoder.learner import Learner
    from gateway.encoder.scorer import EncoderScorer
    from gateway.limits.base import Limiter
    from gateway.registry.ledger import Ledger
    from gateway.registry.registry import Registry
    from gateway.routing.router import Router
    from gateway.routing.session import SessionStore
    from gateway.settings import Settings
    from gateway.telemetry.activity import Activity
    from gateway.telemetry.metrics import Metrics
    from gateway.telemetry.record import Sink
    from gateway.telemetry.tracing import Tracing
    from gateway.upstreams.execute import Executor
    from gateway.upstreams.health import HealthBoard
    from gateway.zoo.first import FirstCandidates


@dataclass(slots=True)
class Services:
    """Built once at start-up. `sinks` take every finished request; `clock` is wall time in seconds.

    `notes` are for the operator, printed once when the gateway is up.
    """

    settings: Settings
    registry: Registry
    limiter: Limiter
    router: Router
    sessions: SessionStore
    executor: Executor
    health: HealthBoard
    metrics: Metrics
    ledger: Ledger
    tracing: Tracing
    sinks: Sequence[Sink]
    clock: Callable[[], float]
    activity: Activity
    aptitude: AptitudeWorker
    first: FirstCandidates
    encoder: EncoderScorer | None = None
    learner: Learner | None = None
    notes: list[str] = field(default_factory=list)
    workers: Workers = field(default_factory=lambda: Workers(None, "", {}))
