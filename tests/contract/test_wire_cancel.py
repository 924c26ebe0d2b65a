"""A client that leaves takes its upstream call with it, within two seconds (points C1 and C2)."""

from __future__ import annotations

import asyncio

import pytest

from tests.contract.conftest import ASK, Wire
from tests.support.scripted_upstream import Reply, chat_chunk, event

WITHIN_S = 2.0
ROLE = event(chat_chunk({"role": "assistant", "content": ""}))
HANGING = {
    "unary, waiting for the head": (Reply(hang=True), False),  # C2
    "unary, in the middle of the body": (Reply(body=b'{"id": ', hang=True), False),
    "stream, waiting for the head": (Reply(hang=True), True),
    "stream, held back by pings": (Reply(pieces=[b": ping\n\n"], hang=True), True),
    "stream, after its opening": (Reply(pieces=[ROLE], hang=True), True),
    "stream, before the second event": (Reply(pieces=[event(chat_chunk({"content": "Hi"}))], hang=True), True),  # C1
    "stream, while it flows": (Reply(pieces=[event(chat_chunk({"content": "x"})), 0.02] * 500), True),
}


@pytest.mark.parametrize(("script", "stream"), HANGING.values(), ids=HANGING)
async def test_the_upstream_call_ends_with_the_client(wire: Wire, script: Reply, stream: bool) -> None:
    wire.upstream.script(script)
    request = asyncio.create_task(read_all(wire, stream))
    received = await wire.upstream.wait_for_requests(1)
    await asyncio.sleep(0.15)
    request.cancel()
    await asyncio.wait_for(received.left.wait(), WITHIN_S)


async def read_all(wire: Wire, stream: bool) -> None:
    body = {"model": "small", "messages": ASK, "stream": stream}
    async with wire.http.stream("POST", "/v1/chat/completions", json=body) as response:
        async for _ in response.aiter_bytes():
            pass


async def test_closing_a_stream_of_the_sdk_ends_the_upstream_call(wire: Wire) -> None:
    wire.upstream.script(Reply(pieces=[event(chat_chunk({"content": "Hi"}))], hang=True))
    stream = await wire.sdk.chat.completions.create(model="small", messages=ASK, stream=True)
    await stream.close()
    await asyncio.wait_for(wire.upstream.last.left.wait(), WITHIN_S)


async def test_nothing_stays_in_flight_after_clients_have_left(wire: Wire) -> None:
    wire.upstream.always(Reply(hang=True))
    requests = [asyncio.create_task(read_all(wire, stream)) for stream in (True, False) * 5]
    await wire.upstream.wait_for_requests(10)
    for request in requests:
        request.cancel()
    for received in wire.upstream.requests:
        await asyncio.wait_for(received.left.wait(), WITHIN_S)
    await asyncio.sleep(0.1)
    (state,) = wire.gateway.services.health.snapshot().values()
    assert state["in_flight"] == 0
    assert state["failures"] == 0


async def test_a_client_that_has_its_answer_leaves_no_trace_of_a_disconnect(wire: Wire) -> None:
    assert (await wire.chat(stream=True)).status_code == 200
    await asyncio.sleep(0.3)
    assert wire.upstream.last.done.is_set()
    assert not wire.upstream.last.left.is_set()
