"""A provider that costs almost nothing: canned bytes over a raw asyncio protocol. Run as a process; prints its port.

A request whose body asks for a stream gets all events at once; for the model `mock-paced` they come one by one.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvloop

from tests.bench.canned import ANSWER, PAUSE_S, STREAM

UNARY = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: req_bench\r\ncontent-length: "
    + str(len(ANSWER)).encode()
    + b"\r\n\r\n"
    + ANSWER
)
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


def as_chunk(data: bytes) -> bytes:
    """One piece in HTTP's chunked coding."""
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


BURST = STREAM_HEAD + as_chunk(b"".join(STREAM)) + END
PACED = tuple(as_chunk(event) for event in STREAM)


class Connection(asyncio.Protocol):
    """Answers each request on one connection, one after the other."""

    def __init__(self) -> None:
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are none by inheritance

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while True:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self._buffer[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self._buffer) < end + 4 + length:
                return
            body = self._buffer[end + 4 : end + 4 + length]
            self._buffer = self._buffer[end + 4 + length :]
            self._answer(body)

    def _answer(self, body: bytes) -> None:
        assert self._transport is not None
        if b'"stream"' not in body:
            self._transport.write(UNARY)
        elif b"mock-paced" in body:
            self._transport.write(STREAM_HEAD + PACED[0])
            asyncio.get_running_loop().call_later(PAUSE_S, self._next, 1)
        else:
            self._transport.write(BURST)

    def _next(self, index: int) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        last = index == len(PACED) - 1
        self._transport.write(PACED[index] + END if last else PACED[index])
        if not last:
            asyncio.get_running_loop().call_later(PAUSE_S, self._next, index + 1)


async def serve() -> None:
    """Listen on a free port, print it, and serve until killed."""
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", 0, backlog=1024)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve())
