"""The zoo's engine as a child process: it comes back, it ends with us, and nobody is refused meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import pytest

from gateway.zoo.engine import MOST_FAILED_STARTS, EngineProcess, State

SERVER = """
import os, socket, sys, time
from http.server import BaseHTTPRequestHandler, HTTPServer
time.sleep({delay})
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/die":
            os._exit(3)
        body = str(os.getpid()).encode()
        self.send_response(200); self.send_header("content-length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
server = HTTPServer(("127.0.0.1", 0), Handler, bind_and_activate=False)
server.socket = socket.socket(fileno=int(sys.argv[sys.argv.index("--fd") + 1]))
server.serve_forever()
"""


def serving(delay: float = 0.0) -> list[str]:
    return [sys.executable, "-c", SERVER.format(delay=delay)]


@contextlib.asynccontextmanager
async def engine(folder: Path, command: list[str]) -> AsyncIterator[tuple[EngineProcess, str, list[State]]]:
    seen: list[State] = []
    process = EngineProcess(command, folder / "engine.log", dict(os.environ), seen.append)
    address = process.start()
    try:
        yield process, address, seen
    finally:
        await process.close()


async def ask(address: str, path: str = "/pid") -> str:
    async with aiohttp.ClientSession() as session, session.get(address.removesuffix("/v1") + path) as reply:
        return await reply.text()


async def until(claim: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not claim():
            await asyncio.sleep(0.02)


async def test_a_request_sent_while_the_engine_loads_is_answered_once_it_is_up(tmp_path: Path) -> None:
    async with engine(tmp_path, serving(delay=0.5)) as (process, address, seen):
        assert seen in ([], ["loading"])
        assert await ask(address) == str(process.pid)
        await until(lambda: process.state == "ready")


async def test_an_engine_that_is_killed_comes_back_at_the_same_address(tmp_path: Path) -> None:
    async with engine(tmp_path, serving()) as (process, address, _):
        first = int(await ask(address))
        await until(lambda: process.state == "ready")
        os.kill(first, signal.SIGKILL)
        await until(lambda: process.pid not in (None, first))
        assert int(await ask(address)) == process.pid


async def test_closing_ends_the_engine(tmp_path: Path) -> None:
    async with engine(tmp_path, serving()) as (process, address, _):
        pid = int(await ask(address))
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert process.state == "stopped"
    with pytest.raises(aiohttp.ClientError):
        await ask(address)


async def test_an_engine_that_never_starts_is_left_alone_and_its_last_words_are_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.zoo.engine.FIRST_PAUSE_S", 0.01)
    command = [sys.executable, "-c", "raise SystemExit('no weights here')"]
    async with engine(tmp_path, command) as (process, address, seen):
        await until(lambda: process.state == "failed")
        with pytest.raises(aiohttp.ClientError):
            await ask(address)
    assert caplog.text.count("no weights here") == MOST_FAILED_STARTS
    assert seen == ["loading", "failed", "stopped"]
