"""`GET /v1/models` and `/v1/models/{id}`: what the caller's key may use, with limits; `auto` and its presets first."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from gateway.api.incoming import unknown_model
from gateway.api.json import json_response
from gateway.middleware.inbound import inbound_of
from gateway.registry.records import Candidate, ClientKey
from gateway.registry.snapshot import Snapshot
from gateway.routing.wishes import PRESETS

# The API wants a creation time for each model; the gateway knows none, and a fixed one keeps answers cacheable.
CREATED = 1_700_000_000


async def list_models(request: Request) -> Response:
    """All models that this key may use."""
    snapshot: Snapshot = request.app.state.services.registry.snapshot
    visible = visible_candidates(snapshot, inbound_of(request.scope).key)
    entries = [describe_preset(name, visible) for name in PRESETS] if visible else []
    entries += [describe(each) for each in visible]
    return json_response({"object": "list", "data": entries})


async def show_model(request: Request) -> Response:
    """One model. Raises NotFound."""
    snapshot: Snapshot = request.app.state.services.registry.snapshot
    key = inbound_of(request.scope).key
    name = request.path_params["name"].rstrip("/")
    visible = visible_candidates(snapshot, key)
    if name in PRESETS and visible:
        return json_response(describe_preset(name, visible))
    for each in visible:
        if each.name == name:
            return json_response(describe(each))
    raise unknown_model(name, snapshot, key)


def visible_candidates(snapshot: Snapshot, key: ClientKey | None) -> list[Candidate]:
    """The enabled candidates that a key may use."""
    return [each for name, each in snapshot.enabled.items() if key is None or not key.models or name in key.models]


def describe(candidate: Candidate) -> dict[str, Any]:
    """One candidate in the shape of the API, with its limits beside it."""
    return {
        "id": candidate.name,
        "object": "model",
        "created": CREATED,
        "owned_by": candidate.deployments[0].provider if candidate.deployments else "orbweaver",
        "context_window": candidate.context_window,
        "max_output_tokens": candidate.max_output_tokens,
        "can": sorted(candidate.can),
        "endpoints": sorted(candidate.endpoints),
        "price_in": candidate.price_in,
        "price_out": candidate.price_out,
    }


def describe_preset(name: str, candidates: Iterable[Candidate]) -> dict[str, Any]:
    """`auto` or a preset: it can do what any of its candidates can, up to the largest limits."""
    among = list(candidates)
    return {
        "id": name,
        "object": "model",
        "created": CREATED,
        "owned_by": "orbweaver",
        "context_window": max((each.context_window or 0 for each in among), default=0) or None,
        "max_output_tokens": max((each.max_output_tokens or 0 for each in among), default=0) or None,
        "can": sorted({ability for each in among for ability in each.can}),
        "endpoints": sorted({endpoint for each in among for endpoint in each.endpoints}),
    }


def routes() -> list[BaseRoute]:
    return [
        Route("/models", list_models, methods=["GET"], name="models"),
        Route("/models/{name:path}", show_model, methods=["GET"], name="model"),
    ]
