"""The ledger on real databases: nothing is lost or counted twice, nothing blocks, and old decisions go first."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from gateway.errors import NotFound, RegistryError
from gateway.registry import ledger as ledger_module
from gateway.registry.database import Database
from gateway.registry.ledger import Ledger
from gateway.registry.ledger_store import Batch, LedgerStore
from gateway.telemetry.record import RequestRecord
from tests.support.records import decide, finished
from tests.support.registry import until
from tests.support.servers import PostgresServer, postgres_binaries, postgres_server

NOON = 1_795_262_400.0  # 2026-11-21 12:00 UTC


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    if postgres_binaries() is None:
        pytest.skip("PostgreSQL is not installed")
    with postgres_server() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    if request.param == "sqlite":
        database = Database(f"sqlite:///{tmp_path / 'registry.db'}")
    else:
        server: PostgresServer = request.getfixturevalue("postgres")
        database = Database(server.fresh_database())
    yield database
    database.close()


@pytest.fixture
async def ledger(database: Database) -> AsyncIterator[Ledger]:
    ledger = Ledger(database, clock=lambda: NOON)
    ledger.start()
    yield ledger
    await ledger.close()


def record(number: int, **changes: Any) -> RequestRecord:
    decision = dataclasses.replace(decide(), id=f"d{number}")
    return finished(**{"request_id": f"r{number}", "decision": decision, "key_id": "key-1", **changes})


async def test_a_decision_can_be_read_at_once_with_all_that_explains_it(ledger: Ledger) -> None:
    ledger.record(record(1))
    found = await ledger.decision("d1")
    assert (found["model"], found["status"], found["p"], found["cost_usd"]) == ("small", 200, 0.75, 0.01)
    assert found["decision"]["candidates"][1]["model"] == "large"
    assert found["attempts"] == [["small", "small#0", "ok"]]
    assert found["feedback"] is None


async def test_usage_adds_up_by_key_model_and_period(ledger: Ledger) -> None:
    for number in range(700):
        ledger.record(record(number, model=("small", "large")[number % 2]))
    ledger.record(record(9999, outcome="upstream_error", usage=None, cost_usd=None, key_id=None))
    rows = {(row["key_id"], row["model"]): row for row in await ledger.usage("month")}
    assert rows["key-1", "small"]["requests"] == 350
    assert rows["key-1", "large"]["prompt_tokens"] == 35_000
    assert rows["key-1", "small"]["cost_usd"] == pytest.approx(3.5)
    assert rows["", "small"] == {**rows["", "small"], "requests": 1, "errors": 1, "cost_usd": 0.0, "period": "2026-11"}
    assert await ledger.spent("key-1", "2026-11-01") == pytest.approx(7.0)
    assert await ledger.spent("key-1", "2026-11-22") == 0.0


async def test_a_batch_whose_confirmation_was_lost_is_not_counted_twice(database: Database) -> None:
    store = LedgerStore(database)
    batch = Batch(1, 1, [], {("key-1", "small", "2026-11-21"): [1, 0, 10, 5, 0, 0.5, 0.7]})
    store.save(batch, "writer", NOON)
    store.save(batch, "writer", NOON)
    store.save(dataclasses.replace(batch, number=2), "writer", NOON)
    store.save(batch, "another", NOON)
    rows = store.usage("total", since_day="", key_id=None, model=None, limit=10)
    assert [(row["requests"], row["cost_usd"]) for row in rows] == [(3, 1.5)]


async def test_many_rows_are_stored_with_few_statements(database: Database) -> None:
    database.open()
    engine = database._engine
    assert engine is not None
    statements: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda _c, _cursor, words, *_: statements.append(words[:22]))
    with_rest = 256 + 2 * 16 + 3
    rows = [ledger_module._row(NOON + number, record(number)) for number in range(with_rest)]
    usage = {(f"key-{number:03d}", "small", "2026-11-21"): [1, 0, 10, 5, 0, 0.5, 0.7] for number in range(with_rest)}
    store = LedgerStore(database)
    for number in (1, 2):
        store.save(Batch(number, 1, rows, usage), "writer", NOON)
    # One of 256, two of 16 and three of one row; a driver that is given rows one by one is as slow as its statements.
    assert statements.count("INSERT INTO decisions ") == statements.count("INSERT INTO usage (key") == 2 * 6
    stored = store.recent(1000, None, None, {})
    assert [each["id"] for each in stored] == [f"d{number}" for number in reversed(range(with_rest))]
    counted = store.usage("total", since_day="", key_id=None, model=None, limit=1000)
    assert [(row["key_id"], row["requests"], row["cost_usd"]) for row in counted] == [
        (f"key-{number:03d}", 2, 1.0) for number in range(with_rest)
    ]


async def test_recent_decisions_come_newest_first_and_can_be_filtered(database: Database) -> None:
    now = [NOON]
    ledger = Ledger(database, clock=lambda: now[0])
    ledger.start()
    for number in range(5):
        now[0] = NOON + number
        ledger.record(record(number, key_id=f"key-{number % 2}"))
    await ledger.flush(20.0)  # a reader waits a second, and a busy machine's first connection may take longer
    assert [each["id"] for each in await ledger.recent_decisions(3)] == ["d4", "d3", "d2"]
    assert [each["id"] for each in await ledger.recent_decisions(9, since=NOON + 2)] == ["d4", "d3"]
    assert [each["id"] for each in await ledger.recent_decisions(9, before=NOON + 2)] == ["d1", "d0"]
    assert [each["id"] for each in await ledger.recent_decisions(9, filters={"key_id": "key-1"})] == ["d3", "d1"]
    await ledger.close()


async def test_feedback_is_set_against_its_decision_and_a_second_one_replaces_it(ledger: Ledger) -> None:
    ledger.record(record(1))
    await ledger.add_feedback("d1", 1.0)
    given = await ledger.add_feedback("d1", 0.25)
    assert given["feedback"]["score"] == 0.25
    assert (await ledger.decision("d1"))["feedback"]["score"] == 0.25
    with pytest.raises(NotFound, match="'nobody'"):
        await ledger.add_feedback("nobody", 1.0)


async def test_what_a_client_put_into_a_name_cannot_break_the_log(ledger: Ledger) -> None:
    awkward = dataclasses.replace(decide(), id="d1", requested="a\0b\ud800" + "x" * 500, features={"s": {1, 2}})
    ledger.record(finished(decision=awkward, request_id="r\0\ud800", key_id=None))
    ledger.record(record(2))
    assert {each["id"] for each in await ledger.recent_decisions()} >= {"d2"}
    assert sum(row["requests"] for row in await ledger.usage()) == 2


async def test_the_oldest_decisions_go_first(database: Database) -> None:
    now = [NOON]
    ledger = Ledger(database, keep_decisions=100, clock=lambda: now[0])
    ledger.start()
    for number in range(1000):
        now[0] += 1
        ledger.record(record(number))
    await ledger.flush(10)
    kept = await ledger.recent_decisions(500)
    assert len(kept) < 1000
    assert [each["id"] for each in kept[:100]] == [f"d{number}" for number in range(999, 899, -1)]
    await ledger.close()


async def test_closing_writes_what_is_still_waiting(database: Database) -> None:
    ledger = Ledger(database)
    ledger.start()
    for number in range(300):
        ledger.record(record(number))
    await ledger.close()
    rows = LedgerStore(database).usage("total", since_day="", key_id=None, model=None, limit=10)
    assert [row["requests"] for row in rows] == [300]


async def test_a_full_queue_drops_the_oldest_decisions_but_no_money(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    path.write_bytes(b"broken" * 1000)
    ledger = Ledger(Database(f"sqlite:///{path}"), capacity=10, clock=lambda: NOON)
    for number in range(25):
        ledger.record(record(number))
    assert (ledger.queued, ledger.dropped) == (10, 15)
    path.unlink()
    ledger.start()
    await ledger.flush(5)
    assert {each["id"] for each in await ledger.recent_decisions()} == {f"d{number}" for number in range(15, 25)}
    assert await ledger.spent("key-1", "") == pytest.approx(0.25)
    await ledger.close()


async def test_nothing_is_lost_while_the_database_is_away_and_it_is_said(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    path.write_bytes(b"broken" * 1000)
    ledger = Ledger(Database(f"sqlite:///{path}"), clock=lambda: NOON)
    ledger.start()
    ledger.record(record(1))
    await until(lambda: ledger.problem is not None)
    ledger.record(record(2))
    with pytest.raises(RegistryError, match="corrupt"):
        await ledger.recent_decisions()
    path.unlink()
    await until(lambda: ledger.problem is None and ledger.queued == 0, 15)
    assert len(await ledger.recent_decisions()) == 2
    assert [row["requests"] for row in await ledger.usage()] == [2]
    await ledger.close()


async def test_two_gateways_count_into_the_same_rows(database: Database) -> None:
    ledgers = [Ledger(database, clock=lambda: NOON) for _ in range(2)]
    for index, each in enumerate(ledgers):
        each.start()
        for number in range(400):
            each.record(record(number + 1000 * index))
    for each in ledgers:
        await each.close()
    rows = LedgerStore(database).usage("day", since_day="", key_id=None, model=None, limit=10)
    assert [(row["period"], row["requests"]) for row in rows] == [("2026-11-21", 800)]


async def test_recording_does_not_wait_for_a_writer_that_is_stuck(tmp_path: Path) -> None:
    ledger = Ledger(Database(f"sqlite:///{tmp_path / 'registry.db'}"), clock=lambda: NOON)
    stuck, go_on = threading.Event(), threading.Event()
    save = ledger._store.save

    def slow(*arguments: Any) -> None:
        stuck.set()
        assert go_on.wait(30)
        save(*arguments)

    ledger._store.save = slow  # type: ignore[method-assign]
    ledger.start()
    ledger.record(record(0))
    await until(stuck.is_set)
    for number in range(1, 2000):
        ledger.record(record(number))
    assert ledger.queued == 2000
    go_on.set()
    await ledger.flush(10)
    assert ledger.queued == 0
    await ledger.close()


async def test_nothing_is_lost_or_doubled_while_postgresql_is_gone() -> None:
    if postgres_binaries() is None:
        pytest.skip("PostgreSQL is not installed")
    with postgres_server() as server:
        database = Database(server.url)
        ledger = Ledger(database, clock=lambda: NOON)
        ledger.start()
        for number in range(300):
            ledger.record(record(number))
            if number == 50:
                await ledger.flush()
                server.stop()
        await until(lambda: ledger.problem is not None, 20)
        server.start()
        await until(lambda: ledger.problem is None and ledger.queued == 0, 20)
        (row,) = await ledger.usage()
        assert (row["requests"], row["cost_usd"]) == (300, pytest.approx(3.0))
        assert len(await ledger.recent_decisions(500)) == 300
        await ledger.close()
        database.close()


async def test_a_decision_is_found_while_the_writer_is_between_queue_and_database(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = ledger_module._row

    def slow_row(now: float, taken: RequestRecord) -> dict[str, Any]:
        time.sleep(0.2)
        return real(now, taken)

    monkeypatch.setattr(ledger_module, "_row", slow_row)
    ledger.record(record(1))
    await until(lambda: not ledger.queued)
    assert (await ledger.add_feedback("d1", 1.0))["id"] == "d1"


async def test_a_decision_is_found_that_is_written_while_it_is_looked_for(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = ledger._store.decision
    looks = []

    def late(decision_id: str) -> dict[str, Any] | None:
        looks.append(decision_id)
        while not ledger.written:
            time.sleep(0.01)
        return real(decision_id) if len(looks) > 1 else None

    monkeypatch.setattr(ledger._store, "decision", late)
    ledger.record(record(1))
    assert (await ledger.decision("d1"))["id"] == "d1"
    assert len(looks) == 2
