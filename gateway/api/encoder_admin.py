"""`/admin/encoder`: which artefact decides, which is on trial; stage, promote, roll back, each in one call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from gateway.api.admin_guard import guard
from gateway.encoder.loaded import version_store
from gateway.encoder.scorer import EncoderScorer
from gateway.errors import Conflict
from gateway.services import Services

router = APIRouter(prefix="/admin/encoder", tags=["encoder"], dependencies=[Depends(guard)])


class NewVersion(BaseModel):
    """An artefact to put on trial: a folder that `orbweaver encoder train --out` wrote, on the gateway's machine."""

    model_config = ConfigDict(extra="forbid")
    folder: Annotated[str, Field(min_length=1, max_length=4096)]


@router.get("")
async def show_encoder(request: Request) -> dict[str, Any]:
    """The encoder's state, its versions, and drift of traffic and calibration."""
    services, encoder = _wired(request)
    store = version_store(services.settings.state_dir, services.settings.routing.artifact)
    drift = services.learner.drift() if services.learner is not None else None
    return {
        **asdict(encoder.state),
        "versions": asdict(await asyncio.to_thread(store.state)),
        "drift": asdict(drift) if drift is not None else None,
    }


@router.post("/stage")
async def stage(body: NewVersion, request: Request) -> dict[str, Any]:
    """Put an artefact on trial: scored beside the live one, deciding nothing."""
    from capability_encoder.scorer import KIND

    return await _change(request, lambda store: store.stage(Path(body.folder), kind=KIND))


@router.post("/promote")
async def promote(request: Request) -> dict[str, Any]:
    """Let the artefact on trial decide from now on."""
    return await _change(request, lambda store: store.promote())


@router.post("/rollback")
async def rollback(request: Request) -> dict[str, Any]:
    """Let the artefact that decided before decide again."""
    return await _change(request, lambda store: store.rollback())


def _wired(request: Request) -> tuple[Services, EncoderScorer]:
    services: Services = request.app.state.services
    if services.encoder is None:
        raise Conflict(
            "This gateway routes by the declared prior alone.",
            hint="Set routing.scorer to `auto` to use the capability encoder.",
            code="encoder_off",
        )
    return services, services.encoder


async def _change(request: Request, step: Callable[[Any], str]) -> dict[str, Any]:
    from capability_encoder.artifact import ArtifactError

    services, encoder = _wired(request)
    store = version_store(services.settings.state_dir, services.settings.routing.artifact)
    try:
        version = await asyncio.to_thread(step, store)
        encoder.warm_up()
        await encoder.reload()
    except ArtifactError as error:
        raise Conflict(f"{error}", code="invalid_artifact") from None
    return {"version": version, **asdict(encoder.state)}
