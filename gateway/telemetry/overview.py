"""`overview`: what the built-in dashboard shows, as one value built from the live objects. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.registry.records import Candidate
from gateway.routing.vitals import HealthView
from gateway.telemetry.activity import Activity, ModelTotals, Slice, Totals, over_all

RECENT_SLICES = 30
PER_POINT = 3  # slices of ten seconds in one point of the sparkline


@dataclass(frozen=True, slots=True)
class Point:
    """Half a minute of traffic; `p50_s` and `p95_s` are None where nothing was answered."""

    at: int
    requests: int
    errors: int
    p50_s: float | None
    p95_s: float | None
    cost_usd: float


@dataclass(frozen=True, slots=True)
class Pace:
    """Times over the last five minutes, in seconds, and requests per second over the last minute."""

    requests_per_s: float
    p50_s: float | None
    p95_s: float | None
    first_token_p50_s: float | None
    overhead_p50_s: float | None


@dataclass(frozen=True, slots=True)
class Savings:
    """Money saved by routing, in USD, since the start.

    `saved_usd` = what the compared requests would have cost on `baseline`, minus what they did cost, minus what
    routing itself cost. It may be negative. None while no compared request has been answered.
    """

    baseline: str | None
    compared_cost_usd: float
    baseline_cost_usd: float
    router_cost_usd: float
    saved_usd: float | None


@dataclass(frozen=True, slots=True)
class CandidateRow:
    """One candidate with its health and what it did since the start. Prices in USD per million tokens."""

    name: str
    state: str
    source: str
    provider: str
    deployments: int
    price_in: float | None
    price_out: float | None
    context_window: int | None
    can: tuple[str, ...]
    ttft_s: float | None
    tokens_per_s: float | None
    retry_in_s: float
    requests: int
    errors: int
    tokens_in: int
    tokens_out: int
    cost_usd: float
    share: float


def points(series: list[Slice]) -> list[Point]:
    """The sparkline: slices joined three by three, oldest first."""
    found = []
    for start in range(0, len(series), PER_POINT):
        part = series[start : start + PER_POINT]
        durations = over_all(part, "durations")
        found.append(
            Point(
                at=part[0].at,
                requests=sum(piece.requests for piece in part),
                errors=sum(piece.errors for piece in part),
                p50_s=durations.percentile(0.5),
                p95_s=durations.percentile(0.95),
                cost_usd=sum(piece.cost_usd for piece in part),
            )
        )
    return found


def pace(series: list[Slice]) -> Pace:
    """How fast things go now, from slices of ten seconds, oldest first."""
    recent = series[-RECENT_SLICES:]
    durations = over_all(recent, "durations")
    minute = series[-7:-1]  # the newest slice is not full yet
    return Pace(
        requests_per_s=sum(piece.requests for piece in minute) / (10 * len(minute)) if minute else 0.0,
        p50_s=durations.percentile(0.5),
        p95_s=durations.percentile(0.95),
        first_token_p50_s=over_all(recent, "first_tokens").percentile(0.5),
        overhead_p50_s=over_all(recent, "overheads").percentile(0.5),
    )


def savings(totals: Totals, *, baseline: str | None, usd_per_cpu_hour: float) -> Savings:
    """What routing saved against the baseline model, its own work priced in."""
    router = totals.router_s * usd_per_cpu_hour / 3600
    compared = totals.baseline_cost_usd > 0 or totals.routed_cost_usd > 0
    return Savings(
        baseline=baseline,
        compared_cost_usd=totals.routed_cost_usd,
        baseline_cost_usd=totals.baseline_cost_usd,
        router_cost_usd=router,
        saved_usd=totals.baseline_cost_usd - totals.routed_cost_usd - router if compared else None,
    )


def candidate_rows(
    candidates: Mapping[str, Candidate], health: HealthView, activity: Activity
) -> tuple[CandidateRow, ...]:
    """All candidates, those that can answer first, then by name."""
    answered = sum(model.requests for model in activity.models.values()) or 1
    rows = []
    for name, candidate in candidates.items():
        vitals = health.vitals(candidate)
        state = "disabled" if not candidate.enabled else "up" if vitals.available else "down"
        did = activity.models.get(name) or ModelTotals()
        rows.append(
            CandidateRow(
                name=name,
                state=state,
                source=candidate.source,
                provider=candidate.deployments[0].provider if candidate.deployments else "",
                deployments=len(candidate.deployments),
                price_in=candidate.price_in,
                price_out=candidate.price_out,
                context_window=candidate.context_window,
                can=tuple(sorted(candidate.can)),
                ttft_s=vitals.ttft_s,
                tokens_per_s=vitals.tokens_per_s,
                retry_in_s=vitals.retry_in_s,
                requests=did.requests,
                errors=did.errors,
                tokens_in=did.tokens_in,
                tokens_out=did.tokens_out,
                cost_usd=did.cost_usd,
                share=did.requests / answered,
            )
        )
    order = {"up": 0, "down": 1, "disabled": 2}
    return tuple(sorted(rows, key=lambda row: (order[row.state], row.name)))


def baseline_name(candidates: Mapping[str, Candidate], declared: str | None) -> str | None:
    """The declared baseline; else the dearest candidate by the sum of its prices; None where nothing has a price."""
    if declared is not None:
        return declared
    priced = {
        item.name: (item.price_in or 0.0) + (item.price_out or 0.0)
        for item in candidates.values()
        if item.enabled and (item.price_in is not None or item.price_out is not None)
    }
    return max(priced, key=lambda name: priced[name], default=None)
