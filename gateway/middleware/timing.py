"""Middleware that counts the requests in flight and turns new ones away when there are too many."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.api.errors import to_response
from gateway.errors import Overloaded
from gateway.middleware.inbound import App, Receive, Scope, Send, inbound_of

if TYPE_CHECKING:
    from gateway.telemetry.metrics import Metrics

RETRY_AFTER_S = 1.0


class Timing:
    """Counts data-plane requests only: health checks and metrics must answer under any load."""

    def __init__(self, app: App, *, metrics: Metrics, max_in_flight: int) -> None:
        self._app = app
        self._metrics = metrics
        self._most = max_in_flight
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not inbound_of(scope).data_plane:
            await self._app(scope, receive, send)
            return
        if self._in_flight >= self._most:
            error = Overloaded(
                f"The gateway is at its limit of {self._most} requests in flight.",
                hint="Try again in a moment.",
                retry_after_s=RETRY_AFTER_S,
            )
            self._metrics.turned_away(error.status)
            await to_response(error)(scope, receive, send)
            return
        self._in_flight += 1
        self._metrics.request_started()
        try:
            await self._app(scope, receive, send)
        finally:
            self._in_flight -= 1
            self._metrics.request_finished()
