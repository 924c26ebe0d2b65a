"""The engine as a process: a clean end, limits of time, sockets handed down, wrong starts."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.support.engine_models import save_model
from tests.support.engine_process import engine_process

ASK = [{"role": "user", "content": "Say something."}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("models") / "m", "gpt2", context=1024)


@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
async def test_a_signal_lets_a_running_stream_finish_and_ends_with_0(folder: Path, asked: signal.Signals) -> None:
    with engine_process({"models": {"m": str(folder)}, "drain_s": 20}) as engine:
        async with httpx.AsyncClient(base_url=engine.url, timeout=30) as client:
            body = {"model": "m", "messages": ASK, "temperature": 0, "stream": True, "max_tokens": 150}
            async with client.stream("POST", "/v1/chat/completions", json=body) as reply:
                pieces = reply.aiter_text()
                text = await anext(pieces)
                engine.process.send_signal(asked)
                text += "".join([piece async for piece in pieces])
        assert text.endswith("data: [DONE]\n\n")
        assert '"finish_reason":"length"' in text
        assert await asyncio.to_thread(engine.process.wait, 20) == 0


async def test_an_answer_that_takes_too_long_ends_with_an_error_and_frees_its_place(folder: Path) -> None:
    settings = {"models": {"m": str(folder)}, "answer_s": 0.2, "preload": True}
    with engine_process(settings) as engine:
        async with httpx.AsyncClient(base_url=engine.url, timeout=30) as client:
            unary = await client.post("/v1/chat/completions", json={"model": "m", "messages": ASK, "temperature": 0})
            assert (unary.status_code, unary.json()["error"]["code"]) == (504, "timeout")
            streamed = await client.post(
                "/v1/chat/completions", json={"model": "m", "messages": ASK, "temperature": 0, "stream": True}
            )
        assert "[DONE]" not in streamed.text
        assert json.loads(streamed.text.strip().splitlines()[-1][6:])["error"]["code"] == "timeout"
        await asyncio.to_thread(engine.wait_until_idle, 2.0)


async def test_who_waits_too_long_for_a_place_is_told_to_come_back(folder: Path) -> None:
    settings = {"models": {"m": str(folder)}, "batch": 1, "queue_s": 0.2, "preload": True}
    with engine_process(settings) as engine:
        async with httpx.AsyncClient(base_url=engine.url, timeout=60) as client:
            body = {"model": "m", "messages": ASK, "temperature": 0, "max_tokens": 800}
            replies = await asyncio.gather(*(client.post("/v1/chat/completions", json=body) for _ in range(2)))
    refused = [reply for reply in replies if reply.status_code != 200]
    assert [reply.status_code for reply in refused] == [503]
    assert refused[0].json()["error"]["code"] == "overloaded"
    assert "retry-after" in refused[0].headers


async def test_an_answer_larger_than_the_memory_for_keys_and_values_is_refused(folder: Path) -> None:
    with engine_process({"models": {"m": str(folder)}, "kv_gb": 1e-4}) as engine:
        async with httpx.AsyncClient(base_url=engine.url, timeout=30) as client:
            reply = await client.post("/v1/chat/completions", json={"model": "m", "messages": ASK, "temperature": 0})
            small = await client.post(
                "/v1/chat/completions", json={"model": "m", "messages": ASK, "temperature": 0, "max_tokens": 20}
            )
    assert (reply.status_code, reply.json()["error"]["code"]) == (413, "memory_budget_exceeded")
    assert small.status_code == 200


def test_a_socket_that_is_handed_down_is_served(folder: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        descriptor = listener.fileno()
        command = [sys.executable, "-m", "merge_backends.engine", "--model", f"m={folder}", "--fd", str(descriptor)]
        process = subprocess.Popen(command, pass_fds=(descriptor,), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        try:
            address = f"http://127.0.0.1:{listener.getsockname()[1]}"
            assert httpx.get(f"{address}/healthz", timeout=60).json()["status"] == "ok"
        finally:
            process.terminate()
            assert process.wait(30) == 0
            assert process.stdout is not None
            process.stdout.close()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "nameless"], "NAME=PATH"),
        (["--model", "m=/nowhere/at/all"], "no model at"),
        (["--host", "203.0.113.1"], "Cannot listen"),
        (["--config", "/nowhere/engine.yaml"], "cannot be read"),
    ],
)
def test_a_wrong_start_says_what_is_wrong_without_a_traceback(arguments: list[str], said: str) -> None:
    command = [sys.executable, "-m", "merge_backends.engine", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
