"""Client keys on the wire: who gets in, what they see, and what their limits do to an answer."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from gateway.registry.encoding import new_secret
from gateway.registry.records import ClientKey
from tests.contract.conftest import ASK, Wire, events_of
from tests.support.scripted_upstream import Reply, chat_answer, chat_stream

USAGE = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}


async def make_key(wire: Wire, **limits: Any) -> tuple[ClientKey, str]:
    return await wire.gateway.services.registry.create_key(ClientKey("", "test", "", "", **limits))


async def ask(wire: Wire, headers: dict[str, str], **fields: Any) -> httpx.Response:
    body = {"model": "small", "messages": ASK, **fields}
    return await wire.http.post("/v1/chat/completions", json=body, headers=headers)


async def test_any_key_passes_while_none_was_made(wire: Wire) -> None:
    assert (await ask(wire, {"authorization": "Bearer sk-whatever"})).status_code == 200


async def test_a_key_that_another_gateway_made_is_refused_while_none_is_known_here(wire: Wire) -> None:
    """The first key of all reaches another replica within a second; until then it must not count as no key."""
    assert (await ask(wire, {"authorization": f"Bearer {new_secret()}"})).status_code == 401
    assert (await ask(wire, {"authorization": "Bearer ow-short"})).status_code == 200
    assert len(wire.upstream.requests) == 1


@pytest.mark.parametrize(
    "header", ["Authorization: Bearer {}", "authorization: bearer {}", "api-key: {}", "X-API-Key: {}"]
)
async def test_a_good_key_passes_in_every_usual_header(wire: Wire, header: str) -> None:
    _, secret = await make_key(wire)
    name, _, value = header.format(secret).partition(": ")
    assert (await ask(wire, {name: value})).status_code == 200


@pytest.mark.parametrize("headers", [{"authorization": "Bearer sk-wrong-wrong-wrong"}, {"api-key": "sk-wrong"}])
async def test_a_wrong_key_is_refused_without_repeating_it(wire: Wire, headers: dict[str, str]) -> None:
    await make_key(wire)
    response = await ask(wire, headers)
    assert response.status_code == 401
    assert response.json()["error"]["code"] == "invalid_api_key"
    assert response.headers["www-authenticate"] == "Bearer"
    assert "wrong-wrong" not in response.text
    assert not wire.upstream.requests
    assert 'orbweaver_turned_away_total{status="401"} 1.0' in (await wire.http.get("/metrics")).text


async def test_a_request_without_a_key_passes_where_keys_are_optional(wire: Wire) -> None:
    await make_key(wire)
    assert (await ask(wire, {})).status_code == 200


async def test_a_revoked_key_is_refused(wire: Wire) -> None:
    key, secret = await make_key(wire)
    await wire.gateway.services.registry.revoke_key(key.id)
    response = await ask(wire, {"authorization": f"Bearer {secret}"})
    assert response.status_code == 401
    assert "revoked" in response.json()["error"]["message"]


async def test_a_key_for_other_models_is_forbidden_and_does_not_see_this_one(wire: Wire) -> None:
    _, secret = await make_key(wire, models=frozenset({"another"}))
    headers = {"authorization": f"Bearer {secret}"}
    response = await ask(wire, headers)
    assert response.status_code == 403
    assert response.json()["error"]["code"] == "model_not_allowed"
    assert (await wire.http.get("/v1/models", headers=headers)).json()["data"] == []
    assert (await wire.http.get("/v1/models/small", headers=headers)).status_code == 404


async def test_health_and_metrics_need_no_key(wire: Wire) -> None:
    await make_key(wire)
    for path in ("/healthz", "/metrics"):
        assert (await wire.http.get(path, headers={"authorization": "Bearer wrong"})).status_code == 200


async def test_a_full_window_is_429_with_retry_after(wire: Wire) -> None:
    _, secret = await make_key(wire, requests_per_minute=1)
    headers = {"authorization": f"Bearer {secret}"}
    first, second = await ask(wire, headers), await ask(wire, headers)
    assert first.status_code == 200
    assert first.headers["x-ratelimit-remaining-requests"] == "0"
    assert second.status_code == 429
    assert second.json()["error"]["code"] == "rate_limit_exceeded"
    # The window is a minute and was filled a moment ago.
    assert 50 <= int(second.headers["retry-after"]) <= 61
    assert len(wire.upstream.requests) == 1


async def test_a_spent_budget_is_insufficient_quota_and_no_retry(wire: Wire) -> None:
    _, secret = await make_key(wire, budget_usd=0.0)
    response = await ask(wire, {"authorization": f"Bearer {secret}"})
    assert response.status_code == 429
    assert response.json()["error"]["code"] == "insufficient_quota"
    assert response.headers["x-should-retry"] == "false"


async def test_the_limits_of_the_key_replace_those_of_the_upstream(wire: Wire) -> None:
    _, secret = await make_key(wire, tokens_per_minute=1000)
    theirs = {"x-ratelimit-limit-tokens": "9", "x-ratelimit-limit-requests": "9"}
    wire.upstream.script(Reply(body=chat_answer(), headers=theirs))
    response = await ask(wire, {"authorization": f"Bearer {secret}"})
    assert response.headers.get_list("x-ratelimit-limit-tokens") == ["1000"]
    assert "x-ratelimit-limit-requests" not in response.headers


async def test_streams_of_a_limited_key_are_counted_without_the_client_noticing(wire: Wire) -> None:
    _, secret = await make_key(wire, tokens_per_minute=1000)
    wire.upstream.script(chat_stream(usage=USAGE))
    response = await ask(wire, {"authorization": f"Bearer {secret}"}, stream=True)
    assert wire.upstream.last.json["stream_options"] == {"include_usage": True}
    assert not [data for data in events_of(response.text)[:-1] if json.loads(data).get("usage")]
    after = await ask(wire, {"authorization": f"Bearer {secret}"}, max_tokens=1)
    used = 1000 - int(after.headers["x-ratelimit-remaining-tokens"])
    assert used >= USAGE["total_tokens"]


async def test_usage_that_a_limited_client_asked_for_is_not_taken_out(wire: Wire) -> None:
    _, secret = await make_key(wire, tokens_per_minute=1000)
    wire.upstream.script(chat_stream(usage=USAGE))
    options = {"include_usage": True}
    response = await ask(wire, {"authorization": f"Bearer {secret}"}, stream=True, stream_options=options)
    assert json.loads(events_of(response.text)[-2])["usage"] == USAGE
