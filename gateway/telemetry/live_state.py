"""Gauges read from the live objects when Prometheus scrapes, so that nothing on the hot path keeps them current."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.registry.records import Candidate
from gateway.telemetry.readiness import candidate_states

if TYPE_CHECKING:
    from capability_encoder.drift import DriftReport
    from gateway.services import Services

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DeploymentState:
    """One deployment as the health board sees it; `retry_in_s` is what is left of its cooldown."""

    model: str
    deployment: str
    up: bool
    in_flight: int = 0
    failures: int = 0
    retry_in_s: float = 0.0


@dataclass(frozen=True, slots=True)
class CandidateCounts:
    """How many candidates there are, by state; `down` are switched on but cannot be called now."""

    up: int = 0
    disabled: int = 0
    down: int = 0


@dataclass(frozen=True, slots=True)
class LedgerState:
    """The ledger's queue: records waiting, and records dropped since the start."""

    queued: int = 0
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class LimiterState:
    """Whether the limiter counts alone because its shared store is away, and how often that store did not answer."""

    degraded: bool = False
    failures: int = 0


def deployment_states(
    candidates: Mapping[str, Candidate], board: Mapping[str, Mapping[str, Any]]
) -> list[DeploymentState]:
    """Every registered deployment; one that has not been called yet counts as up.

    Args:
        board: what `HealthBoard.snapshot` gives, by deployment id.
    """
    states = []
    for candidate in candidates.values():
        for deployment in candidate.deployments:
            seen = board.get(deployment.id, {})
            states.append(
                DeploymentState(
                    model=candidate.name,
                    deployment=deployment.id,
                    up=seen.get("circuit", "closed") == "closed",
                    in_flight=int(seen.get("in_flight", 0)),
                    failures=int(seen.get("failures", 0)),
                    retry_in_s=float(seen.get("retry_in_s", 0.0)),
                )
            )
    return states


class LiveState(Collector):
    """Reads its sources at scrape time. A source that fails is logged and left out: `/metrics` must always answer."""

    def __init__(self) -> None:
        self.deployments: Callable[[], Sequence[DeploymentState]] | None = None
        self.candidates: Callable[[], CandidateCounts] | None = None
        self.ledger: Callable[[], LedgerState] | None = None
        self.limiter: Callable[[], LimiterState] | None = None
        self.drift: Callable[[], DriftReport | None] | None = None
        self._held: list[Metric] | None = None

    def hold(self) -> None:
        """Read now, on the event loop where the sources live; the next `collect`, in any thread, takes this."""
        self._held = list(self._read())

    def watch(self, services: Services) -> None:
        """Read from these services at every scrape from now on."""

        def candidates() -> CandidateCounts:
            states = candidate_states(services.registry.snapshot.candidates, services.health)
            return CandidateCounts(len(states.up), len(states.disabled), len(states.down))

        def limiter() -> LimiterState:
            status = services.limiter.status()
            return LimiterState(status.degraded, status.failures)

        self.candidates = candidates
        self.limiter = limiter
        self.deployments = lambda: deployment_states(services.registry.snapshot.enabled, services.health.snapshot())
        self.ledger = lambda: LedgerState(services.ledger.queued, services.ledger.dropped)
        learner = services.learner
        if learner is not None:
            self.drift = learner.drift

    def describe(self) -> Iterable[Metric]:
        """Nothing: the families exist only once their sources are set."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """The families of all sources that are set: those held, else read now."""
        held, self._held = self._held, None
        return self._read() if held is None else held

    def _read(self) -> Iterable[Metric]:
        for read in (self._deployments, self._candidates, self._ledger, self._limiter, self._drift):
            try:
                yield from read()
            except Exception:  # a border: one broken source must not hide all other metrics
                log.exception("a metrics source failed and was left out", extra={"source": read.__name__})

    def _drift(self) -> list[Metric]:
        report = self.drift() if self.drift is not None else None
        if report is None:
            return []
        figures = {
            "orbweaver_drift_psi": ("Mix of prompts against training (population stability index).", report.psi),
            "orbweaver_rolling_brier": ("Brier score of the last graded answers.", report.brier),
            "orbweaver_rolling_calibration_error": ("Calibration error of the same.", report.calibration_error),
        }
        return [GaugeMetricFamily(name, text, value) for name, (text, value) in figures.items() if value is not None]

    def _deployments(self) -> list[Metric]:
        if self.deployments is None:
            return []
        labels = ("model", "deployment")
        up = GaugeMetricFamily("orbweaver_deployment_up", "1 while the circuit is closed, 0 while open.", labels=labels)
        busy = GaugeMetricFamily("orbweaver_deployment_in_flight", "Calls to this deployment now.", labels=labels)
        failures = GaugeMetricFamily("orbweaver_deployment_failures", "Failures in a row.", labels=labels)
        cooldown = GaugeMetricFamily(
            "orbweaver_deployment_cooldown_seconds", "Time until an open circuit is tried again.", labels=labels
        )
        for state in self.deployments():
            where = (state.model, state.deployment)
            up.add_metric(where, float(state.up))
            busy.add_metric(where, state.in_flight)
            failures.add_metric(where, state.failures)
            cooldown.add_metric(where, state.retry_in_s)
        return [up, busy, failures, cooldown]

    def _candidates(self) -> list[Metric]:
        if self.candidates is None:
            return []
        counts = self.candidates()
        family = GaugeMetricFamily("orbweaver_candidates", "Registered models, by state.", labels=("state",))
        family.add_metric(("up",), counts.up)
        family.add_metric(("disabled",), counts.disabled)
        family.add_metric(("down",), counts.down)
        return [family]

    def _ledger(self) -> list[Metric]:
        if self.ledger is None:
            return []
        state = self.ledger()
        return [
            GaugeMetricFamily("orbweaver_ledger_queue_length", "Records waiting to be written.", state.queued),
            CounterMetricFamily(
                "orbweaver_ledger_dropped_total", "Records dropped because the queue was full.", state.dropped
            ),
        ]

    def _limiter(self) -> list[Metric]:
        if self.limiter is None:
            return []
        state = self.limiter()
        return [
            GaugeMetricFamily(
                "orbweaver_limiter_degraded",
                "1 while the shared store of limits is away and this replica counts alone.",
                float(state.degraded),
            ),
            CounterMetricFamily(
                "orbweaver_limiter_failures_total", "Calls that the shared store of limits failed.", state.failures
            ),
        ]
