"""Aptitude jobs over HTTP: from a registration to a routed profile, and every way in which a measurement can fail."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from aptitude_tests.build import build_suite
from aptitude_tests.item import Suite
from gateway.aptitude.worker import answers_path
from tests.support.answering import AnsweringModel, write_suite
from tests.support.live_gateway import LiveGateway, gateway_settings, live_gateway
from tests.support.scripted_upstream import Received, Reply, ScriptedUpstream, chat_answer, error_answer
from tests.support.serving import SERVE

PRIOR = {"routing": {"scorer": "prior"}}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_suite(tmp_path / "numbers.jsonl")


@pytest.fixture
def suite(file: Path) -> Suite:
    return build_suite(str(file))


@pytest.fixture
async def upstream(suite: Suite) -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as upstream:
        yield upstream.always(AnsweringModel(suite, lambda item: item.shot % 4 != 0))


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[LiveGateway]:
    async with live_gateway(gateway_settings(tmp_path / "state", [], **PRIOR)) as gateway:
        yield gateway


@pytest.fixture
async def client(gateway: LiveGateway) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=gateway.url) as client:
        yield client


async def add(client: httpx.AsyncClient, upstream: ScriptedUpstream, file: Path, **wish: Any) -> str:
    fields = {"name": "new", "base_url": upstream.base_url, "upstream_model": "scripted-1", "can": ["vision"]}
    wish = {"suite": str(file), "full": True, **wish}
    added = await client.post("/admin/models", json={**fields, "price_in": 1.0, "price_out": 1.0, "aptitude": wish})
    assert added.status_code == 201, added.text
    return str(added.json()["job"])


async def ended(client: httpx.AsyncClient, job_id: str, within_s: float = 20.0) -> dict[str, Any]:
    async with asyncio.timeout(within_s):
        while True:
            job: dict[str, Any] = (await client.get(f"/admin/jobs/{job_id}")).json()
            if job["state"] in ("done", "failed", "cancelled"):
                return job
            await asyncio.sleep(0.02)


async def is_measured(client: httpx.AsyncClient) -> bool:
    model = (await client.get("/admin/models/new")).json()
    assert model["enabled"] is True
    return bool(model["measured"])


async def test_a_new_model_is_measured_and_shows_what_it_can(
    client: httpx.AsyncClient, gateway: LiveGateway, upstream: ScriptedUpstream, file: Path
) -> None:
    job = await ended(client, await add(client, upstream, file))
    assert job["state"] == "done", job["error"]
    card = job["progress"]["card"]
    assert (card["replies"], card["reasons"]) == (20, {"right": 15, "wrong": 5})
    assert card["probes"]["first_token_s"] is not None
    model = (await client.get("/admin/models/new")).json()
    assert (model["measured"], model["can"]) == (True, ["json_schema", "tools"])
    assert any("declared to do vision" in note for note in card["notes"])
    answers = gateway.services.registry.snapshot.profiles["new"]["answers"]
    assert sum(answer["score"] for answer in answers) == 15
    assert all(answer["text"] for answer in answers)


class SmallWindow:
    """A server that refuses prompts above so many characters, and says its limit in tokens or keeps it to itself."""

    def __init__(self, model: AnsweringModel, characters: int, says: str) -> None:
        self._model, self._characters, self._says = model, characters, says

    def __call__(self, received: Received) -> Reply:
        content = received.json["messages"][-1]["content"]
        if len(str(content)) > self._characters:
            return error_answer(400, self._says, "context_length_exceeded")
        return self._model(received)


async def test_questions_that_do_not_fit_a_small_window_are_left_out(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    file = write_suite(tmp_path / "long.jsonl", 20, long=8)
    upstream.always(
        SmallWindow(AnsweringModel(build_suite(str(file))), 600, "This model's maximum context length is 256 tokens.")
    )
    job = await ended(client, await add(client, upstream, file))
    assert job["state"] == "done", job["error"]
    card = job["progress"]["card"]
    assert (card["replies"], card["calls_without_reply"]) == (12, 0)
    assert any("8 items do not fit its 256 tokens" in note for note in card["notes"])


async def test_questions_that_a_server_finds_too_long_say_nothing_against_it(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    file = write_suite(tmp_path / "long.jsonl", 20, long=8)
    upstream.always(SmallWindow(AnsweringModel(build_suite(str(file))), 600, "The prompt is too long."))
    job = await ended(client, await add(client, upstream, file))
    assert job["state"] == "done", job["error"]
    assert (job["progress"]["card"]["replies"], job["progress"]["card"]["calls_without_reply"]) == (12, 8)


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (error_answer(401, "Bad key", "invalid_api_key"), ("401: Bad key", "--api-key-env")),
        (error_answer(404, "The model 'scripted-1' does not exist", "model_not_found"), ("correct --upstream-model",)),
        (error_answer(500, "Out of order"), ("Out of order",)),
        (Reply(body=chat_answer("")), ("replies were empty",)),
        (Reply(body="<html>hello</html>", headers={"content-type": "text/html"}), ("no answer in OpenAI's form",)),
        (Reply(body=b"x" * (5 * 2**20)), ("goes on after 4 MiB",)),
        (error_answer(429, "You have no credit", "insufficient_quota"), ("no credit",)),
    ],
    ids=["wrong key", "wrong model", "broken", "empty", "html", "endless", "quota"],
)
async def test_a_measurement_that_cannot_be_made_says_why_and_leaves_the_model_routable(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, file: Path, reply: Reply, words: tuple[str, ...]
) -> None:
    upstream.always(reply)
    job = await ended(client, await add(client, upstream, file))
    assert job["state"] == "failed"
    assert all(word in job["error"] for word in (*words, "stays routable by its declared figures"))
    assert not await is_measured(client)


async def test_an_endpoint_that_is_down_fails_the_job_and_resuming_finishes_it(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, file: Path
) -> None:
    await upstream.stop()
    job = await ended(client, await add(client, upstream, file))
    assert "refused the connection" in job["error"]
    await upstream.start()
    assert (await client.post(f"/admin/jobs/{job['id']}/resume")).status_code == 202
    assert (await ended(client, job["id"]))["state"] == "done"
    assert await is_measured(client)


async def test_a_broken_suite_file_is_named_with_its_line(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, file: Path
) -> None:
    file.write_text(file.read_text() + "\n{broken")
    job = await ended(client, await add(client, upstream, file))
    assert "numbers.jsonl, line 26: not JSON" in job["error"]


async def test_a_cap_stops_the_job_and_a_higher_one_goes_on_without_repeating(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, file: Path, suite: Suite
) -> None:
    model = AnsweringModel(suite)
    upstream.always(model)
    job = await ended(client, await add(client, upstream, file, max_calls=12, probes=False, concurrency=3))
    assert "cap of 12 calls" in job["error"]
    assert not await is_measured(client)
    await client.post(f"/admin/jobs/{job['id']}/resume", json={"max_calls": 100})
    assert (await ended(client, job["id"]))["state"] == "done"
    assert set(model.asked.values()) == {1}


async def test_a_job_is_cancelled_within_two_seconds_and_changes_nothing(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, file: Path, suite: Suite
) -> None:
    upstream.always(AnsweringModel(suite, delay_s=0.3))
    job_id = await add(client, upstream, file, concurrency=1)
    await upstream.wait_for_requests(3)
    assert (await client.delete(f"/admin/jobs/{job_id}")).json()["state"] == "cancelled"
    await asyncio.sleep(2.0)
    asked = len(upstream.requests)
    await asyncio.sleep(0.7)
    assert len(upstream.requests) == asked
    assert not await is_measured(client)


async def test_measuring_again_asks_afresh_and_tells_the_drift(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, file: Path, suite: Suite
) -> None:
    await ended(client, await add(client, upstream, file))
    upstream.always(AnsweringModel(suite, lambda item: False))
    job = (await client.post("/admin/models/new/reprofile", json={"suite": str(file), "full": True})).json()
    drift = (await ended(client, job["id"]))["progress"]["card"]["drift"]
    assert (drift["is_drift"], drift["worse"], drift["items"]) == (True, 15, 20)
    assert "has changed" in drift["words"]


async def test_one_measurement_of_a_model_at_a_time(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, file: Path, suite: Suite
) -> None:
    upstream.always(AnsweringModel(suite, delay_s=0.3))
    job_id = await add(client, upstream, file)
    same = await client.post("/admin/models/new/aptitude", json={"suite": str(file), "full": True})
    assert same.json()["id"] == job_id
    other = await client.post("/admin/models/new/aptitude", json={"suite": str(file), "budget": 5})
    assert (other.status_code, job_id in other.json()["error"]["message"]) == (409, True)
    await client.delete(f"/admin/jobs/{job_id}")


async def test_a_model_added_on_the_command_line_is_measured_however_old_the_gateways_snapshot_is(
    client: httpx.AsyncClient, gateway: LiveGateway, upstream: ScriptedUpstream, file: Path, tmp_path: Path
) -> None:
    watcher = gateway.services.registry._poller
    assert watcher is not None
    watcher.cancel()
    command = [sys.executable, "-m", "gateway.cli.main", "models", "add", "new", "--base-url", upstream.base_url]
    options = ["--upstream-model", "scripted-1", "--suite", str(file), "--full", "--json"]
    environment = {**os.environ, "ORBWEAVER_STATE_DIR": str(tmp_path / "state")}
    process = await asyncio.create_subprocess_exec(
        *command, *options, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    job = await ended(client, json.loads(out)["job"])
    assert job["state"] == "done", job["error"]
    assert await is_measured(client)


async def test_a_run_killed_in_the_middle_repeats_no_call_and_gives_the_same_profile(
    tmp_path: Path, file: Path, suite: Suite
) -> None:
    model = AnsweringModel(suite, lambda item: item.shot % 3 != 0, delay_s=0.15)
    async with ScriptedUpstream() as upstream:
        upstream.always(model)
        folder = tmp_path / "killed"
        arguments = ("new", "--suite", str(file), "--full", "--concurrency", "2", "--json")
        await _orbweaver(folder, "models", "add", "new", "--base-url", upstream.base_url, "--no-aptitude")
        doomed = await _start(folder, "aptitude", "run", *arguments)
        async with asyncio.timeout(30):
            while model.asked.total() - model.asked["probe"] < 9:
                await asyncio.sleep(0.01)
        doomed.send_signal(signal.SIGKILL)
        await doomed.communicate()
        kept = _stored_items(folder)
        before = dict(model.asked)
        await _orbweaver(folder, "aptitude", "run", *arguments)
        assert len(kept) >= 5
        by_hash = {item.hash: item.id for item in suite.items}
        assert all(model.asked[by_hash[item]] == before[by_hash[item]] for item in kept)
        undisturbed = tmp_path / "undisturbed"
        await _orbweaver(undisturbed, "models", "add", "new", "--base-url", upstream.base_url, "--no-aptitude")
        await _orbweaver(undisturbed, "aptitude", "run", *arguments)
    assert _profile(folder) == _profile(undisturbed)
    assert len(_profile(folder)["answers"]) == 20


async def _start(folder: Path, *arguments: str) -> asyncio.subprocess.Process:
    folder.mkdir(exist_ok=True)
    environment = {
        **os.environ,
        "ORBWEAVER_STATE_DIR": str(folder / "state"),
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    (folder / "orbweaver.yaml").write_text(json.dumps(PRIOR))
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVE, *arguments, cwd=folder, env=environment, stdout=pipe, stderr=pipe
    )


async def _orbweaver(folder: Path, *arguments: str) -> None:
    process = await _start(folder, *arguments)
    out, err = await process.communicate()
    assert process.returncode == 0, (out + err).decode()


def _stored_items(folder: Path) -> set[str]:
    with sqlite3.connect(answers_path(folder / "state")) as connection:
        return {row[0] for row in connection.execute("SELECT item FROM answers")}


def _profile(folder: Path) -> dict[str, Any]:
    with sqlite3.connect(folder / "state" / "registry.db") as connection:
        found: dict[str, Any] = json.loads(connection.execute("SELECT body FROM profiles").fetchone()[0])
        return found
