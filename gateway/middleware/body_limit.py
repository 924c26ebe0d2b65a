"""Middleware that bounds request bodies: in size, and in how long a client may take between two pieces."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from gateway.api.errors import to_response
from gateway.errors import BodyTooLarge, InvalidBody, RequestError, RequestTimeout
from gateway.middleware.inbound import App, Message, Receive, Scope, Send, inbound_of
from gateway.upstreams.watchdog import Watch, Watchdog

if TYPE_CHECKING:
    from gateway.settings import ServerSettings
    from gateway.telemetry.metrics import Metrics

# A client that is refused while it still sends may only read our answer once it has sent all: swallow that much more.
SWALLOW_BYTES = 64 * 2**20
SWALLOW_S = 5.0
# A body that trickles without ever pausing for long is cut off after this many of the allowed pauses.
MOST_PAUSES = 10


class BodyLimit:
    """Answers 413 for a body above `max_body_bytes` and 408 for one that stalls for `body_timeout_s`."""

    def __init__(self, app: App, *, settings: ServerSettings, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics
        self._most = settings.max_body_bytes
        self._pause_s = settings.body_timeout_s
        self._watchdog = Watchdog()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = inbound_of(scope).headers.get(b"content-length")
        if declared is not None and (not declared.isdigit() or int(declared) > self._most):
            await self._refuse(scope, receive, send, self._too_large() if declared.isdigit() else _BAD_LENGTH)
            return
        with self._watchdog.watch(None) as watch:
            body = _Body(receive, watch, self._most, self._pause_s, self._too_large)

            async def send_unless_broken(message: Message) -> None:
                # A framework may have turned our error into one of its own.
                if body.broken is None:
                    await send(message)

            try:
                await self._app(scope, body.receive, send_unless_broken)
            except RequestError as error:
                if error is not body.broken:
                    raise
        if body.broken is not None:
            await self._refuse(scope, receive, send, body.broken)

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(
            f"The request body is larger than {self._most} bytes.",
            hint="Send less, or raise server.max_body_bytes.",
        )

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, error: RequestError) -> None:
        self._metrics.turned_away(error.status)
        response = to_response(error)
        response.headers["connection"] = "close"
        if isinstance(error, BodyTooLarge) and b"expect" not in inbound_of(scope).headers:
            with suppress(TimeoutError):
                async with asyncio.timeout(SWALLOW_S):
                    await _swallow(receive)
        await response(scope, receive, send)


_BAD_LENGTH = InvalidBody("The Content-Length header is not a number.")


class _Body:
    """A request body that is read under limits; `broken` is set when one was passed."""

    __slots__ = ("_inner", "_left", "_pause_s", "_too_large", "_watch", "_whole", "broken")

    def __init__(
        self, receive: Receive, watch: Watch, most: int, pause_s: float, too_large: Callable[[], RequestError]
    ) -> None:
        self.broken: RequestError | None = None
        self._inner = receive
        self._watch = watch
        self._left = most
        self._pause_s = pause_s
        self._too_large = too_large
        self._whole = False
        watch.limit_total(MOST_PAUSES * pause_s)
        watch.expect_next(pause_s)

    async def receive(self) -> Message:
        """As ASGI's `receive`. Raises BodyTooLarge or RequestTimeout."""
        if self._whole:
            return await self._inner()
        self._watch.waiting = True
        try:
            message = await self._inner()
        except asyncio.CancelledError:
            if self._watch.take() is None:
                raise
            self.broken = RequestTimeout(
                f"No further piece of the request body came within {self._pause_s:g} s.",
                hint="Send the body without pauses, or raise server.body_timeout_s.",
            )
            raise self.broken from None
        self._watch.waiting, self._watch.moved = False, True
        if message["type"] == "http.request":
            self._left -= len(message.get("body", b""))
            if not message.get("more_body", False):
                self._whole = True
                self._watch.__exit__()
            if self._left < 0:
                self.broken = self._too_large()
                raise self.broken
        return message


async def _swallow(receive: Receive) -> None:
    taken = 0
    while taken < SWALLOW_BYTES:
        message = await receive()
        taken += len(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body", False):
            return
