"""`POST /v1/responses`."""

from __future__ import annotations

from starlette.routing import BaseRoute

from gateway.api.relay import relay_route
from gateway.registry.records import Endpoint


def routes() -> list[BaseRoute]:
    return [relay_route(Endpoint.RESPONSES)]
