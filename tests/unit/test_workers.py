"""Several workers answer as one: they find each other, join their texts and add their counts."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.telemetry.activity import Activity
from gateway.telemetry.exposition import join_workers
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.workers import Workers, prepare_folder
from tests.support.records import finished


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short folder: the address of a socket may not be long."""
    with tempfile.TemporaryDirectory(prefix="ow") as home:
        yield Path(home) / str(os.getpid())


def worker(folder: Path | None, name: str) -> Workers:
    async def answer() -> bytes:
        return f"I am {name}".encode()

    return Workers(folder, name, {"who": answer})


async def test_a_worker_gets_the_answers_of_all_others_and_not_its_own(folder: Path) -> None:
    group = [worker(folder, name) for name in ("a", "b", "c")]
    for one in group:
        await one.start()
    assert await group[0].ask("who") == {"b": b"I am b", "c": b"I am c"}
    for one in group:
        await one.close()


async def test_a_worker_that_was_killed_is_left_out_and_cleared_away(folder: Path) -> None:
    alive = worker(folder, "a")
    await alive.start()
    dead = worker(folder, "b")
    await dead.start()
    assert dead._server is not None
    dead._server.close()
    (folder / "b.sock").touch()
    assert await alive.ask("who") == {}
    await alive.close()


async def test_an_unknown_word_has_no_answer(folder: Path) -> None:
    group = [worker(folder, name) for name in ("a", "b")]
    for one in group:
        await one.start()
    assert await group[0].ask("secrets") == {}
    for one in group:
        await one.close()


async def test_a_gateway_of_one_process_asks_nobody() -> None:
    alone = worker(None, "a")
    await alone.start()
    assert not alone.several
    assert await alone.ask("who") == {}
    await alone.close()


def test_the_meeting_place_is_closed_to_other_users(folder: Path) -> None:
    prepare_folder(folder)
    assert folder.stat().st_mode & 0o077 == 0
    folder.chmod(0o755)
    with pytest.raises(PermissionError):
        prepare_folder(folder)


def test_the_folders_of_parents_that_are_gone_are_cleared_away(folder: Path) -> None:
    old = folder.parent / "4194305"  # above the largest process id of Linux
    old.mkdir(parents=True)
    prepare_folder(folder)
    assert not old.exists()


async def test_a_place_that_cannot_be_used_is_logged_and_costs_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    stuck = worker(tmp_path / "file" / "1", "a")
    await stuck.start()
    assert not stuck.several
    assert "only its own figures" in caplog.text


def test_joined_texts_hold_every_family_once_and_the_series_of_each_worker() -> None:
    texts = {}
    for name, requests in (("1", 2), ("2", 3)):
        metrics = Metrics()
        for _ in range(requests):
            metrics.record(finished())
        texts[name] = metrics.render()[0].decode()
    families = list(text_string_to_metric_families(join_workers(texts)))
    assert len({family.name for family in families}) == len(families)
    requests_family = next(family for family in families if family.name == "orbweaver_requests")
    assert {sample.labels["worker"]: sample.value for sample in requests_family.samples} == {"1": 2, "2": 3}


def test_a_series_without_labels_is_marked_too() -> None:
    joined = join_workers({"7": "# HELP a b\n# TYPE a gauge\na 1.0\n"})
    assert joined == '# HELP a b\n# TYPE a gauge\na{worker="7"} 1.0\n'


def test_the_activity_of_two_workers_adds_up() -> None:
    mine, theirs = Activity(lambda: 1000.0), Activity(lambda: 1005.0)
    mine.record(finished(duration_s=0.5))
    theirs.record(finished(duration_s=0.5, outcome="timeout"))
    joined = mine.merged([orjson.loads(orjson.dumps(theirs.to_json()))])
    assert (joined.totals.requests, joined.totals.errors) == (2, 1)
    assert joined.models["small"].requests == 2
    assert joined.slices[-1].requests == 2
    assert joined.slices[-1].durations.percentile(0.5) == pytest.approx(0.5, rel=0.1)
    assert mine.totals.requests == 1
