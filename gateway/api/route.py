"""`POST /v1/route`: the `RoutingDecision` for a request, without forwarding anything."""

from __future__ import annotations

import time

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from gateway.api.json import json_response
from gateway.api.relay import decide, read_request
from gateway.registry.records import Endpoint


async def explain(request: Request) -> Response:
    """Answer which model would be chosen, with every candidate's verdict."""
    from dataclasses import replace

    services = request.app.state.services
    incoming = await read_request(request, Endpoint.CHAT)
    started = time.perf_counter()
    decision = await decide(services, incoming, scored=True)
    return json_response(replace(decision, decide_ms=(time.perf_counter() - started) * 1e3).to_json())


def routes() -> list[BaseRoute]:
    return [Route("/route", explain, methods=["POST"])]
