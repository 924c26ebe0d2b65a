"""Real processes on one registry: a crash, two gateways side by side, and states that cannot be used."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.support.scripted_upstream import ScriptedUpstream
from tests.support.serving import admin, candidate, chat, serving, until_status

# A change is promised within 2 s; more only forgives a busy machine.
IN_FORCE_S = 4.0


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as upstream:
        yield upstream


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def test_models_keys_and_usage_survive_a_kill(
    tmp_path: Path, upstream: ScriptedUpstream, session: aiohttp.ClientSession
) -> None:
    async with serving(tmp_path, []) as gateway:
        await admin(gateway, session, "POST", "/models", candidate("hot", upstream.base_url))
        key = (await admin(gateway, session, "POST", "/keys", {"name": "anna"}))["key"]
        assert (await chat(gateway, session, "hot", key=key))[0] == 200
        await admin(gateway, session, "GET", "/decisions")  # waits until what is queued is written
        await gateway.kill()
    async with serving(tmp_path, []) as gateway:
        assert (await chat(gateway, session, "hot", key=key))[0] == 200
        assert (await chat(gateway, session, "hot", key="sk-wrong"))[0] == 401
        decisions = (await admin(gateway, session, "GET", "/decisions"))["decisions"]
        assert [each["model"] for each in decisions] == ["hot", "hot"]


async def test_a_change_in_one_process_is_in_force_in_the_other(
    tmp_path: Path, upstream: ScriptedUpstream, session: aiohttp.ClientSession
) -> None:
    shared = {"database_url": f"sqlite:///{tmp_path}/shared.db"}
    async with serving(tmp_path / "a", [], **shared) as one, serving(tmp_path / "b", [], **shared) as other:
        await admin(one, session, "POST", "/models", candidate("hot", upstream.base_url))
        await until_status(200, other, session, IN_FORCE_S, model="hot")
        made = await admin(other, session, "POST", "/keys", {"name": "anna", "models": ["hot"]})
        await until_status(401, one, session, IN_FORCE_S, model="hot", key="sk-wrong")
        assert (await chat(one, session, "hot", key=made["key"]))[0] == 200
        await admin(one, session, "DELETE", f"/keys/{made['id']}")
        await until_status(401, other, session, IN_FORCE_S, model="hot", key=made["key"])


async def test_another_process_that_locks_the_registry_holds_up_neither_start_nor_requests(
    tmp_path: Path, upstream: ScriptedUpstream, session: aiohttp.ClientSession
) -> None:
    small = [candidate("small", upstream.base_url)]
    async with serving(tmp_path, small) as gateway:
        assert (await chat(gateway, session))[0] == 200
        gateway.terminate()
        await gateway.ended()
    locker = await asyncio.create_subprocess_exec(
        sys.executable, "-c", LOCK, str(tmp_path / "state" / "registry.db"), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert locker.stdout is not None
        assert await locker.stdout.readline() == b"locked\n"
        async with serving(tmp_path, small) as gateway:
            assert (await chat(gateway, session))[0] == 200
            async with session.get(gateway.url + "/readyz") as answer:
                assert "locked" in await answer.text()
            locker.kill()
            await locker.wait()
            async with asyncio.timeout(10):
                while (await ready(gateway.url, session))["registry"] != "ok":
                    await asyncio.sleep(0.1)
    finally:
        if locker.returncode is None:
            locker.kill()
        await locker.communicate()


LOCK = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA locking_mode = EXCLUSIVE")
connection.execute("PRAGMA journal_mode = DELETE")
connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
time.sleep(60)
"""


async def test_a_registry_of_garbage_is_named_and_declared_models_answer(
    tmp_path: Path, upstream: ScriptedUpstream, session: aiohttp.ClientSession
) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "registry.db").write_bytes(b"garbage " * 4096)
    async with serving(tmp_path, [candidate("small", upstream.base_url)]) as gateway:
        assert (await chat(gateway, session))[0] == 200
        assert "corrupt" in (await ready(gateway.url, session))["registry"]
        async with session.post(gateway.url + "/admin/keys", json={"name": "anna"}) as answer:
            assert answer.status == 503
            assert "corrupt" in (await answer.json())["error"]["message"]
        gateway.terminate()
        assert await gateway.ended() == 0
    assert (tmp_path / "state" / "registry.db").read_bytes() == b"garbage " * 4096


async def test_a_state_folder_that_cannot_be_written_is_named_and_declared_models_answer(
    tmp_path: Path, upstream: ScriptedUpstream, session: aiohttp.ClientSession
) -> None:
    blocked = tmp_path / "a-file"
    blocked.write_text("in the way")
    state = str(blocked / "state")  # permissions would not stop root, a file does
    async with serving(tmp_path, [candidate("small", upstream.base_url)], state_dir=state) as gateway:
        assert (await chat(gateway, session))[0] == 200
        assert (await chat(gateway, session, "auto"))[0] == 200
        assert "cannot be made" in (await ready(gateway.url, session))["registry"]
        assert str(blocked) in gateway.log.read_text()


async def test_a_port_that_is_taken_is_said_with_the_fix(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    async with serving(tmp_path, [candidate("small", upstream.base_url)]) as gateway:
        second = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "gateway.cli.main", "serve", "--port", str(gateway.port)),
            stderr=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=tmp_path,
        )
        async with asyncio.timeout(30):
            _, errors = await second.communicate()
    assert second.returncode == 2
    assert f"Cannot listen on 127.0.0.1:{gateway.port}" in errors.decode()
    assert "--port" in errors.decode()
    assert "Traceback" not in errors.decode()


async def ready(url: str, session: aiohttp.ClientSession) -> dict[str, object]:
    async with session.get(url + "/readyz") as answer:
        found: dict[str, object] = await answer.json()
        return found
