"""The admin API over HTTP, on the real application with scripted upstreams."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from gateway.routing.prior import PriorScorer
from tests.support.live_gateway import LiveGateway, gateway_settings, live_gateway
from tests.support.registry import declared
from tests.support.scripted_upstream import ScriptedUpstream, error_answer

CHAT = {"model": "small", "messages": [{"role": "user", "content": "Hello"}]}


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as upstream:
        yield upstream


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[LiveGateway]:
    async with live_gateway(gateway_settings(tmp_path, [declared("configured")]), scorer=PriorScorer()) as gateway:
        yield gateway


@pytest.fixture
async def client(gateway: LiveGateway) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=gateway.url) as client:
        yield client


async def test_a_model_added_at_run_time_answers_the_next_request(
    client: httpx.AsyncClient, upstream: ScriptedUpstream
) -> None:
    added = await client.post("/admin/models", json={"name": "small", "base_url": upstream.base_url, "price_in": 0.1})
    assert added.status_code == 201
    assert any("declared strength" in warning for warning in added.json()["warnings"])
    assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 200
    assert upstream.last.json["model"] == "small"


async def test_disabled_and_removed_models_are_gone_for_the_next_request(
    client: httpx.AsyncClient, upstream: ScriptedUpstream
) -> None:
    await client.post("/admin/models", json={"name": "small", "base_url": upstream.base_url})
    assert (await client.post("/admin/models/small/disable")).json()["enabled"] is False
    assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 404
    assert (await client.post("/admin/models/small/enable")).json()["enabled"] is True
    assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 200
    assert (await client.delete("/admin/models/small")).json() == {"name": "small", "note": None}
    assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 404


async def test_a_name_with_a_slash_works_everywhere(client: httpx.AsyncClient, upstream: ScriptedUpstream) -> None:
    await client.post("/admin/models", json={"name": "team/small", "base_url": upstream.base_url})
    assert (await client.get("/admin/models/team/small")).json()["name"] == "team/small"
    assert (await client.post("/admin/models/team/small/disable")).json()["enabled"] is False
    assert (await client.delete("/admin/models/team/small")).status_code == 200


async def test_a_bad_registration_is_told_every_wrong_value(client: httpx.AsyncClient) -> None:
    bad = {
        "name": "x",
        "base_url": "http://169.254.169.254/latest",
        "api_key_env": "sk-live-123",
        "release_date": "now",
    }
    answer = await client.post("/admin/models", json=bad)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "invalid_candidate")
    assert all(field in error["message"] for field in ("base_url", "api_key_env", "release_date"))
    assert "sk-live" not in answer.text
    unknown = (await client.post("/admin/models", json={"name": "x", "bse_url": "http://h/v1", "price_in": -1})).json()
    assert "Did you mean 'base_url'?" in unknown["error"]["message"]
    assert "(got -1)" in unknown["error"]["message"]


async def test_a_change_keeps_what_it_does_not_name(client: httpx.AsyncClient) -> None:
    await client.post("/admin/models", json={**declared(), "price_in": 1.0, "context_window": 4096, "can": ["tools"]})
    changed = (await client.patch("/admin/models/small", json={"price_in": 2.5, "context_window": None})).json()
    assert (changed["price_in"], changed["context_window"], changed["can"]) == (2.5, None, ["tools"])
    assert changed["deployments"][0]["base_url"] == "http://127.0.0.1:9100/v1"


async def test_changing_a_model_of_the_config_file_overrides_it_with_a_note(client: httpx.AsyncClient) -> None:
    changed = (await client.patch("/admin/models/configured", json={"strength": 0.9})).json()
    assert (changed["source"], changed["strength"]) == ("registry", 0.9)
    assert "overrides the config" in changed["note"]
    assert "config file is in force again" in (await client.delete("/admin/models/configured")).json()["note"]
    assert (await client.delete("/admin/models/configured")).status_code == 409


async def test_a_registration_is_proved_by_real_calls(client: httpx.AsyncClient, upstream: ScriptedUpstream) -> None:
    await client.post("/admin/models", json={"name": "small", "base_url": upstream.base_url})
    proved = (await client.post("/admin/models/small/test")).json()
    assert proved["ok"] is True
    unary, stream = proved["probes"]
    assert (unary["reply"], unary["prompt_tokens"], unary["completion_tokens"]) == ("Hello there.", 9, 3)
    assert stream["stream"] is True
    assert 0 < stream["first_token_s"] <= stream["duration_s"]


async def test_a_registration_that_fails_says_why(client: httpx.AsyncClient, upstream: ScriptedUpstream) -> None:
    upstream.always(error_answer(404, "The model does not exist", "model_not_found"))
    await client.post(
        "/admin/models", json={"name": "small", "base_url": upstream.base_url, "upstream_model": "scripted-2"}
    )
    proved = (await client.post("/admin/models/small/test")).json()
    assert proved["ok"] is False
    assert "does not exist" in proved["probes"][0]["error"]
    assert "it has scripted-1" in proved["probes"][0]["hint"]


async def test_a_wish_for_measurement_becomes_a_job(client: httpx.AsyncClient) -> None:
    added = await client.post("/admin/models", json={**declared(), "aptitude": {"budget": 50}})
    job = (await client.get(f"/admin/jobs/{added.json()['job']}")).json()
    assert (job["subject"], job["progress"]["wish"]["budget"]) == ("small", 50)
    refused = await client.post("/admin/models", json={**declared("other"), "aptitude": {"suite": "none-such"}})
    assert refused.status_code == 400
    assert (await client.get("/admin/models/other")).status_code == 404
    again = await client.post("/admin/models/small/reprofile")
    assert again.status_code in (202, 409)


async def test_a_profile_comes_with_the_registration(client: httpx.AsyncClient, gateway: LiveGateway) -> None:
    profile = {"family": "llama-3", "answers": [{"item": "q1", "score": 1.0}]}
    added = await client.post("/admin/models", json={**declared(), "profile": profile})
    assert added.json()["measured"] is True
    assert gateway.services.registry.snapshot.profiles["small"]["name"] == "small"
    bad = await client.post(
        "/admin/models", json={**declared("other"), "profile": {"answers": [{"item": "q", "score": 7}]}}
    )
    assert (bad.status_code, bad.json()["error"]["code"]) == (400, "invalid_profile")
    assert (await client.get("/admin/models/other")).status_code == 404


async def test_a_key_works_until_it_is_revoked_and_is_shown_once(
    client: httpx.AsyncClient, upstream: ScriptedUpstream
) -> None:
    await client.post("/admin/models", json={"name": "small", "base_url": upstream.base_url})
    made = (await client.post("/admin/keys", json={"name": "team", "models": ["small"]})).json()
    headers = {"authorization": f"Bearer {made['key']}"}
    assert (await client.post("/v1/chat/completions", json=CHAT, headers=headers)).status_code == 200
    assert made["key"] not in (await client.get("/admin/keys")).text
    assert (await client.delete(f"/admin/keys/{made['id']}")).json()["revoked"] is True
    refused = await client.post("/v1/chat/completions", json=CHAT, headers=headers)
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")


async def test_a_key_over_its_limits_gets_429(client: httpx.AsyncClient, upstream: ScriptedUpstream) -> None:
    await client.post("/admin/models", json={"name": "small", "base_url": upstream.base_url, "price_in": 1e4})
    made = (await client.post("/admin/keys", json={"name": "team", "requests_per_minute": 1})).json()
    headers = {"authorization": f"Bearer {made['key']}"}
    assert (await client.post("/v1/chat/completions", json=CHAT, headers=headers)).status_code == 200
    limited = await client.post("/v1/chat/completions", json=CHAT, headers=headers)
    assert (limited.status_code, limited.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    # The window is a minute and was filled a moment ago.
    assert 50 <= int(limited.headers["retry-after"]) <= 61
    changed = await client.patch(f"/admin/keys/{made['id']}", json={"requests_per_minute": None, "budget_usd": 1e-9})
    assert changed.json()["requests_per_minute"] is None
    await client.post("/v1/chat/completions", json=CHAT, headers=headers)
    broke = await client.post("/v1/chat/completions", json=CHAT, headers=headers)
    assert (broke.status_code, broke.json()["error"]["code"]) == (429, "insufficient_quota")


async def test_a_budget_survives_a_restart(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    model = {"name": "small", "base_url": upstream.base_url, "price_in": 1000.0, "price_out": 1000.0}
    settings = gateway_settings(tmp_path, [model])
    async with live_gateway(settings) as gateway, httpx.AsyncClient(base_url=gateway.url) as client:
        made = (await client.post("/admin/keys", json={"name": "team", "budget_usd": 0.001})).json()
        headers = {"authorization": f"Bearer {made['key']}"}
        assert (await client.post("/v1/chat/completions", json=CHAT, headers=headers)).status_code == 200
    async with live_gateway(settings) as again, httpx.AsyncClient(base_url=again.url) as client:
        broke = await client.post("/v1/chat/completions", json=CHAT, headers=headers)
        assert (broke.status_code, broke.json()["error"]["code"]) == (429, "insufficient_quota")


async def test_decisions_and_usage_can_be_read(client: httpx.AsyncClient, upstream: ScriptedUpstream) -> None:
    await client.post("/admin/models", json={"name": "small", "base_url": upstream.base_url, "price_in": 1.0})
    ask = {**CHAT, "model": "auto", "orbweaver": {"allow": ["small"]}}
    answered = await client.post("/v1/chat/completions", json=ask)
    decision_id = answered.headers["x-orbweaver-decision-id"]
    listed = (await client.get("/admin/decisions", params={"limit": 1})).json()["decisions"]
    assert [each["id"] for each in listed] == [decision_id]
    one = (await client.get(f"/admin/decisions/{decision_id}")).json()
    assert one["decision"]["requested"] == "auto"
    assert "Hello" not in str(one)
    usage = (await client.get("/admin/usage", params={"period": "day"})).json()["usage"]
    assert sum(row["requests"] for row in usage) == 1
    assert sum(row["prompt_tokens"] for row in usage) == 9
    assert (await client.get("/admin/decisions/nobody")).status_code == 404


async def test_a_job_can_be_followed(client: httpx.AsyncClient, gateway: LiveGateway) -> None:
    job = await gateway.services.registry.create_job("merge", "small")
    assert (await client.get(f"/admin/jobs/{job.id}")).json()["state"] == "queued"
    assert [each["id"] for each in (await client.get("/admin/jobs")).json()["jobs"]] == [job.id]
    assert (await client.get("/admin/jobs/nobody")).status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/admin/keys", {"name": ""}),
        ("POST", "/admin/keys", {"name": "a", "requests_per_minute": 0}),
        ("POST", "/admin/keys", {"name": "a", "budget_period": "week"}),
        ("POST", "/admin/keys", {"name": "a", "limit": 5}),
        ("POST", "/admin/keys", [1, 2]),
        ("POST", "/admin/models", {"name": "auto", "base_url": "http://h/v1"}),
        ("GET", "/admin/decisions?limit=0", None),
        ("GET", "/admin/usage?since=yesterday", None),
        ("GET", "/admin/keys/nobody", None),
        ("DELETE", "/admin/models/nobody", None),
        ("PATCH", "/admin/models/configured", {"name": "other"}),
    ],
)
async def test_bad_input_is_a_clear_4xx(client: httpx.AsyncClient, method: str, path: str, body: Any) -> None:
    answer = await client.request(method, path, json=body)
    assert 400 <= answer.status_code < 500
    assert len(answer.json()["error"]["message"]) > 10


async def test_with_an_admin_key_nobody_gets_in_without_it(tmp_path: Path) -> None:
    settings = gateway_settings(tmp_path, []).model_copy(update={"admin_key": SecretStr("secret-admin")})
    async with live_gateway(settings) as gateway, httpx.AsyncClient(base_url=gateway.url) as client:
        assert (await client.get("/admin/models")).status_code == 401
        assert (await client.get("/admin/models", headers={"authorization": "Bearer wrong"})).status_code == 401
        assert (await client.get("/admin/models", headers={"authorization": "Bearer secret-admin"})).status_code == 200
        forwarded = {"x-api-key": "secret-admin", "x-forwarded-for": "10.0.0.1"}
        assert (await client.get("/admin/models", headers=forwarded)).status_code == 200


async def test_without_an_admin_key_a_proxied_request_is_refused(client: httpx.AsyncClient) -> None:
    refused = await client.get("/admin/models", headers={"x-forwarded-for": "127.0.0.1"})
    assert refused.status_code == 403
    assert "ORBWEAVER_ADMIN_KEY" in refused.json()["error"]["message"]
    assert (await client.get("/admin/models", headers={"host": "evil.example"})).status_code == 403
