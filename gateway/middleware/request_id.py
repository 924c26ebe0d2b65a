"""Outermost middleware: gives each request its id, sends it back, and is the border where the unexpected is caught."""

from __future__ import annotations

import logging
import os
import time

from gateway.api.errors import unexpected
from gateway.middleware.inbound import (
    App,
    Inbound,
    Message,
    Receive,
    Scope,
    Send,
    forget_inbound,
    is_data_plane,
    set_inbound,
)

logger = logging.getLogger(__name__)

LONGEST_ID = 128


class RequestId:
    """Sets `Inbound` and adds `x-request-id` to every answer that has none of its own.

    A caller may give the id; an upstream's own one goes back to the caller instead of ours.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        request_id = _usable(headers.get(b"x-request-id")) or "req_" + os.urandom(12).hex()
        set_inbound(scope, Inbound(request_id, headers, time.perf_counter(), is_data_plane(scope["path"]), send))
        has_started = False

        async def send_with_id(message: Message) -> None:
            nonlocal has_started
            if not has_started:
                has_started = True
                sent = list(message["headers"])
                if all(name != b"x-request-id" for name, _ in sent):
                    sent.append((b"x-request-id", request_id.encode("ascii")))
                message["headers"] = sent
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception:
            logger.exception("request %s failed unexpectedly", request_id)
            if has_started:
                raise
            await unexpected(request_id)(scope, receive, send_with_id)
        finally:
            forget_inbound(scope)


def _usable(given: bytes | None) -> str | None:
    """The caller's id, if it is short and printable."""
    if given is None or not 0 < len(given) <= LONGEST_ID:
        return None
    text = given.decode("latin-1")
    return text if text.isascii() and text.isprintable() else None
