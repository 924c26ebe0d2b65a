"""`/admin`: candidates, client keys, jobs, decisions and usage, changed and read at run time."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request

from gateway.api.admin_guard import guard
from gateway.api.admin_models import (
    CreatedKey,
    DecisionList,
    JobList,
    JobOut,
    KeyChange,
    KeyList,
    KeyOut,
    ModelChange,
    ModelList,
    ModelOut,
    NewModel,
    Removed,
    TestOut,
    UsageOut,
)
from gateway.api.explaining_route import ExplainingRoute
from gateway.aptitude.jobs import queue, read_wish
from gateway.registry.keys import BudgetPeriod, NewKey, change_key, create_key
from gateway.registry.ledger_store import DAY_PATTERN
from gateway.registry.records import Candidate
from gateway.registry.registration import change, register, remove
from gateway.registry.views import job_view, key_view, model_view
from gateway.services import Services
from gateway.upstreams.base import Timeouts
from gateway.upstreams.probe import ProbeUpstreams, probe

router = APIRouter(prefix="/admin", tags=["admin"], dependencies=[Depends(guard)], route_class=ExplainingRoute)


def services_of(request: Request) -> Services:
    """Everything a handler may use."""
    services: Services = request.app.state.services
    return services


Wired = Annotated[Services, Depends(services_of)]
Limit = Annotated[int, Query(ge=1, le=500)]
Moment = Annotated[float | None, Query(ge=0, le=1e11)]
Text = Annotated[str | None, Query(max_length=160)]


# -- models ------------------------------------------------------------------------------------------------------


@router.get("/models", response_model=ModelList)
async def list_models(services: Wired) -> dict[str, Any]:
    """All candidates with their health."""
    snapshot = services.registry.snapshot
    health = services.health.snapshot()
    models = [model_view(candidate, snapshot, health=health) for candidate in snapshot.candidates.values()]
    return {"version": snapshot.version, "models": models}


@router.post("/models", response_model=ModelOut, status_code=201)
async def add_model(body: NewModel, services: Wired) -> dict[str, Any]:
    """Register a candidate; it takes part from now on, in every gateway of this registry within a second."""
    wish = read_wish(body.aptitude.model_dump()) if body.aptitude is not None else None
    fields = body.model_dump(exclude={"profile", "aptitude"}, exclude_unset=True)
    added = await register(services.registry, services.settings, fields, profile=body.profile)
    shown = _shown(services, added.candidate, added.warnings)
    if wish is None:
        return shown
    job = await queue(services.registry, body.name, wish)
    services.aptitude.nudge()
    return {**shown, "job": job.id}


@router.post("/models/{name:path}/test", response_model=TestOut)
async def test_model(name: str, services: Wired) -> dict[str, Any]:
    """Prove a registration: one unary and one streamed call of each deployment."""
    candidate = services.registry.candidate(name)
    async with ProbeUpstreams() as upstream_for:
        probes = await probe(candidate, upstream_for, Timeouts(**services.settings.timeouts.model_dump()))
    return {"model": name, "ok": all(result.ok for result in probes), "probes": [asdict(result) for result in probes]}


@router.post("/models/{name:path}/enable", response_model=ModelOut)
async def enable_model(name: str, services: Wired) -> dict[str, Any]:
    """Switch a candidate on."""
    return _shown(services, await services.registry.switch_candidate(name, True))


@router.post("/models/{name:path}/disable", response_model=ModelOut)
async def disable_model(name: str, services: Wired) -> dict[str, Any]:
    """Switch a candidate off; requests under way finish."""
    return _shown(services, await services.registry.switch_candidate(name, False))


@router.get("/models/{name:path}", response_model=ModelOut)
async def show_model(name: str, services: Wired) -> dict[str, Any]:
    """One candidate with its health."""
    return _shown(services, services.registry.candidate(name))


@router.patch("/models/{name:path}", response_model=ModelOut)
async def change_model(name: str, body: ModelChange, services: Wired) -> dict[str, Any]:
    """Change some fields; a candidate of the config file is overridden by an entry of the registry."""
    changed = await change(services.registry, services.settings, name, body.model_dump(exclude_unset=True))
    return _shown(services, changed.candidate, changed.warnings)


@router.delete("/models/{name:path}", response_model=Removed)
async def remove_model(name: str, services: Wired) -> dict[str, Any]:
    """Forget a registered candidate; requests under way finish."""
    return {"name": name, "note": await remove(services.registry, name)}


# -- client keys -------------------------------------------------------------------------------------------------


@router.get("/keys", response_model=KeyList)
async def list_keys(services: Wired) -> dict[str, Any]:
    """All client keys, revoked ones too, newest first."""
    keys = sorted(services.registry.snapshot.keys.values(), key=lambda key: -key.created_at)
    return {"keys": [key_view(key) for key in keys]}


@router.post("/keys", response_model=CreatedKey, status_code=201)
async def make_key(body: NewKey, services: Wired) -> dict[str, Any]:
    """Make a client key. The secret is in this answer and nowhere else."""
    made = await create_key(services.registry, body)
    return {**key_view(made.key), "key": made.secret, "warnings": list(made.warnings)}


@router.get("/keys/{key_id}", response_model=KeyOut)
async def show_key(key_id: str, services: Wired) -> dict[str, Any]:
    """One key, by id or name."""
    return key_view(services.registry.key(key_id))


@router.patch("/keys/{key_id}", response_model=KeyOut)
async def alter_key(key_id: str, body: KeyChange, services: Wired) -> dict[str, Any]:
    """Change the name, the models or the limits of a key."""
    return key_view(await change_key(services.registry, key_id, body.model_dump(exclude_unset=True)))


@router.delete("/keys/{key_id}", response_model=KeyOut)
async def revoke_key(key_id: str, services: Wired) -> dict[str, Any]:
    """Revoke a key for good; every gateway refuses it within a second."""
    return key_view(await services.registry.revoke_key(key_id))


# -- jobs, decisions, usage --------------------------------------------------------------------------------------


@router.get("/jobs", response_model=JobList)
async def list_jobs(services: Wired, limit: Limit = 50, subject: Text = None) -> dict[str, Any]:
    """The newest jobs, of one candidate where given."""
    jobs = await services.registry.newest_jobs(limit, subject=subject)
    return {"jobs": [job_view(job) for job in jobs]}


@router.get("/jobs/{job_id}", response_model=JobOut)
async def show_job(job_id: str, services: Wired) -> dict[str, Any]:
    """One job with its progress."""
    return job_view(await services.registry.job(job_id))


@router.get("/decisions", response_model=DecisionList)
async def list_decisions(
    services: Wired,
    limit: Limit = 50,
    since: Moment = None,
    before: Moment = None,
    model: Text = None,
    key_id: Text = None,
    rule: Text = None,
    outcome: Text = None,
) -> dict[str, Any]:
    """Decisions of every gateway on this registry, newest first. Times in seconds since 1970."""
    wanted = {"model": model, "key_id": key_id, "rule": rule, "outcome": outcome}
    filters = {name: value for name, value in wanted.items() if value is not None}
    return {"decisions": await services.ledger.recent_decisions(limit, since, before=before, filters=filters)}


@router.get("/decisions/{decision_id}")
async def show_decision(decision_id: str, services: Wired) -> dict[str, Any]:
    """One decision: every candidate as the router saw it, the request, and the feedback."""
    return await services.ledger.decision(decision_id)


@router.get("/usage", response_model=UsageOut)
async def show_usage(
    services: Wired,
    period: BudgetPeriod = "total",
    since: Annotated[str | None, Query(pattern=DAY_PATTERN, description="First UTC day, e.g. 2026-11-01.")] = None,
    key_id: Text = None,
    model: Text = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
) -> dict[str, Any]:
    """Requests, tokens and money by key, model and period."""
    rows = await services.ledger.usage(period, since_day=since or "", key_id=key_id, model=model, limit=limit)
    return {"period": period, "usage": rows}


def _shown(services: Services, candidate: Candidate, warnings: tuple[str, ...] = ()) -> dict[str, Any]:
    health = services.health.snapshot()
    return model_view(candidate, services.registry.snapshot, health=health, warnings=warnings)
