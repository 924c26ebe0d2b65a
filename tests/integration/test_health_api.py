"""`/healthz`, `/readyz` and `/metrics` of a running gateway: what they say when things are well and when not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.live_gateway import LiveGateway, gateway_settings, live_gateway
from tests.support.scripted_upstream import ScriptedUpstream, error_answer


def one(base_url: str = "http://127.0.0.1:9/v1", **fields: Any) -> list[dict[str, Any]]:
    return [{"name": "small", "base_url": base_url, **fields}]


async def get(gateway: LiveGateway, path: str, **headers: str) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as session, session.get(gateway.url + path, headers=headers) as answer:
        return answer.status, await answer.json(content_type=None)


async def status_of(gateway: LiveGateway, path: str) -> int:
    async with aiohttp.ClientSession() as session, session.get(gateway.url + path) as answer:
        return answer.status


async def test_a_living_process_says_so_and_its_version(tmp_path: Path) -> None:
    async with live_gateway(gateway_settings(tmp_path, [])) as gateway:
        assert await get(gateway, "/healthz") == (200, {"status": "ok", "version": "0.1.0"})


async def test_a_gateway_with_a_model_is_ready(tmp_path: Path) -> None:
    async with live_gateway(gateway_settings(tmp_path, one())) as gateway:
        status, state = await get(gateway, "/readyz")
    assert (status, state["ready"], state["problems"]) == (200, True, [])
    assert state["candidates"] == {"up": ["small"], "down": [], "disabled": []}


async def test_a_gateway_without_models_says_how_to_add_one(tmp_path: Path) -> None:
    async with live_gateway(gateway_settings(tmp_path, [])) as gateway:
        status, state = await get(gateway, "/readyz")
    assert status == 503
    assert "orbweaver models add" in state["problems"][0]["fix"]


async def test_a_gateway_whose_models_are_all_off_names_one_to_switch_on(tmp_path: Path) -> None:
    async with live_gateway(gateway_settings(tmp_path, one(enabled=False))) as gateway:
        status, state = await get(gateway, "/readyz")
    assert status == 503
    assert "orbweaver models enable small" in state["problems"][0]["fix"]


async def test_a_model_whose_circuit_is_open_is_down_and_the_wait_is_told(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream:
        upstream.always(error_answer(500, "It fell over."))
        settings = gateway_settings(tmp_path, one(upstream.base_url), circuit={"failures": 1, "cooldown_s": 60})
        async with live_gateway(settings) as gateway, aiohttp.ClientSession() as session:
            body = {"model": "small", "messages": [{"role": "user", "content": "Hello"}]}
            async with session.post(f"{gateway.base_url}/chat/completions", json=body) as answer:
                assert answer.status == 500
            status, state = await get(gateway, "/readyz")
    assert (status, state["candidates"]["down"]) == (503, ["small"])
    assert "small fails and rests for" in state["problems"][0]["what"]


async def test_a_missing_provider_key_is_told_but_does_not_block(tmp_path: Path) -> None:
    async with live_gateway(gateway_settings(tmp_path, one(api_key_env="NOT_SET_ANYWHERE"))) as gateway:
        status, state = await get(gateway, "/readyz")
    assert status == 200
    assert "NOT_SET_ANYWHERE" in state["problems"][0]["what"]


async def test_a_broken_database_is_told_while_declared_models_go_on(tmp_path: Path) -> None:
    (tmp_path / "registry.db").write_bytes(b"this is no database" * 100)
    async with live_gateway(gateway_settings(tmp_path, one())) as gateway:
        status, state = await get(gateway, "/readyz")
    assert status == 200
    assert state["registry"] != "ok"
    assert any("registry" in problem["what"] for problem in state["problems"])


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/"])
async def test_probes_and_the_page_need_no_client_key(tmp_path: Path, path: str) -> None:
    settings = gateway_settings(tmp_path, one(), server={"client_keys": "required"})
    async with live_gateway(settings) as gateway:
        assert await status_of(gateway, path) == 200


async def test_metrics_are_valid_and_complete_before_the_first_request(tmp_path: Path) -> None:
    async with live_gateway(gateway_settings(tmp_path, one())) as gateway:
        text = gateway.services.metrics.render()[0].decode()
    names = {family.name for family in text_string_to_metric_families(text)}
    assert {
        "orbweaver_deployment_up",
        "orbweaver_candidates",
        "orbweaver_ledger_queue_length",
        "process_cpu_seconds",
    } <= names


async def test_the_overview_is_for_administrators(tmp_path: Path) -> None:
    async with live_gateway(gateway_settings(tmp_path, one(), server={"host": "0.0.0.0"})) as gateway:
        status, body = await get(gateway, "/admin/overview")
    assert status == 403
    assert "ORBWEAVER_ADMIN_KEY" in body["error"]["message"]


async def test_unknown_static_files_are_not_found(tmp_path: Path) -> None:
    async with live_gateway(gateway_settings(tmp_path, one())) as gateway:
        status, body = await get(gateway, "/static/..%2f..%2fapp.py")
    assert status == 404
    assert "error" in body
