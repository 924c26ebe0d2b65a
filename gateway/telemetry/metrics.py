"""`Metrics`: the sink that turns finished requests into Prometheus series, and renders them for `/metrics`.

Children are resolved once per label tuple and kept in cells, so that recording a request costs a few increments.
All methods are meant for the event loop's thread; none blocks or raises.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    ProcessCollector,
    Summary,
    disable_created_metrics,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from gateway.routing.decision import RoutingDecision
from gateway.telemetry.instruments import Instruments
from gateway.telemetry.labels import (
    NONE,
    OPERATIONS,
    OTHER,
    OUTCOMES,
    BoundedNames,
    endpoint_of,
    route_of,
    status_class,
    tenth_of,
)
from gateway.telemetry.live_state import LiveState
from gateway.telemetry.record import RequestRecord

# Prometheus makes nothing of `_created` series, and they would be a fourth of all.
disable_created_metrics()  # type: ignore[no-untyped-call]

MAX_MODELS = 500
MAX_PROVIDERS = 50
MAX_ATTEMPT_OUTCOMES = 30
MAX_CELLS = 20_000
SECONDS_PER_HOUR = 3600.0


class _Cell:
    """The children of one combination of labels, each resolved when it is first needed.

    A child that nothing was ever counted in would still be a series in Prometheus.
    """

    __slots__ = ("_children", "_resolve")

    def __init__(self, resolve: Mapping[str, Callable[[], Any]]) -> None:
        self._resolve = resolve
        self._children: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        child = self._children.get(name)
        if child is None:
            child = self._children[name] = self._resolve[name]()
        return child


class Metrics:
    """Implements `Sink`.

    Args:
        router_usd_per_cpu_hour: what an hour of CPU costs; prices the router's own work against its savings.
    """

    def __init__(self, *, router_usd_per_cpu_hour: float = 0.04) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        self.instruments = Instruments(self.registry)
        self.live_state = LiveState()
        self.registry.register(self.live_state)
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        Gauge("orbweaver_build_info", "Version in force; always 1.", ("version",), registry=self.registry).labels(
            _own_version()
        ).set(1)
        self._usd_per_second = router_usd_per_cpu_hour / SECONDS_PER_HOUR
        self._models = BoundedNames(MAX_MODELS)
        self._providers = BoundedNames(MAX_PROVIDERS)
        self._attempt_outcomes = BoundedNames(MAX_ATTEMPT_OUTCOMES)
        self._cells: dict[tuple[str, str, str, str, str, int], _Cell] = {}
        self._decisions: dict[tuple[str, str], tuple[Counter, Histogram]] = {}
        self._attempts: dict[tuple[str, str], _Cell] = {}

    def record(self, record: RequestRecord) -> None:
        """Count one finished request."""
        decision = record.decision
        cell = self._cell(record)
        cell["requests"].inc()
        if record.outcome != "limited" and record.model:
            cell["operation"].observe(record.duration_s)
        if record.overhead_s > 0.0:  # not measured for what was refused at the door
            cell["overhead"].observe(record.overhead_s)
        if record.first_token_s is not None and record.stream:
            cell["first_token"].observe(record.first_token_s)
        self._record_usage(record, cell)
        if decision is not None:
            self._record_decision(decision, record, cell)
        if record.attempts:
            self._record_attempts(record.attempts)
        if record.outcome == "disconnected":
            stream = "true" if record.stream else "false"
            self.instruments.disconnects.labels(endpoint_of(record.endpoint), stream).inc()
        elif record.outcome == "limited":
            limit = "budget" if record.error_code == "insufficient_quota" else "rate"
            self.instruments.limited.labels(limit).inc()

    def request_started(self) -> None:
        """One more request in flight; `request_finished` must follow, whatever happens."""
        self.instruments.in_flight.inc()

    def request_finished(self) -> None:
        """One request less in flight."""
        self.instruments.in_flight.dec()

    def turned_away(self, status: int) -> None:
        """Count a request that was refused with this status before it was read."""
        self.instruments.turned_away.labels(str(status)).inc()

    def feedback(self, model: str, predicted: float | None, score: float) -> None:
        """Set what was predicted (None: the answer was not scored) against a feedback `score`, both 0..1."""
        name = self._models.fold(model)
        self.instruments.feedback.labels(name, "false" if predicted is None else "true").inc()
        if predicted is None:
            return
        tenth = tenth_of(predicted)
        self.instruments.feedback_score.labels(tenth).observe(score)
        self.instruments.feedback_predicted.labels(tenth).observe(predicted)
        brier: Summary = self.instruments.feedback_brier.labels(name)
        brier.observe((predicted - score) ** 2)

    def loop_lag(self, seconds: float) -> None:
        """One measurement of how late the event loop ran."""
        self.instruments.loop_lag.observe(seconds)

    def render(self) -> tuple[bytes, str]:
        """The exposition text of everything and its content type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST

    async def scrape(self) -> bytes:
        """The exposition text, written in a thread: with many models that takes tens of milliseconds."""
        self.live_state.hold()
        return (await asyncio.to_thread(self.render))[0]

    def _cell(self, record: RequestRecord) -> _Cell:
        decision = record.decision
        named = decision is not None and decision.rule == "named"
        route = route_of(record.requested_model, record.model, named=named)
        key = (record.endpoint, route, record.model, record.provider, record.outcome, record.status // 100)
        cell = self._cells.get(key)
        if cell is None:
            cell = self._new_cell(record, route)
            if len(self._cells) < MAX_CELLS:
                self._cells[key] = cell
        return cell

    def _new_cell(self, record: RequestRecord, route: str) -> _Cell:
        all_of = self.instruments
        model = self._models.fold(record.model)
        outcome_class = status_class(record.status)
        provider = self._providers.fold(record.provider)
        endpoint = endpoint_of(record.endpoint)
        outcome = record.outcome if record.outcome in OUTCOMES else OTHER
        operation = OPERATIONS.get(record.endpoint, OTHER)
        what = (operation, provider, model)
        return _Cell(
            {
                "requests": lambda: all_of.requests.labels(endpoint, route, model, outcome, outcome_class),
                "operation": lambda: all_of.operation.labels(*what, "" if outcome == "ok" else outcome),
                "overhead": lambda: all_of.overhead.labels(route),
                "first_token": lambda: all_of.first_token.labels(*what),
                "per_token": lambda: all_of.per_token.labels(*what),
                "tokens_in": lambda: all_of.tokens.labels(*what, "input"),
                "tokens_out": lambda: all_of.tokens.labels(*what, "output"),
                "cost": lambda: all_of.cost.labels(model, route),
                "unpriced": lambda: all_of.unpriced.labels(model),
                "predicted": lambda: all_of.predicted.labels(model),
            }
        )

    def _record_usage(self, record: RequestRecord, cell: _Cell) -> None:
        usage = record.usage
        if usage is not None:
            cell["tokens_in"].observe(usage.prompt_tokens)
            cell["tokens_out"].observe(usage.completion_tokens)
            if record.stream and record.first_token_s is not None and usage.completion_tokens > 1:
                generating = record.duration_s - record.first_token_s
                cell["per_token"].observe(max(generating, 0.0) / (usage.completion_tokens - 1))
        if record.cost_usd is not None:
            cell["cost"].inc(max(record.cost_usd, 0.0))
        elif record.outcome == "ok":
            cell["unpriced"].inc()

    def _record_decision(self, decision: RoutingDecision, record: RequestRecord, cell: _Cell) -> None:
        pair = self._decisions.get((decision.model, decision.rule))
        if pair is None:
            counter = self.instruments.decisions.labels(self._models.fold(decision.model), decision.rule)
            pair = (counter, self.instruments.decide.labels(decision.rule))
            if len(self._decisions) < MAX_CELLS:
                self._decisions[decision.model, decision.rule] = pair
        pair[0].inc()
        pair[1].observe(record.decide_s)
        if decision.rule == "named":
            return
        self.instruments.router_cost.inc(max(record.decide_s, 0.0) * self._usd_per_second)
        if record.cost_usd is not None and record.baseline_cost_usd is not None:
            self.instruments.routed_cost.inc(max(record.cost_usd, 0.0))
            self.instruments.baseline_cost.inc(max(record.baseline_cost_usd, 0.0))
        for verdict in decision.candidates:
            if verdict.model == record.model:
                if verdict.p is not None:
                    cell["predicted"].observe(verdict.p)
                return

    def _record_attempts(self, attempts: tuple[tuple[str, str, str], ...]) -> None:
        last = len(attempts) - 1
        for index, (model, _, outcome) in enumerate(attempts):
            cell = self._attempts.get((model, outcome))
            if cell is None:
                cell = self._new_attempt_cell(self._models.fold(model), self._attempt_outcomes.fold(outcome))
                if len(self._attempts) < MAX_CELLS:
                    self._attempts[model, outcome] = cell
            cell["attempts"].inc()
            if index < last:
                cell["retries" if attempts[index + 1][0] == model else "fallbacks"].inc()

    def _new_attempt_cell(self, model: str, outcome: str) -> _Cell:
        all_of = self.instruments
        return _Cell(
            {
                "attempts": lambda: all_of.attempts.labels(model, outcome),
                "fallbacks": lambda: all_of.fallbacks.labels(model, outcome),
                "retries": lambda: all_of.retries.labels(model),
            }
        )


def _own_version() -> str:
    try:
        return version("orbweaver-gateway")
    except PackageNotFoundError:
        return NONE
