"""What a panel of the Grafana dashboard is, and the pieces of PromQL that panels share."""

from __future__ import annotations

from dataclasses import dataclass

RATE = "[$__rate_interval]"
RANGE = "[$__range]"
MODEL = 'model=~"$model"'
GEN_AI_MODEL = 'gen_ai_request_model=~"$model"'
FAILED = 'outcome=~"upstream_error|timeout|gateway_error"'
Steps = tuple[tuple[str, float | None], ...]


@dataclass(frozen=True, slots=True)
class Query:
    """One expression and the name of its series."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel; `width` in 24ths of the page. `steps` are thresholds, (colour, from value)."""

    title: str
    description: str
    queries: tuple[Query, ...]
    kind: str = "timeseries"
    unit: str = "short"
    width: int = 8
    height: int = 8
    stacked: bool = False
    steps: Steps = ()
    bounds: tuple[float, float] | None = None
    mappings: tuple[dict[str, object], ...] = ()


def stat(title: str, description: str, expr: str, unit: str = "short", steps: Steps = ()) -> Panel:
    """One number."""
    return Panel(title, description, (Query(expr, title),), "stat", unit, width=3, height=4, steps=steps)


def quantiles(metric: str, by: str, legend: str, *shares: float, labels: str = "") -> tuple[Query, ...]:
    """Percentiles of a histogram, one query for each share."""
    grouped = f"{by}, le" if by else "le"
    return tuple(
        Query(
            f"histogram_quantile({share}, sum by ({grouped}) (rate({metric}_bucket{{{labels}}}{RATE})))",
            f"p{share * 100:g} {legend}".strip(),
        )
        for share in shares
    )
