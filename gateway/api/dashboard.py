"""`/`: the built-in dashboard, its files, and `/admin/overview`, which it shows. No external assets, strict CSP."""

from __future__ import annotations

from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Final

import orjson
from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel

from gateway import __version__
from gateway.api.admin_guard import guard
from gateway.api.health import ProblemOut, assess
from gateway.errors import NotFound
from gateway.services import Services
from gateway.telemetry.activity import Activity
from gateway.telemetry.overview import (
    CandidateRow,
    Pace,
    Point,
    Savings,
    baseline_name,
    candidate_rows,
    pace,
    points,
    savings,
)

router = APIRouter(tags=["dashboard"])

STATIC: Final = Path(__file__).parent / "static"
CONTENT_TYPES: Final = {
    "index.html": "text/html; charset=utf-8",
    "dashboard.css": "text/css; charset=utf-8",
    "dashboard.js": "text/javascript; charset=utf-8",
    "view.js": "text/javascript; charset=utf-8",
    "format.js": "text/javascript; charset=utf-8",
    "orbweaver.svg": "image/svg+xml",
}
HEADERS: Final = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


class TotalsOut(BaseModel):
    """Counts and money since the start."""

    requests: int
    errors: int
    disconnected: int
    limited: int
    routed: int
    fallbacks: int
    tokens_in: int
    tokens_out: int
    cost_usd: float
    unpriced: int


class Overview(BaseModel):
    """Everything the dashboard shows but the decisions themselves. `series` covers 15 minutes, oldest first."""

    version: str
    ready: bool
    problems: list[ProblemOut]
    started_at: float
    now: float
    quality: float
    default: str | None
    scorer: str
    scorer_is_prior: bool
    totals: TotalsOut
    pace: Pace
    series: list[Point]
    savings: Savings
    candidates: list[CandidateRow]


@router.get("/admin/overview", response_model=Overview, dependencies=[Depends(guard)])
async def overview(request: Request) -> Overview:
    """What happened lately and since the start, candidates with their health, spend and savings."""
    services: Services = request.app.state.services
    settings = services.settings
    activity = await _activity(services)
    candidates = services.registry.snapshot.candidates
    state = assess(services)
    series = activity.series()
    totals = asdict(activity.totals)
    return Overview(
        version=__version__,
        ready=state.ready,
        problems=state.problems,
        started_at=activity.started_at,
        now=services.clock(),
        quality=settings.routing.quality,
        default=settings.routing.default,
        scorer=services.router.scorer.version,
        scorer_is_prior=services.router.scorer.version.startswith("prior"),
        totals=TotalsOut(**{name: totals[name] for name in TotalsOut.model_fields}),
        pace=pace(series),
        series=points(series),
        savings=savings(
            activity.totals,
            baseline=baseline_name(candidates, settings.routing.baseline),
            usd_per_cpu_hour=settings.telemetry.router_usd_per_cpu_hour,
        ),
        candidates=list(candidate_rows(candidates, services.health, activity)),
    )


async def _activity(services: Services) -> Activity:
    """What this worker did, and where there are several what all of them did."""
    if not services.workers.several:
        return services.activity
    others = await services.workers.ask("activity")
    return services.activity.merged(orjson.loads(answer) for answer in others.values())


@router.get("/", include_in_schema=False)
async def page() -> Response:
    """The dashboard page."""
    return _serve("index.html")


@router.get("/static/{name}", include_in_schema=False)
async def static_file(name: str) -> Response:
    """One of the page's own files; anything else is 404."""
    if name not in CONTENT_TYPES:
        raise NotFound(f"There is no {name!r} here.")
    return _serve(name)


def _serve(name: str) -> Response:
    return Response(_read(name), headers={**HEADERS, "content-type": CONTENT_TYPES[name]})


@cache
def _read(name: str) -> bytes:
    return (STATIC / name).read_bytes()
