"""Request bodies that are too large, too slow, broken or compressed, and clients that only keep a connection open."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import orjson
import pytest

from gateway.routing.prior import PriorScorer
from tests.support.live_gateway import LiveGateway, gateway_settings, live_gateway
from tests.support.scripted_upstream import ScriptedUpstream

ASK = {"model": "small", "messages": [{"role": "user", "content": "hi"}]}
MOST = 100_000


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[LiveGateway]:
    async with ScriptedUpstream() as upstream:
        candidates = [{"name": "small", "base_url": upstream.base_url}]
        server = {"max_body_bytes": MOST, "body_timeout_s": 0.6}
        async with live_gateway(gateway_settings(tmp_path, candidates, server=server), scorer=PriorScorer()) as gateway:
            yield gateway


@pytest.fixture
async def http(gateway: LiveGateway) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=gateway.url, timeout=20) as http:
        yield http


def sized(count: int) -> bytes:
    """A good request of exactly this many bytes."""
    empty = orjson.dumps({**ASK, "user": ""})
    return orjson.dumps({**ASK, "user": "u" * (count - len(empty))})


async def in_pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 10_000):
        yield body[start : start + 10_000]


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_at_the_limit_passes_and_one_byte_more_is_413(http: httpx.AsyncClient, chunked: bool) -> None:
    for extra, status in ((0, 200), (1, 413)):
        body = sized(MOST + extra)
        response = await http.post("/v1/chat/completions", content=in_pieces(body) if chunked else body)
        assert response.status_code == status
    assert response.json()["error"]["code"] == "request_too_large"
    assert response.headers["x-request-id"]


async def test_a_client_that_sends_far_too_much_still_gets_its_answer(http: httpx.AsyncClient) -> None:
    response = await http.post("/v1/chat/completions", content=sized(20 * MOST))
    assert response.status_code == 413


async def test_admin_bodies_are_limited_too(http: httpx.AsyncClient) -> None:
    response = await http.post("/admin/models", content=in_pieces(sized(MOST + 1)))
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "request_too_large"


async def test_a_client_that_asks_first_is_told_before_it_sends(gateway: LiveGateway) -> None:
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: {MOST + 1}\r\n\r\n"
    )
    assert (await first_line(gateway, head.encode())).split()[1] == b"413"


async def first_line(gateway: LiveGateway, sent: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(sent)
    line = await asyncio.wait_for(reader.readline(), 10)
    writer.close()
    await writer.wait_closed()
    return line


async def test_a_body_that_stalls_is_408(gateway: LiveGateway) -> None:
    head = b'POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 500\r\n\r\n{"model": '
    assert (await first_line(gateway, head)).split()[1] == b"408"


async def test_a_body_that_trickles_without_end_is_408(gateway: LiveGateway) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 500\r\n\r\n")
    answer = asyncio.ensure_future(reader.readline())
    while not answer.done():
        writer.write(b" ")
        await asyncio.wait([answer], timeout=0.2)
    assert (await answer).split()[1] == b"408"
    writer.close()


async def test_a_client_that_leaves_while_sending_does_no_harm(gateway: LiveGateway, http: httpx.AsyncClient) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 500\r\n\r\n{")
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    assert (await http.post("/v1/chat/completions", json=ASK)).status_code == 200


PACKED = {
    "gzip": (gzip.compress(orjson.dumps(ASK)), "gzip", 200),
    "GZIP": (gzip.compress(orjson.dumps(ASK)), "GZIP", 200),
    "deflate": (zlib.compress(orjson.dumps(ASK)), "deflate", 200),
    "identity": (orjson.dumps(ASK), "identity", 200),
    "cut": (gzip.compress(orjson.dumps(ASK))[:-9], "gzip", 400),
    "not packed at all": (orjson.dumps(ASK), "gzip", 400),
    "unknown": (b"x", "zstd", 415),
    "bomb": (gzip.compress(b" " * 50_000_000), "gzip", 413),
}


@pytest.mark.parametrize(("body", "encoding", "status"), PACKED.values(), ids=PACKED)
async def test_compressed_bodies(http: httpx.AsyncClient, body: bytes, encoding: str, status: int) -> None:
    response = await http.post("/v1/chat/completions", content=body, headers={"content-encoding": encoding})
    assert response.status_code == status
    assert status == 200 or response.json()["error"]["message"]


async def test_a_thousand_idle_connections_do_not_keep_others_out(
    gateway: LiveGateway, http: httpx.AsyncClient
) -> None:
    idle = [await asyncio.open_connection("127.0.0.1", gateway.port) for _ in range(1000)]
    assert (await http.post("/v1/chat/completions", json=ASK)).status_code == 200
    for _, writer in idle:
        writer.close()


async def test_above_the_most_in_flight_new_requests_are_turned_away(tmp_path: Path) -> None:
    from tests.support.scripted_upstream import Reply

    async with ScriptedUpstream() as upstream:
        upstream.always(Reply(hang=True))
        candidates = [{"name": "small", "base_url": upstream.base_url}]
        settings = gateway_settings(tmp_path, candidates, server={"max_in_flight": 1})
        async with (
            live_gateway(settings, scorer=PriorScorer()) as gateway,
            httpx.AsyncClient(base_url=gateway.url) as http,
        ):
            first = asyncio.ensure_future(http.post("/v1/chat/completions", json=ASK, timeout=20))
            await upstream.wait_for_requests(1)
            second = await http.post("/v1/chat/completions", json=ASK)
            assert second.status_code == 503
            assert second.headers["retry-after"] == "1"
            assert (await http.get("/healthz")).status_code == 200
            first.cancel()
