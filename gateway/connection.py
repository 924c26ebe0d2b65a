"""`Connection`: uvicorn's HTTP/1.1 connection, made hard to hold up and cheaper to answer on.

uvicorn waits for a request's head for ever and takes one of any size; here both are bounded. And it writes head and
body of an answer apart: two system calls and two packets for each request; here the head waits for its body.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

HEAD_TIMEOUT_S = 20.0
MAX_HEAD_BYTES = 128 * 2**10


class Connection(HttpToolsProtocol):
    """Closes where no whole head comes within `HEAD_TIMEOUT_S` of its first byte (or of the connection)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_is_open = True
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_watching()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        was_open = self._head_is_open
        super().data_received(data)
        if self._head_is_open:
            # Only bytes that came while the head was open count; a body that ends in the same piece does not.
            self._head_bytes = self._head_bytes + len(data) if was_open else 0
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(431, "The request's headers are too large.", "headers_too_large")
            elif self._head_timer is None:
                self._watch_head()
        elif self._head_timer is not None:
            self._stop_watching()

    def on_message_begin(self) -> None:
        self._head_is_open = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._head_is_open = False
        self._head_bytes = 0
        super().on_headers_complete()
        cycle = self.cycle
        if cycle is not None and cycle.transport is self.transport:
            cycle.transport = cast(asyncio.Transport, HeadWithBody(cycle, self.loop))

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, msg, "invalid_request")

    def _watch_head(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._head_is_late)

    def _stop_watching(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self.transport.is_closing() or not self._head_is_open:
            return
        if self._head_bytes:
            self._refuse(408, f"The request's headers did not come within {HEAD_TIMEOUT_S:g} s.", "request_timeout")
        else:
            self.transport.close()

    def _refuse(self, status: int, message: str, code: str) -> None:
        """Answer what never became a request, unless an earlier answer is still on its way, and close."""
        if self.cycle is None or self.cycle.response_complete:
            error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
            body = orjson.dumps({"error": error})
            head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
            self.transport.write(STATUS_LINE[status] + head + body)
        self.transport.close()


class HeadWithBody:
    """Stands for the transport of one answer until its first body bytes: keeps the head back and sends both at once.

    A body that is not written within the same step of the event loop is not waited for.
    """

    __slots__ = ("_cycle", "_head", "_loop", "_transport")

    def __init__(self, cycle: RequestResponseCycle, loop: asyncio.AbstractEventLoop) -> None:
        self._cycle = cycle
        self._loop = loop
        self._transport = cycle.transport
        self._head = b""

    def write(self, data: bytes) -> None:
        if self._head:
            head, self._head = self._head, b""
            self._cycle.transport = self._transport
            self._transport.write(head + data)
        elif data.startswith(b"HTTP/1.1 100 "):
            self._transport.write(data)
        else:
            self._head = data
            self._loop.call_soon(self._flush)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def _flush(self) -> None:
        if self._head:
            self.write(b"")
