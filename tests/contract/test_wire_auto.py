"""`auto` on the wire: who answered is told in headers, and what a request needs is respected before any score."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.routing.prior import PriorScorer
from tests.support.live_gateway import gateway_settings, live_gateway
from tests.support.scripted_upstream import ScriptedUpstream

ASK = [{"role": "user", "content": "Say hello."}]
IMAGE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]}]
TOOL = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
SCHEMA = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}
HEADERS = ("decision-id", "model", "p", "reason", "overhead-ms", "fallbacks")


@pytest.fixture
async def http(upstream: ScriptedUpstream, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A gateway over `plain` (strong, small, able to do nothing special) and `able` (weak, large, able)."""
    candidates = [
        {"name": "plain", "base_url": upstream.base_url, "strength": 0.9, "context_window": 1000},
        {
            "name": "able",
            "base_url": upstream.base_url,
            "strength": 0.2,
            "context_window": 100_000,
            "can": ["vision", "tools", "json_schema", "logprobs", "n"],
            "endpoints": ["chat/completions", "embeddings"],
        },
    ]
    settings = gateway_settings(tmp_path, candidates)
    async with (
        live_gateway(settings, scorer=PriorScorer()) as gateway,
        httpx.AsyncClient(base_url=gateway.base_url) as http,
    ):
        yield http


@pytest.mark.parametrize("stream", [False, True])
async def test_the_answer_tells_who_gave_it_and_why(http: httpx.AsyncClient, stream: bool) -> None:
    response = await http.post("/chat/completions", json={"model": "auto", "messages": ASK, "stream": stream})
    assert response.headers["x-orbweaver-model"] == "plain"
    assert all(response.headers[f"x-orbweaver-{name}"] for name in HEADERS)
    assert 0 <= float(response.headers["x-orbweaver-p"]) <= 1


NEEDS: dict[str, dict[str, Any]] = {
    "vision": {"messages": IMAGE},
    "tools": {"tools": TOOL},
    "json schema": {"response_format": SCHEMA},
    "logprobs": {"logprobs": True},
    "n": {"n": 2},
    "context": {"messages": [{"role": "user", "content": "word " * 5000}]},
}


@pytest.mark.parametrize("fields", NEEDS.values(), ids=NEEDS)
async def test_only_a_model_that_can_is_chosen(http: httpx.AsyncClient, fields: dict[str, Any]) -> None:
    response = await http.post("/chat/completions", json={"model": "auto", "messages": ASK, **fields})
    assert response.headers["x-orbweaver-model"] == "able"


async def test_embeddings_go_to_a_model_that_has_them(http: httpx.AsyncClient) -> None:
    response = await http.post("/embeddings", json={"model": "auto", "input": "hello"})
    assert response.status_code == 200
    assert response.headers["x-orbweaver-model"] == "able"


async def test_nobody_left_names_the_rule(http: httpx.AsyncClient) -> None:
    wish = {"deny": ["plain", "able"]}
    response = await http.post("/chat/completions", json={"model": "auto", "messages": ASK, "orbweaver": wish})
    assert 400 <= response.status_code < 500
    assert "deny" in response.json()["error"]["message"]


async def test_wishes_may_come_as_headers(http: httpx.AsyncClient) -> None:
    body = {"model": "auto", "messages": ASK}
    response = await http.post("/chat/completions", json=body, headers={"x-orbweaver-deny": "plain"})
    assert response.headers["x-orbweaver-model"] == "able"


@pytest.mark.parametrize("preset", ["auto:best", "auto:balanced", "auto:cheap", "auto:fast"])
async def test_presets_are_models(http: httpx.AsyncClient, preset: str) -> None:
    response = await http.post("/chat/completions", json={"model": preset, "messages": ASK})
    assert response.status_code == 200


async def test_an_unknown_preset_is_an_unknown_model(http: httpx.AsyncClient) -> None:
    response = await http.post("/chat/completions", json={"model": "auto:chep", "messages": ASK})
    assert response.status_code == 404
    assert "'auto:cheap'" in response.json()["error"]["message"]


async def test_a_turn_that_builds_on_a_response_goes_to_the_model_that_gave_it(tmp_path: Path) -> None:
    async with ScriptedUpstream() as strong, ScriptedUpstream() as weak:
        candidates = [
            {"name": "strong", "base_url": strong.base_url, "strength": 0.9},
            {"name": "weak", "base_url": weak.base_url, "strength": 0.1},
        ]
        async with (
            live_gateway(gateway_settings(tmp_path, candidates), scorer=PriorScorer()) as gateway,
            httpx.AsyncClient(base_url=gateway.base_url) as http,
        ):
            for stream in (False, True):
                first = {"model": "weak", "input": "hi", "stream": stream}
                assert (await http.post("/responses", json=first)).status_code == 200
                later = {"model": "auto", "input": "and?", "previous_response_id": "resp_1"}
                response = await http.post("/responses", json=later)
                assert response.headers["x-orbweaver-model"] == "weak"
        assert not strong.requests
