"""Runs the engine under uvicorn until SIGTERM; answers under way then get time to finish."""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Callable
from types import FrameType

from merge_backends.engine.settings import EngineSettings
from merge_backends.errors import RecipeError

BACKLOG = 512
KEEP_ALIVE_S = 75


def serve(settings: EngineSettings, announce: Callable[[str], None], *, listener: socket.socket | None = None) -> None:
    """Serve until SIGINT or SIGTERM; either ends in SystemExit(0).

    Args:
        announce: called with the address once requests are answered.
        listener: a socket that listens already; `host` and `port` are then not used.
    Raises:
        RecipeError: the address cannot be used.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    own = listener if listener is not None else bind(settings.host, settings.port)
    host, port = own.getsockname()[:2]
    address = f"http://{'127.0.0.1' if host in ('0.0.0.0', '::') else host}:{port}"  # noqa: S104 - only names it

    import torch

    torch.set_num_threads(settings.threads)
    import uvicorn

    from merge_backends.engine.app import build_app

    # uvicorn raises the signal again once it has ended well; without handlers that would look like a crash.
    for asked in (signal.SIGINT, signal.SIGTERM):
        signal.signal(asked, _leave)

    class Announcing(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                announce(address)

    Announcing(
        uvicorn.Config(
            build_app(settings),
            ws="none",
            lifespan="on",
            access_log=False,
            log_level="warning",
            server_header=False,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=settings.drain_s,
        )
    ).run(sockets=[own])


def bind(host: str, port: int) -> socket.socket:
    """A TCP socket on the address. Raises RecipeError where it is taken or not ours."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise RecipeError(
            f"Cannot listen on {host}:{port}: {error.strerror or error}.", "Choose another port; 0 picks a free one."
        ) from None
    return listener


def inherited(descriptor: int) -> socket.socket:
    """A listening socket that the parent process handed down by number."""
    return socket.socket(fileno=os.dup(descriptor))


def _leave(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)
