"""What the upstream receives is what the client sent (points R1 to R11 of the conformance list)."""

from __future__ import annotations

import asyncio
import gzip
from typing import Any

import httpx
import orjson
import pytest

from tests.contract.conftest import ASK, UPSTREAM_KEY, Wire

TOOL = {
    "type": "function",
    "function": {"name": "f", "parameters": {"type": "object", "properties": {}}, "strict": True},
}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "a", "strict": True, "schema": {"type": "object"}}}
SENT: dict[str, dict[str, Any]] = {
    "R1 current parameters": {
        "temperature": 0.25,
        "top_p": 0.5,
        "seed": 7,
        "max_completion_tokens": 64,
        "reasoning_effort": "low",
        "verbosity": "low",
        "service_tier": "flex",
        "prompt_cache_key": "k",
        "safety_identifier": "u",
        "store": False,
        "metadata": {"a": "b"},
        "parallel_tool_calls": False,
        "modalities": ["text"],
        "logit_bias": {"50256": -100},
        "prediction": {"type": "content", "content": "x"},
        "web_search_options": {},
    },
    "R3 unknown parameters": {"x_vendor": {"deep": [1, {"a": None}]}, "top_k": 5, "min_p": 0.1},
    "R4 max_tokens": {"max_tokens": 77},
    "R5 response_format": {"response_format": SCHEMA},
    "R6 tools": {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}},
}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo=", "detail": "low"}}
TURNS = [
    {"role": "developer", "content": "Be brief.", "name": "dev"},
    {"role": "user", "name": "ann", "content": [{"type": "text", "text": "What is it?"}, IMAGE]},
    {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f"}}]},
    {"role": "tool", "tool_call_id": "c", "content": "ok"},
]


@pytest.mark.parametrize("fields", SENT.values(), ids=SENT)
async def test_parameters_arrive_unchanged_and_nothing_is_added(wire: Wire, fields: dict[str, Any]) -> None:  # R2 too
    await wire.chat(**fields)
    assert wire.upstream.last.json == {"model": "scripted-1", "messages": ASK, **fields}


async def test_roles_names_images_and_tool_turns_arrive_unchanged(wire: Wire) -> None:  # R7
    await wire.chat(messages=TURNS)
    assert wire.upstream.last.json["messages"] == TURNS


async def test_only_the_model_name_differs_in_the_bytes(wire: Wire) -> None:
    raw = b'{"messages": [{"content":"h\xc3\xa9"}],\n "x": 1.0e2, "y":1234567890123456789, "model" : "small"}'
    await wire.http.post("/v1/chat/completions", content=raw)
    assert wire.upstream.last.body == raw.replace(b'"small"', b'"scripted-1"')


async def test_the_gateways_own_field_is_taken_out(wire: Wire) -> None:
    await wire.chat(orbweaver={"quality": 0.9}, temperature=0)
    assert wire.upstream.last.json == {"model": "scripted-1", "messages": ASK, "temperature": 0}


async def test_a_model_name_inside_a_message_is_left_alone(wire: Wire) -> None:
    messages = [{"role": "user", "content": '{"model": "small"} and "model"', "model": "small"}]
    await wire.chat(messages=messages)
    assert wire.upstream.last.json == {"model": "scripted-1", "messages": messages}


async def test_five_megabytes_are_accepted(wire: Wire) -> None:  # R8
    text = "a" * 5_000_000
    response = await wire.chat(messages=[{"role": "user", "content": text}])
    assert response.status_code == 200
    assert wire.upstream.last.json["messages"][0]["content"] == text


async def test_the_clients_key_and_sdk_headers_stay_here(wire: Wire) -> None:  # R9
    await wire.sdk.chat.completions.create(model="small", messages=ASK, extra_headers={"cookie": "a=b", "api-key": "k"})
    headers = wire.upstream.last.headers
    assert headers["authorization"] == f"Bearer {UPSTREAM_KEY}"
    assert "sk-client-secret" not in str(headers)
    assert not [name for name in headers if name.startswith("x-stainless") or name in ("cookie", "api-key")]


async def test_the_callers_wishes_stay_here(wire: Wire) -> None:
    await wire.chat(headers={"x-orbweaver-quality": "0.9", "x-orbweaver-session": "s"})
    assert not [name for name in wire.upstream.last.headers if name.startswith("x-orbweaver")]


async def test_trace_context_and_openai_headers_go_on(wire: Wire) -> None:  # R10
    sent = {
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "tracestate": "vendor=1",
        "openai-beta": "assistants=v2",
        "idempotency-key": "once",
    }
    await wire.chat(headers=sent)
    assert {name: wire.upstream.last.headers.get(name) for name in sent} == sent


async def test_two_requests_share_a_connection(wire: Wire) -> None:  # R11
    body = orjson.dumps({"model": "small", "messages": ASK})
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", wire.gateway.port)
    for _ in range(2):
        writer.write(head + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        length = int(answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        assert answer.startswith(b"HTTP/1.1 200")
        assert orjson.loads(await reader.readexactly(length))["object"] == "chat.completion"
    writer.close()
    await writer.wait_closed()


async def test_pipelined_requests_are_answered_in_order(wire: Wire) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", wire.gateway.port)
    for path in ("/v1/models/small", "/v1/models/auto"):
        writer.write(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
    found = []
    for _ in range(2):
        answer = await reader.readuntil(b"\r\n\r\n")
        length = int(answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        found.append(orjson.loads(await reader.readexactly(length))["id"])
    writer.close()
    await writer.wait_closed()
    assert found == ["small", "auto"]


async def test_a_compressed_request_is_unpacked(wire: Wire) -> None:
    packed = gzip.compress(orjson.dumps({"model": "small", "messages": ASK}))
    response = await wire.http.post("/v1/chat/completions", content=packed, headers={"content-encoding": "gzip"})
    assert response.status_code == 200
    assert wire.upstream.last.json == {"model": "scripted-1", "messages": ASK}
    assert "content-encoding" not in wire.upstream.last.headers


async def test_a_chunked_request_is_accepted(wire: Wire) -> None:
    async def pieces() -> Any:
        for piece in (b'{"model":"small","mess', b'ages":[{"role":"user","content":"hi"}]}'):
            yield piece

    response = await wire.http.post("/v1/chat/completions", content=pieces())
    assert response.status_code == 200


async def test_upstream_connections_are_reused(wire: Wire) -> None:
    peers = set()
    for stream in (False, True, False, True):
        response: httpx.Response = await wire.chat(stream=stream)
        assert response.status_code == 200
        peers.add(wire.upstream.last.peer)
        await asyncio.sleep(0.05)  # a connection goes back to the pool after the client has its last byte
    assert len(peers) == 1
