"""SIGTERM to a real `orbweaver serve`: what is open finishes, nothing new is taken, and the end is clean."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import io
import json
import os
import pty
import select
import shutil
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.support.scripted_upstream import Reply, ScriptedUpstream, chat_answer, chat_chunk, chat_stream, event
from tests.support.serving import CHAT, Serving, admin, candidate, chat, serving

STREAM = {"model": "small", "messages": [{"role": "user", "content": "Hello"}], "stream": True}


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as upstream:
        yield upstream


@pytest.fixture
async def gateway(tmp_path: Path, upstream: ScriptedUpstream) -> AsyncIterator[Serving]:
    async with serving(tmp_path, [candidate("small", upstream.base_url)], server={"drain_s": 10}) as gateway:
        yield gateway


async def test_open_answers_finish_and_new_connections_are_refused(
    gateway: Serving, upstream: ScriptedUpstream
) -> None:
    upstream.script(chat_stream([f"word{n} " for n in range(8)], pause_s=0.2))
    upstream.script(Reply(body=chat_answer(), delay_s=1.0))
    async with aiohttp.ClientSession() as session, session.post(gateway.url + CHAT, json=STREAM) as stream:
        waiting = asyncio.create_task(chat(gateway, session))
        await upstream.wait_for_requests(2, timeout_s=20)
        gateway.terminate()
        await asyncio.sleep(0.4)
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", gateway.port), timeout=2)
        text = await stream.text()
        assert (await waiting)[0] == 200
    assert "word7 " in text
    assert text.endswith("data: [DONE]\n\n")
    assert await gateway.ended() == 0


async def test_idle_connections_and_half_sent_heads_do_not_hold_up_the_end(gateway: Serving) -> None:
    loop = asyncio.get_running_loop()
    async with aiohttp.ClientSession() as session:
        assert (await chat(gateway, session))[0] == 200
        half = await asyncio.open_connection("127.0.0.1", gateway.port)
        half[1].write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x")
        await half[1].drain()
        await asyncio.sleep(0.1)
        before = loop.time()
        gateway.terminate()
        assert await gateway.ended() == 0
        assert loop.time() - before < 5
        half[1].close()


async def test_a_stream_longer_than_the_drain_time_ends_with_an_error_event(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    upstream.script(Reply(pieces=[event(chat_chunk({"content": "a"})), 30.0]))
    quick = {"drain_s": 0.5}
    async with (
        serving(tmp_path, [candidate("small", upstream.base_url)], server=quick) as gateway,
        aiohttp.ClientSession() as session,
        session.post(gateway.url + CHAT, json=STREAM) as stream,
    ):
        gateway.terminate()
        text = await stream.text()
        last = json.loads(text.strip().rpartition("data: ")[2])
        assert last["error"]["code"] == "shutting_down"
        assert "being stopped" in last["error"]["message"]
        assert "[DONE]" not in text
        assert await gateway.ended(8) == 0


async def test_an_answer_that_has_not_begun_by_the_end_of_the_drain_time_is_a_503(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    upstream.always(Reply(body=chat_answer(), delay_s=30.0))
    quick = {"drain_s": 0.5}
    async with (
        serving(tmp_path, [candidate("small", upstream.base_url)], server=quick) as gateway,
        aiohttp.ClientSession() as session,
    ):
        waiting = asyncio.create_task(chat(gateway, session))
        await upstream.wait_for_requests(1, timeout_s=20)
        gateway.terminate()
        status, body = await waiting
        assert (status, body["error"]["code"]) == (503, "shutting_down")
        assert "again" in body["error"]["message"]
        assert await gateway.ended(8) == 0


async def test_decisions_that_wait_are_written_before_the_end(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    small = [candidate("small", upstream.base_url)]
    async with serving(tmp_path, small) as gateway, aiohttp.ClientSession() as session:
        assert (await chat(gateway, session))[0] == 200
        gateway.terminate()
        assert await gateway.ended() == 0
    async with serving(tmp_path, small) as gateway, aiohttp.ClientSession() as session:
        assert len((await admin(gateway, session, "GET", "/decisions"))["decisions"]) == 1


@pytest.mark.slow
async def test_several_workers_finish_their_streams_and_stop(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    upstream.always(chat_stream([f"word{n} " for n in range(6)], pause_s=0.2))
    small = [candidate("small", upstream.base_url)]
    async with serving(tmp_path, small, "--workers", "2") as gateway, aiohttp.ClientSession() as session:

        async def ask() -> str:
            async with session.post(gateway.url + CHAT, json=STREAM) as stream:
                return await stream.text()

        open_streams = [asyncio.create_task(ask()) for _ in range(6)]
        await upstream.wait_for_requests(6, timeout_s=40)  # both workers are still starting
        gateway.terminate()
        assert all(text.endswith("data: [DONE]\n\n") for text in await asyncio.gather(*open_streams))
        assert await gateway.ended() == 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_ctrl_c_under_make_run_says_that_it_stopped_and_make_reports_no_error(tmp_path: Path, workers: str) -> None:
    """As typed in a terminal: the whole foreground group gets the signal, make among it."""
    orbweaver = Path(sys.executable).with_name("orbweaver")
    if shutil.which("make") is None or not orbweaver.exists():
        pytest.skip("make and an installed orbweaver are not both there")
    config = tmp_path / "orbweaver.yaml"
    config.write_text('{"zoo": "off", "discover": false}')
    terminal, inside = pty.openpty()
    with os.fdopen(terminal, "rb", buffering=0) as screen:
        process = subprocess.Popen(
            # The environment is taken as it is (`-o env`): a test must not install anything.
            ["make", "-o", "env", "run", f"VENV={orbweaver.parents[1]}", "PORT=0"],
            cwd=Path(__file__).parents[2],
            env={
                **os.environ,
                "ORBWEAVER_STATE_DIR": str(tmp_path),
                "ORBWEAVER_CONFIG": str(config),
                "ORBWEAVER_WORKERS": workers,
            },
            stdin=inside,
            stdout=inside,
            stderr=inside,
            preexec_fn=_take_terminal,
        )
        os.close(inside)
        shown = _read_until(screen, b"Try it:")
        os.write(screen.fileno(), b"\x03")
        shown += _read_until(screen, b"Orbweaver has stopped.")
        shown += _rest(screen)
    assert process.wait(10) in (0, -signal.SIGINT)
    assert b"Error" not in shown
    assert b"Traceback" not in shown


def _take_terminal() -> None:
    """Make the terminal on standard input the controlling one, so that its Ctrl-C becomes a signal."""
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _read_until(screen: io.FileIO, wanted: bytes, within_s: float = 40.0) -> bytes:
    shown, deadline = b"", time.monotonic() + within_s
    while wanted not in shown:
        assert time.monotonic() < deadline, shown
        if select.select([screen], [], [], 0.2)[0]:
            shown += screen.read(65536)
    return shown


def _rest(screen: io.FileIO) -> bytes:
    """What is left on a terminal whose last program ends; Linux then reports an I/O error."""
    shown = b""
    with contextlib.suppress(OSError):
        while piece := screen.read(65536):
            shown += piece
    return shown
