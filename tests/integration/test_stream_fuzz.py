"""Random event streams in random pieces: what the client gets is what the upstream sent, byte for byte."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import pytest

from gateway.upstreams.sse import EventSplitter, event_data, split_events
from tests.support.live_gateway import LiveGateway, gateway_settings, live_gateway
from tests.support.scripted_upstream import EVENTS, Reply, ScriptedUpstream

STREAMS = int(os.environ.get("FUZZ_STREAMS", "150"))
WORDS = (
    "Hello",
    " wörld",
    " 你好",
    " 🦀🕸️",
    "\n\n",
    '"quoted"',
    "\\",
    " data: [DONE]",
    "\r\n",
    "\u2028",
    "x" * 3000,
    "",
)


def stream_of(random: Random) -> bytes:
    """A valid chat stream with everything that the SSE grammar allows around it."""
    end = random.choice((b"\n", b"\n", b"\r\n", b"\r"))
    lines: list[bytes] = []

    def event(data: str) -> None:
        if random.random() < 0.1:
            lines.append(b": keep-alive " + str(random.random()).encode())
        if random.random() < 0.1:
            lines.append(random.choice((b"event: message", b"id: 7", b"retry: 3000", b"unknown: field")))
        lines.append(random.choice((b"data: ", b"data:")) + data.encode())
        lines.append(b"")
        if random.random() < 0.05 and data != "[DONE]":  # what follows the end is not relayed
            lines.append(b"")

    def chunk(delta: dict[str, Any], finish: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        body = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "scripted-1", "choices": [choice]}
        return json.dumps(body, ensure_ascii=random.random() < 0.5, indent=None)

    event(chunk({"role": "assistant", "content": ""}))
    for _ in range(random.randrange(1, 30)):
        event(chunk({"content": random.choice(WORDS) + str(random.randrange(100))}))
    event(chunk({}, "stop"))
    event("[DONE]")
    return end.join(lines) + end


def pieces_of(data: bytes, random: Random) -> list[bytes]:
    """Cut anywhere: inside a character, between CR and LF, one byte at a time."""
    cuts = sorted(random.randrange(1, len(data)) for _ in range(random.choice((0, 1, 5, 40))))
    return [data[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(data)], strict=True) if stop > start]


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as upstream:
        yield upstream


@pytest.fixture
async def gateway(tmp_path: Path, upstream: ScriptedUpstream) -> AsyncIterator[LiveGateway]:
    model = {"name": "small", "base_url": upstream.base_url, "upstream_model": "scripted-1"}
    async with live_gateway(gateway_settings(tmp_path, [model])) as gateway:
        yield gateway


@pytest.mark.timeout(600)
async def test_relayed_streams_are_the_upstreams_bytes(gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
    body = {"model": "small", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    async with aiohttp.ClientSession() as session:
        for seed in range(STREAMS):
            random = Random(seed)
            sent = stream_of(random)
            upstream.script(Reply(headers={"content-type": EVENTS}, pieces=pieces_of(sent, random)))
            model = random.choice(("small", "auto"))
            async with session.post(f"{gateway.base_url}/chat/completions", json={**body, "model": model}) as answer:
                received = await answer.read()
            assert answer.status == 200, seed
            assert received == sent, f"seed {seed}"


def test_the_splitter_finds_the_same_events_however_the_bytes_are_cut() -> None:
    for seed in range(STREAMS * 4):
        random = Random(seed)
        data = stream_of(random)
        splitter = EventSplitter()
        blocks = [splitter.feed(piece) for piece in pieces_of(data, random)]
        assert b"".join([*blocks, splitter.flush()]) == data, f"seed {seed}"
        cut = [event_data(event) for block in blocks for event in split_events(block)]
        whole = [event_data(event) for event in split_events(data)]
        assert [found for found in cut if found] == [found for found in whole if found], f"seed {seed}"
        assert cut[-1] == b"[DONE]", f"seed {seed}"
