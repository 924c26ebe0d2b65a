"""Innermost middleware: takes the data plane's POSTs straight to their endpoint, past the framework's own layers.

Those layers (exit stack, exception handling, route matching with regular expressions) cost about a tenth of a relayed
request and do nothing for it. Everything else, wrong methods included, goes the usual way.
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.middleware.inbound import App, Receive, Scope, Send


class HotPath:
    """`endpoints` are ASGI applications by exact path; they answer every error themselves."""

    def __init__(self, app: App, *, endpoints: Mapping[str, App]) -> None:
        self._app = app
        self._endpoints = dict(endpoints)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            endpoint = self._endpoints.get(scope["path"])
            if endpoint is not None:
                await endpoint(scope, receive, send)
                return
        await self._app(scope, receive, send)
