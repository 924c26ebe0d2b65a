"""Clients that hold things up: slow heads, slow bodies, idle connections by the thousand, and requests too large."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import resource
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from gateway.routing.prior import PriorScorer
from tests.support.live_gateway import LiveGateway, gateway_settings, live_gateway
from tests.support.scripted_upstream import ScriptedUpstream
from tests.support.serving import SERVE, candidate, chat, serving

BODY = json.dumps({"model": "small", "messages": [{"role": "user", "content": "Hello"}]}).encode()
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
MAX_BODY = 100_000
PAUSE_S = 0.3


@pytest.fixture
async def gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LiveGateway]:
    monkeypatch.setattr("gateway.connection.HEAD_TIMEOUT_S", PAUSE_S)
    limits = {"max_body_bytes": MAX_BODY, "body_timeout_s": PAUSE_S}
    async with ScriptedUpstream() as upstream:
        settings = gateway_settings(tmp_path, [candidate("small", upstream.base_url)], server=limits)
        async with live_gateway(settings, scorer=PriorScorer()) as gateway:
            yield gateway


@contextlib.asynccontextmanager
async def connection(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def trickle(writer: asyncio.StreamWriter, data: bytes, pause_s: float = 0.05) -> None:
    """Send byte by byte until the other side has had enough."""
    with contextlib.suppress(ConnectionError):
        for position in range(len(data)):
            writer.write(data[position : position + 1])
            await writer.drain()
            await asyncio.sleep(pause_s)


async def answer_of(reader: asyncio.StreamReader) -> tuple[int, dict[str, object]]:
    """Status and JSON of an answer after which the server closes, or 0 where it closed without one."""
    async with asyncio.timeout(10):
        data = b""
        with contextlib.suppress(ConnectionError):
            while piece := await reader.read(2**16):
                data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    return (int(head.split(b" ", 2)[1]), json.loads(body)) if head else (0, {})


async def test_a_head_that_trickles_is_cut_off_with_408(gateway: LiveGateway) -> None:
    async with connection(gateway.port) as (reader, writer):
        sending = asyncio.create_task(trickle(writer, HEAD))
        status, answer = await answer_of(reader)
        await sending
    assert status == 408
    assert answer["error"]["code"] == "request_timeout"  # type: ignore[index]


async def test_a_connection_that_never_says_anything_is_closed(gateway: LiveGateway) -> None:
    async with connection(gateway.port) as (reader, _):
        assert (await answer_of(reader))[0] == 0


async def test_a_second_head_that_trickles_is_cut_off_too(gateway: LiveGateway) -> None:
    async with connection(gateway.port) as (reader, writer):
        writer.write(HEAD + b"content-length: %d\r\n\r\n" % len(BODY) + BODY)
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(length)
        sending = asyncio.create_task(trickle(writer, HEAD))
        assert (await answer_of(reader))[0] == 408
        await sending


async def test_a_body_that_pauses_is_cut_off_with_408(gateway: LiveGateway) -> None:
    async with connection(gateway.port) as (reader, writer):
        writer.write(HEAD + b"content-length: 5000\r\n\r\n" + BODY)
        assert (await answer_of(reader))[0] == 408


async def test_a_body_that_trickles_without_a_pause_is_cut_off_too(gateway: LiveGateway) -> None:
    async with connection(gateway.port) as (reader, writer):
        writer.write(HEAD + b"content-length: 5000\r\n\r\n")
        sending = asyncio.create_task(trickle(writer, b" " * 5000))
        assert (await answer_of(reader))[0] == 408
        sending.cancel()


async def test_a_head_without_end_is_cut_off_before_it_fills_the_memory(gateway: LiveGateway) -> None:
    async with connection(gateway.port) as (reader, writer):
        with contextlib.suppress(ConnectionError):
            writer.write(HEAD)
            for number in range(200):
                writer.write(b"x-padding-%d: %s\r\n" % (number, b"a" * 4000))
                await writer.drain()
        status, _ = await answer_of(reader)
    assert status in (431, 0)  # 0: the answer was lost, for we were still sending when the connection was cut
    async with connection(gateway.port) as (reader, writer):
        writer.write(b"GARBAGE\r\n\r\n")
        status, answer = await answer_of(reader)
    assert status == 400
    assert answer["error"]["type"] == "invalid_request_error"  # type: ignore[index]


async def test_a_gzip_bomb_is_refused_without_being_unpacked(gateway: LiveGateway) -> None:
    bomb = gzip.compress(b'{"model": "small", "messages": "' + b"a" * 50_000_000)
    assert len(bomb) < MAX_BODY
    headers = {"content-encoding": "gzip", "content-type": "application/json"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(gateway.base_url + "/chat/completions", data=bomb, headers=headers) as answer,
    ):
        assert answer.status == 413
        assert "when unpacked" in (await answer.json())["error"]["message"]


@pytest.mark.parametrize("announced", [True, False], ids=["with-content-length", "chunked"])
async def test_a_body_above_the_limit_is_refused_and_the_answer_can_be_read(
    gateway: LiveGateway, announced: bool
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(300):
            yield b" " * 1000

    data = b" " * 300_000 if announced else pieces()
    async with (
        aiohttp.ClientSession() as session,
        session.post(gateway.base_url + "/chat/completions", data=data) as answer,
    ):
        assert answer.status == 413
        assert str(MAX_BODY) in (await answer.json())["error"]["message"]


async def test_two_hundred_slow_clients_do_not_keep_others_from_their_answers(gateway: LiveGateway) -> None:
    async with contextlib.AsyncExitStack() as stack:
        writers = [(await stack.enter_async_context(connection(gateway.port)))[1] for _ in range(200)]
        for writer in writers:
            writer.write(HEAD + b"content-length: 5000\r\n\r\n{")
        async with aiohttp.ClientSession() as session:
            for _ in range(20):
                async with session.post(gateway.base_url + "/chat/completions", data=BODY) as answer:
                    assert answer.status == 200


async def test_a_thousand_idle_connections_stay_open_while_requests_go_on(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    few_files = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (256, {hard}))\n"
    async with (
        ScriptedUpstream() as upstream,
        serving(tmp_path, [candidate("small", upstream.base_url)], script=few_files + SERVE) as gateway,
        contextlib.AsyncExitStack() as stack,
        aiohttp.ClientSession() as session,
    ):
        idle = [await stack.enter_async_context(connection(gateway.port)) for _ in range(1000)]
        for _, writer in idle:
            writer.write(b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
        for reader, _ in idle:
            assert b" 200 " in await reader.readline()
        for _ in range(20):
            assert (await chat(gateway, session))[0] == 200
        for reader, writer in idle[::100]:
            assert not reader.at_eof()
            writer.write(b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
            async with asyncio.timeout(5):
                assert b"HTTP/1.1 200 OK" in await reader.readuntil(b"HTTP/1.1 200 OK")
