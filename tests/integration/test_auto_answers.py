"""What a client of `auto` sees: who answered and why, unary and streamed; and how declared candidates are checked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from gateway.errors import ConfigError
from gateway.registry.declared import check_declared
from gateway.routing.prior import PriorScorer
from gateway.settings import Settings
from tests.support.live_gateway import LiveGateway, gateway_settings, live_gateway
from tests.support.scripted_upstream import ScriptedUpstream

ASK = {"model": "auto", "messages": [{"role": "user", "content": "Say hello."}]}


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[LiveGateway]:
    async with ScriptedUpstream() as upstream:
        candidates = [
            {"name": "weak", "base_url": upstream.base_url, "strength": 0.4, "price_in": 0.1, "price_out": 0.1},
            {"name": "strong", "base_url": upstream.base_url, "strength": 0.9, "price_in": 9, "price_out": 9},
        ]
        settings = gateway_settings(tmp_path, candidates, routing={"quality": 1.0})
        async with live_gateway(settings, scorer=PriorScorer()) as running:
            yield running


async def chat(gateway: LiveGateway, **more: object) -> httpx.Response:
    async with httpx.AsyncClient(base_url=gateway.url, timeout=20) as client:
        return await client.post("/v1/chat/completions", json={**ASK, **more})


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
async def test_headers_say_who_answered_and_why(gateway: LiveGateway, stream: bool) -> None:
    headers = (await chat(gateway, stream=stream)).headers
    assert headers["x-orbweaver-model"] == "strong"
    assert headers["x-orbweaver-p"] == "0.9000"
    assert headers["x-orbweaver-reason"].startswith("utility: ")
    assert headers["x-orbweaver-fallbacks"] == "0"
    assert float(headers["x-orbweaver-overhead-ms"]) > 0
    assert headers["x-orbweaver-decision-id"].startswith("dec_")
    assert "x-orbweaver-ranking" not in headers


async def test_explain_adds_the_whole_ranking(gateway: LiveGateway) -> None:
    headers = (await chat(gateway, orbweaver={"explain": True, "deny": ["weak"]})).headers
    strong, weak = headers["x-orbweaver-ranking"].split("; ")
    assert strong.startswith("strong p=0.9000 cost=0.")
    assert weak == "weak excluded=deny"


async def test_route_and_answer_agree_and_the_decision_can_be_read_back(gateway: LiveGateway) -> None:
    async with httpx.AsyncClient(base_url=gateway.url, timeout=20) as client:
        dry = (await client.post("/v1/route", json=ASK)).json()
        answered = await client.post("/v1/chat/completions", json=ASK)
        stored = (await client.get(f"/admin/decisions/{answered.headers['x-orbweaver-decision-id']}")).json()
    assert dry["model"] == stored["model"] == answered.headers["x-orbweaver-model"]
    assert dry["candidates"] == stored["decision"]["candidates"]
    assert dry["ask_hash"] == stored["decision"]["ask_hash"]


async def test_an_impossible_wish_is_a_400_that_names_the_rule(gateway: LiveGateway) -> None:
    reply = await chat(gateway, orbweaver={"allow": ["nobody"]})
    assert reply.status_code == 400
    error = reply.json()["error"]
    assert (error["code"], error["param"]) == ("no_candidate", "orbweaver.allow")
    assert "rule 'allow' left none" in error["message"]
    assert "Not registered: 'nobody'" in error["message"]


def declared(**fields: object) -> Settings:
    return Settings.model_validate({"candidates": [{"name": "a", **fields}]})


def test_a_declared_candidate_on_a_metadata_address_stops_the_start() -> None:
    with pytest.raises(ConfigError, match=r"candidate 'a': base_url: 169\.254\.169\.254 is a link-local"):
        check_declared(declared(base_url="http://169.254.169.254/v1"))


def test_a_declared_candidate_with_credentials_in_its_url_stops_the_start() -> None:
    with pytest.raises(ConfigError, match="candidate 'a': base_url") as caught:
        check_declared(declared(base_url="http://user:hunter2@127.0.0.1/v1"))
    assert "hunter2" not in str(caught.value)


def test_a_good_declared_candidate_gives_no_warning() -> None:
    assert check_declared(declared(base_url="http://127.0.0.1:9/v1", price_in=1, price_out=2)) == []
