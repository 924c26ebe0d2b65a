"""`/healthz` (the process lives), `/readyz` (it can answer requests; else what is wrong and the fix), `/metrics`."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Request, Response
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from pydantic import BaseModel, Field

from gateway import __version__
from gateway.services import Services
from gateway.settings import read_secret
from gateway.telemetry.exposition import join_workers
from gateway.telemetry.readiness import Problem, candidate_problems, candidate_states, registry_problems

router = APIRouter(tags=["health"])


class Alive(BaseModel):
    """The process is up."""

    status: str = "ok"
    version: str = __version__


class ProblemOut(BaseModel):
    """One thing that is wrong. `blocking`: nothing can be answered until it is put right."""

    what: str
    fix: str
    blocking: bool


class CandidatesOut(BaseModel):
    """Names of the candidates, by state."""

    up: list[str]
    down: list[str]
    disabled: list[str]


class Readiness(BaseModel):
    """Whether requests can be answered, and everything that stands in the way or deserves a look."""

    ready: bool
    version: str = __version__
    registry: Annotated[str, Field(description="ok, or what is wrong with the registry's database")]
    registry_version: int
    candidates: CandidatesOut
    problems: list[ProblemOut]


def assess(services: Services) -> Readiness:
    """The state of things now. Reads only what is in memory, so it is safe to call at any rate."""
    snapshot = services.registry.snapshot
    problems = [
        *candidate_problems(snapshot.candidates, services.health, read_secret),
        *registry_problems(services.registry.problem, loaded=services.registry.loaded),
        *_backlog(services),
    ]
    problems.sort(key=lambda problem: not problem.blocking)
    states = candidate_states(snapshot.candidates, services.health)
    return Readiness(
        ready=not any(problem.blocking for problem in problems),
        registry=services.registry.problem or "ok",
        registry_version=snapshot.version,
        candidates=CandidatesOut(up=list(states.up), down=list(states.down), disabled=list(states.disabled)),
        problems=[ProblemOut(what=item.what, fix=item.fix, blocking=item.blocking) for item in problems],
    )


def _backlog(services: Services) -> list[Problem]:
    ledger = services.ledger
    problems = []
    if ledger.problem is not None:
        problems.append(
            Problem(
                f"Decisions cannot be written: {ledger.problem} {ledger.queued} wait in memory.",
                "Requests go on; check database_url, free space and permissions.",
            )
        )
    if services.limiter.status().degraded:
        problems.append(
            Problem("Redis is away; each replica counts its limits alone.", "Check redis_url and the Redis server.")
        )
    return problems


@router.get("/healthz", response_model=Alive)
async def healthz() -> Alive:
    """Always 200 while the process can answer at all; for liveness probes."""
    return Alive()


@router.get("/readyz", response_model=Readiness, responses={503: {"model": Readiness}})
async def readyz(request: Request, response: Response) -> Readiness:
    """200 while at least one model can be asked, else 503; both say what is wrong and what to do."""
    found = assess(request.app.state.services)
    response.status_code = 200 if found.ready else 503
    return found


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(request: Request) -> Response:
    """Everything Prometheus scrapes; with several workers the series of all of them, each with its worker's name."""
    services: Services = request.app.state.services
    body = await services.metrics.scrape()
    if services.workers.several:
        others = await services.workers.ask("metrics")
        texts = {services.workers.name: body.decode(), **{name: text.decode() for name, text in others.items()}}
        body = (await asyncio.to_thread(join_workers, texts)).encode()
    return Response(body, headers={"content-type": CONTENT_TYPE_LATEST})
