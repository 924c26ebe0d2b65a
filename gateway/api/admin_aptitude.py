"""`/admin`: measure a candidate, measure it again, cancel or resume the job."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request

from gateway.api.admin_guard import guard
from gateway.api.admin_models import AptitudeWish, JobOut
from gateway.api.explaining_route import ExplainingRoute
from gateway.aptitude.jobs import cancel, queue, read_wish, resume
from gateway.registry.views import job_view
from gateway.services import Services

router = APIRouter(prefix="/admin", tags=["aptitude"], dependencies=[Depends(guard)], route_class=ExplainingRoute)


def services_of(request: Request) -> Services:
    """Everything a handler may use."""
    services: Services = request.app.state.services
    return services


Wired = Annotated[Services, Depends(services_of)]


@router.post("/models/{name:path}/aptitude", response_model=JobOut, status_code=202)
async def measure_model(name: str, services: Wired, body: AptitudeWish | None = None) -> dict[str, Any]:
    """Measure a candidate; answers of earlier runs are used again unless `fresh`."""
    return await _queue(services, name, body, reprofile=False)


@router.post("/models/{name:path}/reprofile", response_model=JobOut, status_code=202)
async def reprofile_model(name: str, services: Wired, body: AptitudeWish | None = None) -> dict[str, Any]:
    """Measure a candidate again with fresh answers, and compare with the stored profile."""
    return await _queue(services, name, body, reprofile=True)


@router.delete("/jobs/{job_id}", response_model=JobOut)
async def cancel_job(job_id: str, services: Wired) -> dict[str, Any]:
    """Cancel a job; one that runs stops within two seconds, and its answers are kept."""
    return job_view(await cancel(services.registry, job_id))


@router.post("/jobs/{job_id}/resume", response_model=JobOut, status_code=202)
async def resume_job(job_id: str, services: Wired, body: AptitudeWish | None = None) -> dict[str, Any]:
    """Queue a failed or cancelled job again, with other caps where given; nothing is asked twice."""
    changes = body.model_dump(exclude_unset=True, exclude={"fresh"}) if body is not None else None
    job = await resume(services.registry, job_id, changes)
    services.aptitude.nudge()
    return job_view(job)


async def _queue(services: Services, name: str, body: AptitudeWish | None, *, reprofile: bool) -> dict[str, Any]:
    given = body.model_dump(exclude_unset=True) if body is not None else {}
    job = await queue(services.registry, name, read_wish({**given, "reprofile": reprofile}))
    services.aptitude.nudge()
    return job_view(job)
