"""The engine: tokens per second of 16 streams against one, first tokens under load, places freed by clients that leave.

A random model of the zoo's shape answers (2 million parameters), so that every answer has the length it is asked for.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp

from tests.bench.processes import clean_environment
from tests.bench.report import Figure, Options
from tests.support.engine_models import save_model

STREAMS = 16
TOKENS = 192
WARM = 2
PROMPT = "Sort these numbers from small to large: 41 7 93 12 58."


def run(options: Options) -> list[Figure]:
    """All figures of the engine."""
    with tempfile.TemporaryDirectory(prefix="orbweaver-engine-") as folder:
        place = Path(folder)
        save_model(place / "model", hidden=192, layers=4, inner=512, context=512)
        command = [sys.executable, "-m", "merge_backends.engine", "--model", f"m={place / 'model'}", "--port", "0"]
        process = subprocess.Popen(
            command,
            env=clean_environment(place) | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            assert process.stdout is not None
            address = json.loads(process.stdout.readline())["address"]
            return asyncio.run(_measure(address, options))
        finally:
            process.terminate()
            process.wait(30)


async def _measure(address: str, options: Options) -> list[Figure]:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(address, connector=connector) as session:
        for _ in range(WARM):
            await asyncio.gather(*(_stream(session) for _ in range(STREAMS)))
        rounds = options.scaled(3, 9)
        ratios, one, many = [], [], []
        for _ in range(rounds):
            # In turns, so that a change of the machine's load meets both.
            one.append(await _rate(session, 1))
            many.append(await _rate(session, STREAMS))
            ratios.append(many[-1] / one[-1])
        first = await _first_tokens(session, options.scaled(64, 256))
        freed = [await _time_to_free(session) for _ in range(options.scaled(5, 20))]
    return [
        Figure("engine: tokens/s, 1 stream", statistics.median(one), "tokens/s"),
        Figure(f"engine: tokens/s, {STREAMS} streams", statistics.median(many), "tokens/s"),
        Figure(
            f"engine: {STREAMS} streams over 1", statistics.median(ratios), "x", bar=4.0, more_is_better=True,
            note=f"median of {rounds} pairs, {min(ratios):.1f} to {max(ratios):.1f}",
        ),
        Figure(
            "engine: first token under load, p95", first, "s", bar=1.0,
            note=f"one request every 50 ms beside {STREAMS} streams",
        ),
        Figure("engine: place free after a client left, worst", max(freed), "s", bar=1.0),
    ]  # fmt: skip


def _body(tokens: int) -> dict[str, Any]:
    message = {"role": "user", "content": PROMPT}
    return {"model": "m", "messages": [message], "max_tokens": tokens, "temperature": 0, "stream": True}


async def _stream(session: aiohttp.ClientSession, tokens: int = TOKENS) -> float:
    """Seconds to the first content; the stream is read to its end and must have the length that was asked for."""
    began = time.monotonic()
    first = None
    whole = b""
    body = _body(tokens) | {"stream_options": {"include_usage": True}}
    async with session.post("/v1/chat/completions", json=body) as reply:
        assert reply.status == 200, await reply.text()
        async for piece in reply.content.iter_any():
            if first is None:
                first = time.monotonic() - began
            whole = whole[-600:] + piece
    assert f'"completion_tokens":{tokens}'.encode() in whole, "an answer ended early"
    assert first is not None
    return first


async def _rate(session: aiohttp.ClientSession, streams: int) -> float:
    """Tokens per second of all streams together, the filling of prompts included."""
    began = time.monotonic()
    await asyncio.gather(*(_stream(session) for _ in range(streams)))
    return streams * TOKENS / (time.monotonic() - began)


async def _first_tokens(session: aiohttp.ClientSession, requests: int) -> float:
    """95th percentile of the time to the first token while `STREAMS` others are answered all the time."""
    load = [asyncio.create_task(_keep_asking(session)) for _ in range(STREAMS)]
    asked = []
    for _ in range(requests):
        asked.append(asyncio.create_task(_stream(session, 16)))
        await asyncio.sleep(0.05)
    seconds = sorted(await asyncio.gather(*asked))
    for task in load:
        task.cancel()
    await asyncio.gather(*load, return_exceptions=True)
    return seconds[int(0.95 * (len(seconds) - 1))]


async def _keep_asking(session: aiohttp.ClientSession) -> None:
    while True:
        await _stream(session)


async def _time_to_free(session: aiohttp.ClientSession) -> float:
    """Seconds from a client's leaving to an empty batch."""
    while await _running(session):
        await asyncio.sleep(0.01)
    reply = await session.post("/v1/chat/completions", json=_body(400))
    await reply.content.readany()
    assert await _running(session) == 1
    began = time.monotonic()
    reply.close()
    while await _running(session):
        await asyncio.sleep(0.005)
    return time.monotonic() - began


async def _running(session: aiohttp.ClientSession) -> int:
    async with session.get("/healthz") as reply:
        return int((await reply.json())["running"])
