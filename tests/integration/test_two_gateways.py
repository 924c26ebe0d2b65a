"""Two gateways on one registry, and one gateway whose registry is locked or corrupt, over HTTP."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.live_gateway import gateway_settings, live_gateway
from tests.support.registry import declared, until
from tests.support.scripted_upstream import ScriptedUpstream
from tests.support.servers import redis_is_installed, redis_server

CHAT = {"model": "small", "messages": [{"role": "user", "content": "Hello"}]}


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as upstream:
        yield upstream


async def two(stack: AsyncExitStack, folder: Path, **sections: Any) -> tuple[httpx.AsyncClient, httpx.AsyncClient]:
    """Clients of two gateways that share a state folder."""
    clients = []
    for _ in range(2):
        gateway = await stack.enter_async_context(live_gateway(gateway_settings(folder, [], **sections)))
        clients.append(await stack.enter_async_context(httpx.AsyncClient(base_url=gateway.url, timeout=30)))
    return clients[0], clients[1]


async def status(client: httpx.AsyncClient, headers: dict[str, str] | None = None) -> int:
    return (await client.post("/v1/chat/completions", json=CHAT, headers=headers)).status_code


async def becomes(wanted: int, client: httpx.AsyncClient, headers: dict[str, str] | None = None) -> None:
    """Wait for at most a second until requests are answered with this status."""
    seen: list[int] = []
    for _ in range(100):
        seen.append(await status(client, headers))
        if seen[-1] == wanted:
            return
        await asyncio.sleep(0.01)
    pytest.fail(f"expected {wanted}, got {seen[-5:]}")


async def test_models_and_keys_changed_on_one_gateway_are_in_force_on_the_other(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    async with AsyncExitStack() as stack:
        first, second = await two(stack, tmp_path, server={"client_keys": "required"})
        await first.post("/admin/models", json={"name": "small", "base_url": upstream.base_url})
        made = (await first.post("/admin/keys", json={"name": "team"})).json()
        headers = {"authorization": f"Bearer {made['key']}"}
        await becomes(200, second, headers)
        await first.delete(f"/admin/keys/{made['id']}")
        assert await status(first, headers) == 401
        await becomes(401, second, headers)


async def test_what_both_gateways_answered_adds_up(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    async with AsyncExitStack() as stack:
        first, second = await two(stack, tmp_path)
        await first.post("/admin/models", json={"name": "small", "base_url": upstream.base_url, "price_in": 1.0})
        await becomes(200, second)
        for client in (first, second) * 5:
            assert await status(client) == 200
        await first.get("/admin/usage")
        usage = (await second.get("/admin/usage")).json()["usage"]
        answered = len([each for each in upstream.requests if each.json["model"] == "small"])
        assert sum(row["requests"] - row["errors"] for row in usage) == answered
        assert sum(row["prompt_tokens"] for row in usage) == 9 * answered


async def test_limits_hold_over_both_gateways_with_redis(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    if not redis_is_installed():
        pytest.skip("redis-server is not installed")
    with redis_server() as redis:
        async with AsyncExitStack() as stack:
            first, second = await two(stack, tmp_path, redis_url=redis.url)
            await first.post("/admin/models", json={"name": "small", "base_url": upstream.base_url})
            made = (await first.post("/admin/keys", json={"name": "team", "requests_per_minute": 4})).json()
            headers = {"authorization": f"Bearer {made['key']}"}
            await becomes(200, second, headers)
            answers = [await status(client, headers) for client in (first, second) * 4]
            assert answers.count(200) == 3
            assert answers.count(429) == 5


async def test_a_locked_registry_stops_changes_but_no_requests(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    model = {**declared(), "base_url": upstream.base_url}
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(live_gateway(gateway_settings(tmp_path, [model])))
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=gateway.url, timeout=30))
        locker = sqlite3.connect(tmp_path / "registry.db", isolation_level=None)
        locker.execute("BEGIN IMMEDIATE")
        assert await status(client) == 200
        refused = await client.post("/admin/keys", json={"name": "team"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "registry_locked")
        assert await status(client) == 200
        locker.execute("ROLLBACK")
        locker.close()
        assert (await client.post("/admin/keys", json={"name": "team"})).status_code == 201
        ledger = gateway.services.ledger
        await until(lambda: ledger.queued == 0 and ledger.problem is None, 15)
        assert len((await client.get("/admin/decisions")).json()["decisions"]) == 2


async def test_a_corrupt_registry_lets_the_config_file_answer_and_readyz_says_so(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    (tmp_path / "registry.db").write_bytes(b"broken" * 1000)
    model = {**declared(), "base_url": upstream.base_url}
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(live_gateway(gateway_settings(tmp_path, [model])))
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=gateway.url, timeout=30))
        assert await status(client) == 200
        ready = await client.get("/readyz")
        assert ready.status_code == 200
        assert "corrupt" in ready.json()["registry"]
        refused = await client.post("/admin/keys", json={"name": "team"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "registry_corrupt")
