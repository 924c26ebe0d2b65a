"""Redis and PostgreSQL away for thirty seconds each, under load: what goes on, and what is there afterwards."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import psutil  # type: ignore[import-untyped]
import pytest
from sqlalchemy import func, select

from gateway.registry.database import Database
from gateway.registry.tables import decisions, usage
from tests.support.replicas import Backends, backends, replica
from tests.support.scripted_upstream import ScriptedUpstream
from tests.support.serving import CHAT, Serving, admin, chat, until_status

AWAY_S = 30.0
HANGS_S = 6.0
STAGGER_S = 5.0
PAUSE_S = 0.03
# A request may wait once for Redis (two short time-outs) and once for the durable count of money.
SLOWEST_S = 3.0
# The ledger tries again after 5 s at most, and budgets are compared with it every 5 s.
IN_FORCE_S = 15.0
GROWTH_MB = 64
QUEUE = "orbweaver_ledger_queue_length"
# The scripted answers cost 9 + 3 tokens, streamed ones 9 + 4, at 1 USD per million.
ANSWER_USD, STREAMED_USD = 12e-6, 13e-6
LIMITS: dict[str, dict[str, Any]] = {
    "load": {"budget_usd": 100.0},
    "used-up": {"budget_usd": 2.5 * ANSWER_USD},
    "pooled": {"budget_usd": 10 * ANSWER_USD},
    "few": {"requests_per_minute": 4},
    "seen": {},
}
ASKS: tuple[dict[str, Any], ...] = ({"model": "small"}, {"model": "auto"}, {"model": "large", "stream": True})


@dataclass
class Outage:
    """Two replicas, the servers behind them, and what clients saw."""

    gateways: tuple[Serving, Serving]
    behind: Backends
    database: Database
    session: aiohttp.ClientSession
    keys: dict[str, dict[str, Any]]
    statuses: Counter[int] = field(default_factory=Counter)
    decisions: list[str] = field(default_factory=list)
    cost_usd: float = 0.0
    slowest_s: float = 0.0

    @asynccontextmanager
    async def under_load(self) -> AsyncIterator[None]:
        """Two clients of each replica ask while the block runs; their last requests end with it."""
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as clients:
            for gateway in self.gateways * 2:
                clients.create_task(self._ask_on(gateway, stop))
            yield
            stop.set()

    async def _ask_on(self, gateway: Serving, stop: asyncio.Event) -> None:
        """One client: named, routed and streamed requests in turn."""
        headers = {"authorization": f"Bearer {self.keys['load']['key']}"}
        for ask in itertools.cycle(ASKS):
            if stop.is_set():
                return
            streamed = "stream" in ask
            body = {"messages": [{"role": "user", "content": f"Question {len(self.decisions)}"}], **ask}
            began = time.monotonic()
            async with self.session.post(gateway.url + CHAT, json=body, headers=headers) as answer:
                whole = ("data: [DONE]" if streamed else "Hello") in await answer.text()
            self.statuses[answer.status if whole else 0] += 1
            self.decisions.append(answer.headers.get("x-orbweaver-decision-id", ""))
            self.cost_usd += STREAMED_USD if streamed else ANSWER_USD
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
            await asyncio.sleep(PAUSE_S)

    async def status(self, gateway: Serving, key: str) -> int:
        return (await chat(gateway, self.session, key=self.keys[key]["key"]))[0]

    async def refused_on_both(self, key: str) -> None:
        for gateway in self.gateways:
            await until_status(429, gateway, self.session, IN_FORCE_S, key=self.keys[key]["key"])

    async def figure(self, gateway: Serving, name: str) -> float:
        async with self.session.get(gateway.url + "/metrics") as answer:
            lines = (await answer.text()).splitlines()
        return float(next(line for line in lines if line.startswith(name)).rpartition(" ")[2])

    def written(self, key: str) -> tuple[int, set[str]]:
        """Of a key: how many requests the table of usage counts, and the ids of its decisions."""
        mine = self.keys[key]["id"]
        with self.database.read() as connection:
            counted = connection.execute(select(func.sum(usage.c.requests)).where(usage.c.key_id == mine)).scalar()
            ids = connection.execute(select(decisions.c.id).where(decisions.c.key_id == mine)).scalars()
            return int(counted or 0), set(ids)

    def spent(self, key: str) -> float:
        mine = self.keys[key]["id"]
        with self.database.read() as connection:
            return float(
                connection.execute(select(func.sum(usage.c.cost_usd)).where(usage.c.key_id == mine)).scalar() or 0.0
            )


@pytest.fixture
async def outage(tmp_path: Path) -> AsyncIterator[Outage]:
    with backends() as behind:
        url = behind.postgres.fresh_database()
        sections: dict[str, Any] = {"server": {"client_keys": "required"}, "telemetry": {"stream_usage": "always"}}
        async with AsyncExitStack() as stack:
            upstream = await stack.enter_async_context(ScriptedUpstream())
            first = await stack.enter_async_context(replica(tmp_path / "first", behind, url, **sections))
            second = await stack.enter_async_context(replica(tmp_path / "second", behind, url, **sections))
            session = await stack.enter_async_context(aiohttp.ClientSession())
            for name, strength in (("small", 0.6), ("large", 0.61)):
                model = {"name": name, "base_url": upstream.base_url, "strength": strength}
                await admin(first, session, "POST", "/models", {**model, "price_in": 1, "price_out": 1})
            keys = {
                name: await admin(first, session, "POST", "/keys", {"name": name, **limits})
                for name, limits in LIMITS.items()
            }
            for gateway in (first, second):
                await until_status(200, gateway, session, 4.0, model="large", key=keys["seen"]["key"])
            database = Database(url)
            stack.callback(database.close)
            yield Outage((first, second), behind, database, session, keys)


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_redis_and_postgresql_away_for_thirty_seconds_lose_no_request_and_no_record(outage: Outage) -> None:
    """Redis goes first and comes back first, empty: for a while only the replicas themselves know what was spent."""
    for gateway in (*outage.gateways, outage.gateways[0]):
        assert await outage.status(gateway, "used-up") == 200
    await outage.refused_on_both("used-up")
    before = [_vitals(gateway) for gateway in outage.gateways]
    async with outage.under_load():
        went = time.monotonic()
        await asyncio.to_thread(outage.behind.redis.stop)
        await _until(went + STAGGER_S)
        await asyncio.to_thread(outage.behind.postgres.stop)
        await _last_known_state_holds(outage)
        await _until(went + AWAY_S)
        await asyncio.to_thread(outage.behind.redis.start)
        while time.monotonic() < went + AWAY_S + STAGGER_S:
            still = {await outage.status(gateway, "used-up") for gateway in outage.gateways}
            assert still == {429}, "an empty Redis does not make a budget new"
            await asyncio.sleep(0.2)
        assert min([await outage.figure(gateway, QUEUE) for gateway in outage.gateways]) > 0
        await asyncio.to_thread(outage.behind.postgres.start)
        await asyncio.sleep(2.0)
    assert set(outage.statuses) == {200}
    assert outage.slowest_s < SLOWEST_S
    assert len(outage.decisions) > 500
    await _everything_is_written_once(outage)
    assert outage.spent("pooled") == pytest.approx(12 * ANSWER_USD)
    await _limits_are_shared_again(outage)
    for gateway, (files, memory_mb) in zip(outage.gateways, before, strict=True):
        files_now, memory_now_mb = _vitals(gateway)
        assert files_now <= files + 10
        assert memory_now_mb <= memory_mb + GROWTH_MB


async def test_a_postgresql_that_hangs_holds_up_no_request_for_longer_than_moments(outage: Outage) -> None:
    """It accepts connections and never answers: no error ends a wait, so every wait needs an end of its own."""
    outage.behind.postgres.freeze()
    try:
        async with outage.under_load():
            await asyncio.to_thread(outage.behind.redis.stop)
            assert await outage.status(outage.gateways[0], "pooled") == 200
            await asyncio.sleep(HANGS_S)
    finally:
        outage.behind.postgres.thaw()
        outage.behind.redis.start()
    assert set(outage.statuses) == {200}
    assert outage.slowest_s < SLOWEST_S
    await _everything_is_written_once(outage)


async def _last_known_state_holds(outage: Outage) -> None:
    """With both away: budgets that are used up stay so, limits are each replica's own, changes are refused."""
    pooled = [await outage.status(gateway, "pooled") for gateway in outage.gateways * 6]
    assert pooled == [200] * 12, "each replica alone has seen less than the budget"
    limited = [[await outage.status(gateway, "few") for _ in range(6)] for gateway in outage.gateways]
    assert [each.count(200) for each in limited] == [4, 4]
    assert {await outage.status(gateway, "used-up") for gateway in outage.gateways} == {429}
    for gateway in outage.gateways:
        said = ""
        # The writer notices at its next flush, a fifth of a second later; on a quick machine the asking is quicker.
        for _ in range(50):
            async with outage.session.get(gateway.url + "/readyz") as answer:
                said = await answer.text()
            assert answer.status == 200, "a balancer that takes every replica out would make it an outage of all"
            if "wait in memory" in said:
                break
            await asyncio.sleep(0.1)
        assert "wait in memory" in said
        assert "Redis is away" in said
        async with outage.session.post(gateway.url + "/admin/models/small/disable") as answer:
            assert answer.status == 503
        feedback = {"decision_id": outage.decisions[0], "score": 1.0}
        key = {"authorization": f"Bearer {outage.keys['load']['key']}"}
        async with outage.session.post(gateway.url + "/v1/feedback", json=feedback, headers=key) as answer:
            assert answer.status == 503, "what cannot be kept is not thanked for"


async def _everything_is_written_once(outage: Outage) -> None:
    """Requests, decisions and money in PostgreSQL are those that clients saw."""
    assert len(set(outage.decisions)) == len(outage.decisions)
    wanted = (len(outage.decisions), set(outage.decisions))
    async with asyncio.timeout(IN_FORCE_S):
        while await asyncio.to_thread(outage.written, "load") != wanted:
            await asyncio.sleep(0.2)
    assert outage.spent("load") == pytest.approx(outage.cost_usd)
    for gateway in outage.gateways:
        assert await outage.figure(gateway, "orbweaver_ledger_dropped_total") == 0
        assert await outage.figure(gateway, QUEUE) == 0


async def _limits_are_shared_again(outage: Outage) -> None:
    """What each replica let through alone counts for both, and a new limit is counted once."""
    await outage.refused_on_both("pooled")
    await outage.refused_on_both("used-up")
    fresh = {"name": "fresh", "requests_per_minute": 6}
    outage.keys["fresh"] = await admin(outage.gateways[0], outage.session, "POST", "/keys", fresh)
    await until_status(200, outage.gateways[1], outage.session, 4.0, key=outage.keys["fresh"]["key"])
    both = [await outage.status(gateway, "fresh") for gateway in outage.gateways * 4]
    assert (both.count(200), both.count(429)) == (5, 3)


def _vitals(gateway: Serving) -> tuple[int, float]:
    """Open files and resident memory (MiB) of a replica."""
    process = psutil.Process(gateway.process.pid)
    return process.num_fds(), process.memory_info().rss / 2**20


async def _until(moment: float) -> None:
    await asyncio.sleep(max(0.0, moment - time.monotonic()))
