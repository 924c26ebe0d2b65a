"""Streams come through event by event, unchanged (points S1 to S21 of the conformance list)."""

from __future__ import annotations

import gc
import json
import socket
import zlib
from typing import Any

import openai
import pytest

from tests.contract.conftest import ASK, Wire, events_of
from tests.support.scripted_upstream import DONE, Reply, chat_answer, chat_chunk, chat_stream, error_answer, event

USAGE = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13, "prompt_tokens_details": {"cached_tokens": 3}}


async def stream_of(wire: Wire, *script: Reply, **fields: Any) -> list[dict[str, Any]]:
    """The events of a raw stream, `[DONE]` checked and left out."""
    response = await wire.chat(*script, stream=True, **fields)
    assert response.status_code == 200, response.text
    events = events_of(response.text)
    assert events.count("[DONE]") == 1
    assert events[-1] == "[DONE]"
    return [json.loads(data) for data in events[:-1]]


async def test_a_stream_is_relayed_byte_for_byte(wire: Wire) -> None:
    script = chat_stream(usage=USAGE)
    assert script.pieces is not None
    response = await wire.chat(script, stream=True)
    assert response.content == b"".join(piece for piece in script.pieces if isinstance(piece, bytes))
    assert response.headers["content-type"].startswith("text/event-stream")  # S1
    assert "content-length" not in response.headers


async def test_events_arrive_one_by_one_in_order_and_end_once(wire: Wire) -> None:  # S2 to S5, S8, S9
    chunks = await stream_of(wire, chat_stream(("a", "b", "c", "d")))
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    texts = [chunk["choices"][0]["delta"].get("content") for chunk in chunks]
    assert [text for text in texts if text] == ["a", "b", "c", "d"]
    assert {(chunk["id"], chunk["created"], chunk["model"], chunk["object"]) for chunk in chunks} == {
        ("chatcmpl-scripted", 1700000000, "scripted-1", "chat.completion.chunk")
    }
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks].count("stop") == 1


async def test_usage_is_the_last_chunk_where_the_client_asks(wire: Wire) -> None:  # S6
    chunks = await stream_of(wire, chat_stream(usage=USAGE), stream_options={"include_usage": True})
    assert [chunk for chunk in chunks if chunk.get("usage")] == [chunks[-1]]
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == USAGE
    assert wire.upstream.last.json["stream_options"] == {"include_usage": True}


async def test_no_usage_is_asked_for_or_sent_otherwise(wire: Wire) -> None:  # S7
    chunks = await stream_of(wire)
    assert not [chunk for chunk in chunks if chunk.get("usage")]
    assert "stream_options" not in wire.upstream.last.json


def tool_delta(**call: Any) -> bytes:
    return event(chat_chunk({"tool_calls": [call]}))


async def test_parallel_tool_calls_keep_ids_indexes_and_arguments(wire: Wire) -> None:  # S10
    pieces = [
        event(chat_chunk({"role": "assistant", "content": None})),
        tool_delta(index=0, id="call_a", type="function", function={"name": "f", "arguments": ""}),
        tool_delta(index=1, id="call_b", type="function", function={"name": "g", "arguments": ""}),
        tool_delta(index=1, function={"arguments": '{"y"'}),
        tool_delta(index=0, function={"arguments": '{"x": 1}'}),
        tool_delta(index=1, function={"arguments": ": 2}"}),
        event(chat_chunk({}, "tool_calls")),
        DONE,
    ]
    response = await wire.chat(Reply(pieces=pieces), stream=True)
    assert response.content == b"".join(pieces)


async def test_missing_tool_indexes_are_repaired_so_that_the_sdk_helper_works(wire: Wire) -> None:  # S11
    pieces = [
        event(chat_chunk({"role": "assistant", "content": None})),
        tool_delta(id="call_a", type="function", function={"name": "f", "arguments": "{"}),
        tool_delta(function={"arguments": "}"}),
        tool_delta(id="call_b", type="function", function={"name": "g", "arguments": '{"y": 2}'}),
        event(chat_chunk({}, "tool_calls")),
        DONE,
    ]
    wire.upstream.script(Reply(pieces=pieces))
    async with wire.sdk.chat.completions.stream(model="small", messages=ASK) as stream:
        calls = (await stream.get_final_completion()).choices[0].message.tool_calls or []
    assert [(call.id, call.function.name, call.function.arguments) for call in calls] == [
        ("call_a", "f", "{}"),
        ("call_b", "g", '{"y": 2}'),
    ]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, 10_000_000])
@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
async def test_any_packet_boundary_and_line_end_will_do(wire: Wire, size: int, newline: bytes) -> None:  # S12, S13, S15
    whole = (
        b": ping\n\n"
        + event(chat_chunk({"role": "assistant", "content": "ä€\U0001f30d"}))
        + event(chat_chunk({}, "stop"))
    )
    whole = (whole + DONE).replace(b"\n", newline)
    pieces = [whole[start : start + size] for start in range(0, len(whole), size)]
    response = await wire.chat(Reply(pieces=pieces), stream=True)
    assert response.content == whole


async def test_keep_alive_comments_do_not_disturb(wire: Wire) -> None:  # S14
    pieces = [
        b": OPENROUTER PROCESSING\n\n",
        b": ping\n\n",
        event(chat_chunk({"content": "Hi"}, "stop")),
        b":\n\n",
        DONE,
    ]
    wire.upstream.script(Reply(pieces=pieces))
    stream = await wire.sdk.chat.completions.create(model="small", messages=ASK, stream=True)
    assert [chunk.choices[0].delta.content async for chunk in stream] == ["Hi"]


async def test_the_first_token_is_not_held_until_the_next(wire: Wire) -> None:  # S16
    wire.upstream.script(Reply(pieces=[event(chat_chunk({"role": "assistant", "content": "Hi"}))], hang=True))
    stream = await wire.sdk.chat.completions.create(model="small", messages=ASK, stream=True)
    first = await anext(aiter(stream))
    assert first.choices[0].delta.content == "Hi"
    await stream.close()


KEPT: dict[str, dict[str, Any]] = {
    "S17 reasoning": {"reasoning_content": "hm"},
    "S18 refusal": {"refusal": "No."},
    "unknown": {"content": "x", "x_vendor": {"a": None}},
}


@pytest.mark.parametrize("delta", KEPT.values(), ids=KEPT)
async def test_fields_of_deltas_are_kept(wire: Wire, delta: dict[str, Any]) -> None:
    logprobs = {"content": [{"token": "x", "logprob": -1.5, "bytes": None, "top_logprobs": []}]}
    chunk = chat_chunk(delta)
    chunk["choices"][0]["logprobs"] = logprobs
    chunks = await stream_of(wire, Reply(pieces=[event(chunk), event(chat_chunk({}, "stop")), DONE]))
    assert chunks[0] == chunk


@pytest.mark.parametrize("status", [400, 401, 429, 500, 503])
async def test_an_error_before_the_first_chunk_is_an_http_error(wire: Wire, status: int) -> None:  # S19
    response = await wire.chat(error_answer(status, "No.", "some_code"), stream=True)
    assert response.status_code == status
    assert response.json()["error"]["code"] == "some_code"


async def test_an_error_event_before_anything_else_is_an_http_error(wire: Wire) -> None:
    error = {"message": "Slow down.", "type": "requests", "code": "rate_limit_exceeded"}
    response = await wire.chat(Reply(pieces=[b": ping\n\n", event({"error": error}), DONE]), stream=True)
    assert response.status_code == 429
    assert response.json()["error"] == error


async def test_the_opening_chunk_is_not_held_where_nobody_else_could_answer(wire: Wire) -> None:
    wire.upstream.script(Reply(pieces=[event(chat_chunk({"role": "assistant", "content": ""}))], hang=True))
    stream = await wire.sdk.chat.completions.create(model="small", messages=ASK, stream=True)
    assert (await anext(aiter(stream))).choices[0].delta.role == "assistant"
    await stream.close()


async def test_an_error_event_in_the_middle_reaches_the_sdk(wire: Wire) -> None:  # S20
    error = {"message": "It broke.", "type": "server_error", "code": "boom"}
    wire.upstream.script(Reply(pieces=[event(chat_chunk({"content": "Hi"})), event({"error": error})]))
    stream = await wire.sdk.chat.completions.create(model="small", messages=ASK, stream=True)
    with pytest.raises(openai.APIError, match="It broke") as raised:
        [chunk async for chunk in stream]
    assert raised.value.code == "boom"


CUT: dict[str, list[bytes | float]] = {
    "between events": [event(chat_chunk({"content": "Hi"}))],
    "inside an event": [event(chat_chunk({"content": "Hi"})), b'data: {"choices": [{"del'],
}


@pytest.mark.parametrize("pieces", CUT.values(), ids=CUT)
@pytest.mark.parametrize("drop", [True, False], ids=["reset", "clean end"])
async def test_a_stream_that_breaks_off_ends_in_an_error_event(wire: Wire, pieces: list[bytes], drop: bool) -> None:
    response = await wire.chat(Reply(pieces=pieces, drop=drop), stream=True)  # S21
    events = events_of(response.text)
    assert json.loads(events[0])["choices"][0]["delta"]["content"] == "Hi"
    assert json.loads(events[-1])["error"]["code"] == "upstream_bad_reply"
    assert "[DONE]" not in response.text


async def test_a_stream_that_breaks_off_raises_in_the_sdk(wire: Wire) -> None:
    wire.upstream.script(Reply(pieces=CUT["inside an event"], drop=True))
    stream = await wire.sdk.chat.completions.create(model="small", messages=ASK, stream=True)
    with pytest.raises(openai.APIError):
        [chunk async for chunk in stream]


ENDINGS: dict[str, list[bytes]] = {
    "no DONE": [],
    "two DONE": [DONE, DONE],
    "no blank line": [b"data: [DONE]"],
    "one line end": [b"data: [DONE]\n"],
    "no space": [b"data:[DONE]\n\n"],
    "something behind it": [DONE, event(chat_chunk({"content": "late"}))],
}


@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS)
async def test_done_comes_exactly_once_however_the_upstream_ends(wire: Wire, ending: list[bytes]) -> None:  # S2
    pieces = [event(chat_chunk({"content": "Hi"})), event(chat_chunk({}, "stop")), *ending]
    chunks = await stream_of(wire, Reply(pieces=pieces))
    assert len(chunks) == 2


async def test_a_last_event_without_a_blank_line_is_not_lost(wire: Wire) -> None:
    pieces = [event(chat_chunk({"content": "Hi"})), event(chat_chunk({}, "stop")).rstrip(b"\n")]
    chunks = await stream_of(wire, Reply(pieces=pieces))
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


async def test_done_inside_a_text_is_a_text(wire: Wire) -> None:
    texts = ("data: [DONE]\n\n", "[DONE]", '"error"', '"usage": {}', '"tool_calls"')
    chunks = await stream_of(wire, chat_stream(texts))
    assert [chunk["choices"][0]["delta"].get("content") for chunk in chunks[1:-1]] == list(texts)


async def test_a_megabyte_in_one_line_passes(wire: Wire) -> None:
    arguments = json.dumps({"x": "y" * 1_000_000})
    pieces = [
        tool_delta(index=0, id="call_a", type="function", function={"name": "f", "arguments": arguments}),
        event(chat_chunk({}, "tool_calls")),
        DONE,
    ]
    chunks = await stream_of(wire, Reply(pieces=pieces))
    assert chunks[0]["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"] == arguments


async def test_interleaved_choices_keep_their_indexes(wire: Wire) -> None:
    order = [0, 1, 1, 0]
    pieces = [event(chat_chunk({"content": str(place)}, index=index)) for place, index in enumerate(order)]
    pieces += [event(chat_chunk({}, "stop", index=index)) for index in (1, 0)]
    chunks = await stream_of(wire, Reply(pieces=[*pieces, DONE]), n=2)
    assert [chunk["choices"][0]["index"] for chunk in chunks] == [*order, 1, 0]


async def test_a_compressed_stream_is_unpacked_as_it_comes(wire: Wire) -> None:
    packer = zlib.compressobj(wbits=31)
    script = chat_stream()
    assert script.pieces is not None
    plain = [piece for piece in script.pieces if isinstance(piece, bytes)]
    pieces = [packer.compress(piece) + packer.flush(zlib.Z_SYNC_FLUSH) for piece in plain] + [packer.flush()]
    response = await wire.chat(Reply(pieces=pieces, headers={"content-encoding": "gzip"}), stream=True)
    assert response.content == b"".join(plain)
    assert "content-encoding" not in response.headers


async def test_an_upstream_that_answers_a_stream_request_whole_is_relayed(wire: Wire) -> None:
    response = await wire.chat(Reply(body=chat_answer("Whole.")), stream=True)
    assert response.json()["choices"][0]["message"]["content"] == "Whole."


async def test_no_socket_waits_to_fill_a_packet(wire: Wire) -> None:
    """Nagle's algorithm with delayed acknowledgement would stall a stream by forty milliseconds."""
    wire.upstream.script(Reply(pieces=[event(chat_chunk({"content": "Hi"}))], hang=True))
    stream = await wire.sdk.chat.completions.create(model="small", messages=ASK, stream=True)
    to_upstream = wire.upstream.last.peer
    ours = [each for each in open_sockets() if to_upstream == name_of(each) or wire.gateway.port == name_of(each)[1]]
    assert len(ours) >= 2
    assert all(each.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for each in ours)
    await stream.close()


def open_sockets() -> list[socket.socket]:
    """Every connected TCP socket of this process."""
    # By type, not isinstance: asking some lazy objects of other libraries for their class is a warning.
    found = [each for each in gc.get_objects() if issubclass(type(each), socket.socket) and each.fileno() >= 0]
    return [each for each in found if each.type == socket.SOCK_STREAM and peer_of(each)]


def name_of(each: socket.socket) -> Any:
    return each.getsockname()


def peer_of(each: socket.socket) -> Any:
    try:
        return each.getpeername()
    except OSError:
        return None
