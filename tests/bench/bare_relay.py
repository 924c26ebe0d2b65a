"""The reference: the least that a Python relay can do. Starlette and aiohttp, raw bytes, no parsing, keys or metrics.

Run as a process with the upstream's address as its argument; prints its port.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route


def build(upstream: str) -> Starlette:
    """The relay as an application."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:
            app.state.session = session
            yield

    async def relay(request: Request) -> Response:
        body = await request.body()
        session: aiohttp.ClientSession = request.app.state.session
        answer = await session.post(
            f"{upstream}{request.url.path}", data=body, headers={"content-type": "application/json"}
        )
        kind = answer.headers.get("content-type", "application/json")
        if "event-stream" not in kind:
            return Response(await answer.read(), answer.status, media_type=kind)
        return StreamingResponse(answer.content.iter_any(), answer.status, media_type=kind)

    return Starlette(routes=[Route("/v1/chat/completions", relay, methods=["POST"])], lifespan=lifespan)


def main() -> None:
    """Listen on a free port, print it, and serve until ended."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    config = uvicorn.Config(
        build(sys.argv[1]), loop="uvloop", http="httptools", access_log=False, log_level="warning", lifespan="on"
    )
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
