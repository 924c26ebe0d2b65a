"""`Activity`: what happened lately and since the start, kept small in memory for the built-in dashboard."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final

import orjson

from gateway.telemetry.labels import BoundedNames
from gateway.telemetry.record import RequestRecord

SLICE_S: Final = 10
SLICES: Final = 90
# Times are counted in steps of a fourth of a doubling (19 %) from 0.1 ms to about 7 minutes: percentiles read from
# such counts are at most 9 % off, and counts of several workers simply add up.
STEPS_PER_DOUBLING: Final = 4
SHORTEST_S: Final = 1e-4
STEPS: Final = 88
MAX_MODELS: Final = 200
FAILURES: Final = frozenset({"upstream_error", "timeout", "gateway_error"})


@dataclass(slots=True)
class Times:
    """A histogram of times in seconds, fine enough for percentiles."""

    counts: list[int] = field(default_factory=lambda: [0] * STEPS)

    def add(self, seconds: float) -> None:
        """Count one time."""
        step = int(math.log2(seconds / SHORTEST_S) * STEPS_PER_DOUBLING) + 1 if seconds > SHORTEST_S else 0
        self.counts[min(step, STEPS - 1)] += 1

    def merge(self, other: Times) -> None:
        """Add the counts of another histogram."""
        self.counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]

    def percentile(self, share: float) -> float | None:
        """The time in seconds below which `share` (0..1) of all lie; None where nothing was counted."""
        total = sum(self.counts)
        if total == 0:
            return None
        wanted, seen = share * total, 0
        for step, count in enumerate(self.counts):
            seen += count
            if count and seen >= wanted:
                return float(SHORTEST_S * 2 ** (max(step - 0.5, 0) / STEPS_PER_DOUBLING))
        return None


@dataclass(slots=True)
class Slice:
    """What happened in ten seconds; `at` is their beginning, in seconds of the clock."""

    at: int
    requests: int = 0
    errors: int = 0
    cost_usd: float = 0.0
    durations: Times = field(default_factory=Times)
    first_tokens: Times = field(default_factory=Times)
    overheads: Times = field(default_factory=Times)


@dataclass(slots=True)
class ModelTotals:
    """What one model did since the start."""

    requests: int = 0
    errors: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cost_usd: float = 0.0


@dataclass(slots=True)
class Totals:
    """Everything since the start. `routed_cost_usd` and `baseline_cost_usd` cover the same requests: those routed
    with known prices."""

    requests: int = 0
    errors: int = 0
    disconnected: int = 0
    limited: int = 0
    routed: int = 0
    fallbacks: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cost_usd: float = 0.0
    unpriced: int = 0
    routed_cost_usd: float = 0.0
    baseline_cost_usd: float = 0.0
    router_s: float = 0.0


class Activity:
    """Implements `Sink`. Fifteen minutes in slices of ten seconds, and totals since the start.

    Args:
        clock: wall time in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.started_at = clock()
        self.totals = Totals()
        self.models: dict[str, ModelTotals] = {}
        self.slices: deque[Slice] = deque(maxlen=SLICES)
        self._names = BoundedNames(MAX_MODELS)

    def record(self, record: RequestRecord) -> None:
        """Count one finished request."""
        current = self._slice()
        failed = record.outcome in FAILURES
        totals = self.totals
        totals.requests += 1
        totals.errors += failed
        totals.disconnected += record.outcome == "disconnected"
        totals.limited += record.outcome == "limited"
        totals.fallbacks += len({model for model, _, _ in record.attempts}) > 1
        current.requests += 1
        current.errors += failed
        if record.outcome == "ok":
            current.durations.add(record.duration_s)
            current.overheads.add(record.overhead_s)
            if record.stream and record.first_token_s is not None:
                current.first_tokens.add(record.first_token_s)
        self._count_money(record, current)
        if record.model or record.attempts:
            self._count_model(record, failed)

    def series(self, now: float | None = None) -> list[Slice]:
        """The last fifteen minutes, oldest first, with empty slices where nothing happened."""
        last = int((self._clock() if now is None else now) // SLICE_S) * SLICE_S
        known = {piece.at: piece for piece in self.slices}
        return [known.get(at) or Slice(at) for at in range(last - (SLICES - 1) * SLICE_S, last + 1, SLICE_S)]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, for `merge` in another worker."""
        return {
            "started_at": self.started_at,
            "totals": asdict(self.totals),
            "models": {name: asdict(model) for name, model in self.models.items()},
            "slices": [asdict(piece) for piece in self.slices],
        }

    async def to_bytes(self) -> bytes:
        """`to_json` as it goes to another worker."""
        return orjson.dumps(self.to_json())

    def merged(self, others: Iterable[Mapping[str, Any]]) -> Activity:
        """A new activity with the counts of other workers, as their `to_json` gave them, added to these."""
        joined = Activity(self._clock)
        joined.started_at = self.started_at
        slices: dict[int, Slice] = {}
        for part in (self.to_json(), *others):
            joined.started_at = min(joined.started_at, part["started_at"])
            _add(joined.totals, part["totals"])
            for name, counts in part["models"].items():
                _add(joined.models.setdefault(name, ModelTotals()), counts)
            for piece in part["slices"]:
                _add(slices.setdefault(piece["at"], Slice(piece["at"])), piece)
        joined.slices.extend(slices[at] for at in sorted(slices))
        return joined

    def _slice(self) -> Slice:
        at = int(self._clock() // SLICE_S) * SLICE_S
        if not self.slices or self.slices[-1].at < at:
            self.slices.append(Slice(at))
        return self.slices[-1]

    def _count_money(self, record: RequestRecord, current: Slice) -> None:
        totals, decision = self.totals, record.decision
        if record.cost_usd is not None:
            totals.cost_usd += record.cost_usd
            current.cost_usd += record.cost_usd
        elif record.outcome == "ok":
            totals.unpriced += 1
        if decision is not None and decision.rule != "named":
            totals.routed += 1
            totals.router_s += record.decide_s
            if record.cost_usd is not None and record.baseline_cost_usd is not None:
                totals.routed_cost_usd += record.cost_usd
                totals.baseline_cost_usd += record.baseline_cost_usd

    def _count_model(self, record: RequestRecord, failed: bool) -> None:
        name = self._names.fold(record.model or record.attempts[-1][0])
        model = self.models.setdefault(name, ModelTotals())
        model.requests += 1
        model.errors += failed
        model.cost_usd += record.cost_usd or 0.0
        if record.usage is not None:
            model.tokens_in += record.usage.prompt_tokens
            model.tokens_out += record.usage.completion_tokens
            self.totals.tokens_in += record.usage.prompt_tokens
            self.totals.tokens_out += record.usage.completion_tokens


def _add(counts: Any, more: Mapping[str, Any]) -> None:
    """Add the counts of a mapping to a dataclass of the same fields; histograms add up step by step."""
    for one in fields(counts):
        mine, theirs = getattr(counts, one.name), more[one.name]
        if isinstance(mine, Times):
            mine.merge(Times(theirs["counts"]))
        elif one.name != "at":
            setattr(counts, one.name, mine + theirs)


def over_all(slices: Iterable[Slice], name: str) -> Times:
    """One histogram (`durations`, `first_tokens` or `overheads`) over several slices."""
    merged = Times()
    for piece in slices:
        times: Any = getattr(piece, name)
        merged.merge(times)
    return merged
