"""Runs the application under uvicorn: one process or several, with a clean end that lets open streams finish."""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from gateway.collector import spare_the_collector
from gateway.errors import ConfigError
from gateway.greeting import things_to_try
from gateway.settings import Settings, load_settings

if TYPE_CHECKING:
    from fastapi import FastAPI

log = logging.getLogger(__name__)
Announce = Callable[[str, list[str]], None]
KEEP_ALIVE_S = 75
ENOUGH_FILES = 65_536
BACKLOG = 2048


def serve(settings: Settings, *, config_path: Path | None, announce: Announce) -> None:
    """Serve until SIGINT or SIGTERM; either ends in a return or in SystemExit(0).

    Args:
        announce: called once with the address and notes for the operator, when requests are accepted.
    Raises:
        ConfigError: the address cannot be used.
    """
    # Ends the start-up too. uvicorn raises the signal again once it has ended well; that must not look like a crash.
    for asked in (signal.SIGINT, signal.SIGTERM):
        signal.signal(asked, _leave)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    _raise_file_limit()
    _one_thread_per_product()
    listener = bind(settings.server.host, settings.server.port)
    address = f"http://{_for_url(settings.server.host)}:{listener.getsockname()[1]}"
    if settings.server.workers > 1:
        tries = things_to_try(address, has_models=bool(settings.candidates))
        _serve_many(settings, listener, config_path, lambda: announce(address, tries))
    else:
        _serve_one(settings, listener, lambda notes: announce(address, notes), address)


def _raise_file_limit() -> None:
    """Use all files that the system lets us have: the usual soft limit of 1,024 is a few hundred clients."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ENOUGH_FILES if hard == resource.RLIM_INFINITY else min(hard, ENOUGH_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _one_thread_per_product() -> None:
    """Small matrix products on one thread: a second costs more in waiting than it computes. Read when numpy loads."""
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(name, "1")


def bind(host: str, port: int) -> socket.socket:
    """A listening TCP socket. Raises ConfigError where the address is taken or not ours."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"Cannot listen on {host}:{port}: {error.strerror or error}.",
            hint="Stop what listens there, or choose another with --port (0 picks a free one).",
        ) from None
    listener.set_inheritable(True)
    return listener


def _for_url(host: str) -> str:
    if host in ("0.0.0.0", "::"):  # noqa: S104 - only names a place for people, binds nothing
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def _options(settings: Settings) -> dict[str, Any]:
    from gateway.connection import Connection

    return {
        "loop": "uvloop",
        "http": Connection,
        "ws": "none",
        "lifespan": "on",
        "access_log": False,
        "log_level": "warning",
        "server_header": False,
        "backlog": BACKLOG,
        "timeout_keep_alive": KEEP_ALIVE_S,
        "timeout_graceful_shutdown": settings.server.drain_s,
    }


def _serve_one(settings: Settings, listener: socket.socket, ready: Callable[[list[str]], None], address: str) -> None:
    import uvicorn

    from gateway.app import build_app

    app = build_app(settings)

    class Announcing(uvicorn.Server):
        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            if not self.should_exit:
                log.info("Stopping: open answers have %g s to finish.", settings.server.drain_s)
            super().handle_exit(sig, frame)

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                spare_the_collector()
                services = app.state.services
                ready([*services.notes, *_things_to_try(address, services.registry.snapshot.enabled)])

    Announcing(uvicorn.Config(app, **_options(settings))).run(sockets=[listener])


def _things_to_try(address: str, candidates: Iterable[str]) -> list[str]:
    """What to try first; a gateway with nothing but the zoo gets a question that the zoo can answer."""
    from gateway.zoo.bundle import PREFIX, QUESTION

    names = list(candidates)
    if names and all(name.startswith(PREFIX) for name in names):
        return things_to_try(address, has_models=True, question=QUESTION)
    return things_to_try(address, has_models=bool(names))


def _leave(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)


def _serve_many(settings: Settings, listener: socket.socket, config: Path | None, ready: Callable[[], None]) -> None:
    import uvicorn
    from uvicorn.supervisors import Multiprocess

    if config is not None:
        os.environ["ORBWEAVER_CONFIG"] = str(config)
    os.environ |= {
        "ORBWEAVER_HOST": settings.server.host,
        "ORBWEAVER_PORT": str(listener.getsockname()[1]),
        "ORBWEAVER_STATE_DIR": str(settings.state_dir),
        "ORBWEAVER_WORKERS": str(settings.server.workers),
    }
    options = uvicorn.Config(
        "gateway.server:worker_app", factory=True, workers=settings.server.workers, **_options(settings)
    )
    # From now on clients wait for the first worker instead of being refused.
    listener.listen(BACKLOG)
    ready()
    Multiprocess(options, sockets=[listener]).run()


def worker_app() -> FastAPI:
    """The application of one worker process, configured by file and environment."""
    from gateway.app import build_app

    app = build_app(load_settings())
    spare_the_collector()
    return app
