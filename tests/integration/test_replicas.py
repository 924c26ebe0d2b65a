"""Two gateway processes on one PostgreSQL and one Redis: what is shared, and what a failure of either takes along."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.replicas import Backends, backends, replica
from tests.support.scripted_upstream import Reply, ScriptedUpstream, chat_answer
from tests.support.serving import CHAT, Serving, admin, chat, until_status

AGREE_S = 2.0
TURN_ONE = [{"role": "user", "content": "Which of these two is larger, 9.9 or 9.11?"}]
TURN_TWO = [*TURN_ONE, {"role": "assistant", "content": "9.9"}, {"role": "user", "content": "Why is that so?"}]


@dataclass
class Pair:
    """Both replicas, what is behind them, and a session to talk to them with."""

    first: Serving
    second: Serving
    upstream: ScriptedUpstream
    behind: Backends
    session: aiohttp.ClientSession
    key: str = ""

    async def chat(self, gateway: Serving, **request: Any) -> int:
        return (await chat(gateway, self.session, **{"key": self.key, **request}))[0]

    async def becomes(self, wanted: int, gateway: Serving, **request: Any) -> None:
        """What was changed elsewhere must be in force here within `AGREE_S`."""
        await until_status(wanted, gateway, self.session, AGREE_S, **{"key": self.key, **request})

    async def admin(self, gateway: Serving, method: str, path: str, body: Any = None) -> dict[str, Any]:
        return await admin(gateway, self.session, method, path, body)


@pytest.fixture(scope="module")
def behind() -> Iterator[Backends]:
    with backends() as found:
        yield found


@pytest.fixture
async def pair(tmp_path: Path, behind: Backends) -> AsyncIterator[Pair]:
    url = behind.postgres.fresh_database()
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(ScriptedUpstream())
        only = {"server": {"client_keys": "required"}}
        first = await stack.enter_async_context(replica(tmp_path / "first", behind, url, **only))
        second = await stack.enter_async_context(replica(tmp_path / "second", behind, url, **only))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        pair = Pair(first, second, upstream, behind, session)
        for name, strength in (("small", 0.6), ("large", 0.61)):
            model = {"name": name, "base_url": upstream.base_url, "strength": strength, "price_in": 1, "price_out": 1}
            await pair.admin(first, "POST", "/models", model)
        pair.key = (await pair.admin(first, "POST", "/keys", {"name": "tests"}))["key"]
        await pair.becomes(200, second, model="large")
        yield pair


async def test_a_model_a_key_and_a_budget_changed_on_one_are_in_force_on_the_other(pair: Pair) -> None:
    await pair.admin(pair.second, "POST", "/models/small/disable")
    await pair.becomes(404, pair.first, model="small")
    made = await pair.admin(pair.first, "POST", "/keys", {"name": "team", "budget_usd": 100.0})
    await pair.becomes(200, pair.second, model="large", key=made["key"])
    await pair.admin(pair.second, "PATCH", f"/keys/{made['id']}", {"budget_usd": 0.0})
    await pair.becomes(429, pair.first, model="large", key=made["key"])
    await pair.admin(pair.first, "DELETE", f"/keys/{made['id']}")
    await pair.becomes(401, pair.second, model="large", key=made["key"])


async def test_limits_and_budgets_hold_for_both_together(pair: Pair) -> None:
    limited = await pair.admin(pair.first, "POST", "/keys", {"name": "few", "requests_per_minute": 6})
    await pair.becomes(200, pair.second, key=limited["key"])
    answers = [await pair.chat(gateway, key=limited["key"]) for gateway in (pair.first, pair.second) * 4]
    assert (answers.count(200), answers.count(429)) == (5, 3)
    # One answer of the upstream costs 9 + 3 tokens at 1 USD per million.
    poor = await pair.admin(pair.first, "POST", "/keys", {"name": "poor", "budget_usd": 40e-6})
    await pair.becomes(200, pair.second, key=poor["key"])
    answers = [await pair.chat(gateway, key=poor["key"]) for gateway in (pair.first, pair.second) * 4]
    # Money is counted when an answer is over, so one more may slip in; two budgets would let seven through.
    assert answers.count(200) in (3, 4)
    assert set(answers[4:]) == {429}


async def test_a_conversation_stays_with_its_model_when_it_reaches_the_other_replica(pair: Pair) -> None:
    await pair.admin(pair.first, "POST", "/models/large/disable")
    await pair.becomes(404, pair.second, model="large")
    assert await model_of(pair, pair.first, TURN_ONE) == "small"
    await pair.admin(pair.first, "POST", "/models/large/enable")
    await pair.becomes(200, pair.second, model="large")
    assert await model_of(pair, pair.second, TURN_ONE) == "large", "a new conversation goes to the better one"
    # The newest answer of that opening is now the large one's: ask under a name of its own to tell them apart.
    await pair.admin(pair.first, "POST", "/models/large/disable")
    await pair.becomes(404, pair.first, model="large")
    named = {"orbweaver": {"session": "thread-7"}}
    assert await model_of(pair, pair.first, TURN_ONE, **named) == "small"
    await pair.admin(pair.first, "POST", "/models/large/enable")
    await pair.becomes(200, pair.second, model="large")
    assert await model_of(pair, pair.second, TURN_TWO, **named) == "small"
    assert await model_of(pair, pair.second, TURN_TWO, orbweaver={"session": "thread-8"}) == "large"


async def model_of(pair: Pair, gateway: Serving, messages: list[dict[str, str]], **fields: Any) -> str:
    body = {"model": "auto:best", "messages": messages, **fields}
    headers = {"authorization": f"Bearer {pair.key}"}
    async with pair.session.post(gateway.url + CHAT, json=body, headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        return answer.headers["x-orbweaver-model"]


async def test_a_replica_killed_under_load_loses_only_its_own_requests_in_flight(pair: Pair) -> None:
    pair.upstream.always(Reply(delay_s=0.05, body=chat_answer("fine")))
    ended: dict[str, list[int]] = {"first": [], "second": []}
    stop = asyncio.Event()

    async def ask(name: str, gateway: Serving) -> None:
        while not stop.is_set():
            try:
                ended[name].append(await pair.chat(gateway))
            except aiohttp.ClientError:
                ended[name].append(0)
                return

    askers = [
        asyncio.create_task(ask(name, gateway))
        for name, gateway in (("first", pair.first), ("second", pair.second))
        for _ in range(8)
    ]
    await asyncio.sleep(1.0)
    await pair.first.kill()
    await asyncio.sleep(1.0)
    stop.set()
    await asyncio.gather(*askers)
    assert ended["first"].count(0) == 8, "each of the eight callers had one request in flight"
    assert set(ended["first"]) == {200, 0}
    assert set(ended["second"]) == {200}
    written = (await pair.admin(pair.second, "GET", "/usage"))["usage"]
    assert sum(row["requests"] for row in written) >= len(ended["second"])


async def test_with_postgresql_away_requests_go_on_and_nothing_recorded_is_lost(pair: Pair) -> None:
    made = await pair.admin(pair.first, "POST", "/keys", {"name": "team"})
    await pair.becomes(200, pair.second, key=made["key"])
    pair.behind.postgres.stop()
    try:
        away = [await pair.chat(gateway, key=made["key"]) for gateway in (pair.first, pair.second) * 10]
    finally:
        pair.behind.postgres.start()
    assert away == [200] * 20
    expected = len([request for request in pair.upstream.requests if request.path.endswith("/chat/completions")])

    async def recorded() -> float:
        rows = [(await pair.admin(gateway, "GET", "/usage"))["usage"] for gateway in (pair.first, pair.second)][-1]
        return float(sum(row["requests"] - row["errors"] for row in rows))

    async with asyncio.timeout(30):
        while await recorded() != expected:
            await asyncio.sleep(0.2)


async def test_with_redis_away_requests_go_on_and_limits_are_counted_by_each(pair: Pair) -> None:
    made = await pair.admin(pair.first, "POST", "/keys", {"name": "few", "requests_per_minute": 3})
    await pair.becomes(200, pair.second, key=made["key"])
    pair.behind.redis.stop()
    try:
        answers = {
            gateway.port: [await pair.chat(gateway, key=made["key"]) for _ in range(4)]
            for gateway in (pair.first, pair.second)
        }
        assert [found.count(200) for found in answers.values()] == [3, 3]
        assert await pair.chat(pair.first, model="auto") == 200
    finally:
        pair.behind.redis.start()
