"""Runs the real application under uvicorn on a free loopback port, for contract and integration tests."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from gateway.app import build_app
from gateway.connection import Connection
from gateway.services import Services
from gateway.settings import Settings


@dataclass
class LiveGateway:
    """`url` without `/v1`; `base_url` with it."""

    app: FastAPI
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"

    @property
    def services(self) -> Services:
        services: Services = self.app.state.services
        return services


def gateway_settings(state_dir: Path, candidates: list[dict[str, Any]], **sections: Any) -> Settings:
    """Settings as a config file would give them; nothing is discovered and no pause precedes a retry."""
    data = {
        "state_dir": state_dir,
        "candidates": candidates,
        "discover": False,
        "retry": {"backoff_s": 0.0},
        **sections,
    }
    return Settings.model_validate(data)


@contextlib.asynccontextmanager
async def live_gateway(settings: Settings, **build: Any) -> AsyncIterator[LiveGateway]:
    """The gateway, accepting requests. Further arguments go to `build_app`."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    app = build_app(settings, **build)
    options: dict[str, Any] = {"http": Connection, "ws": "none", "log_level": "warning", "server_header": False}
    options["lifespan"] = "on"
    server = uvicorn.Server(uvicorn.Config(app, **options, timeout_graceful_shutdown=1))
    serving = asyncio.create_task(server._serve(sockets=[listener]))  # `serve` would take over the signal handlers
    while not server.started:
        if serving.done():
            serving.result()
        await asyncio.sleep(0.005)
    try:
        yield LiveGateway(app, listener.getsockname()[1])
    finally:
        server.should_exit = True
        await serving
        listener.close()
