"""Two registries on one database, SQLite and PostgreSQL: what one changes the other sees, and both survive restarts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.errors import Conflict, NotFound
from gateway.registry.records import Ability, ClientKey
from gateway.registry.registry import Registry
from tests.support.registry import candidate, declared, settings_in, until
from tests.support.servers import PostgresServer, postgres_binaries, postgres_server

Open = Callable[..., Awaitable[Registry]]
DRAFT = ClientKey(id="", name="team", key_hash="", prefix="", requests_per_minute=5, models=frozenset({"small"}))


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    if postgres_binaries() is None:
        pytest.skip("PostgreSQL is not installed")
    with postgres_server() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
async def open_registry(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Open]:
    """Opens one more registry on the test's database, with a config file of its own."""
    url = None
    if request.param == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres")
        url = server.fresh_database()
    async with AsyncExitStack() as stack:

        async def open_one(*config: dict[str, object]) -> Registry:
            registry = Registry(settings_in(tmp_path / "state", database_url=url, candidates=config))
            await stack.enter_async_context(registry)
            assert registry.problem is None
            return registry

        yield open_one


async def test_a_model_added_by_one_gateway_is_seen_by_the_other_within_a_second(open_registry: Open) -> None:
    first, second = await open_registry(), await open_registry()
    added = candidate(price_in=0.1, can=frozenset({Ability.TOOLS}), context_window=4096)
    await first.put_candidate(added)
    assert first.snapshot.candidates["small"] == added
    await until(lambda: "small" in second.snapshot.candidates, 1.0)
    assert second.snapshot.candidates["small"] == added


async def test_everything_survives_a_restart(open_registry: Open) -> None:
    first = await open_registry()
    await first.put_candidate(candidate())
    await first.put_profile("small", {"name": "small", "answers": []})
    _, secret = await first.create_key(DRAFT)
    await first.close()
    again = await open_registry()
    assert set(again.snapshot.candidates) == {"small"}
    assert again.snapshot.profiles == {"small": {"name": "small", "answers": []}}
    key = again.find_key(secret)
    assert key is not None
    assert (key.name, key.requests_per_minute, key.models) == ("team", 5, frozenset({"small"}))


async def test_the_secret_of_a_key_is_stored_nowhere(open_registry: Open, tmp_path: Path) -> None:
    registry = await open_registry()
    key, secret = await registry.create_key(DRAFT)
    assert secret.startswith("ow-")
    assert len(secret) == 46
    assert secret not in repr(key)
    stored = b"".join(file.read_bytes() for file in (tmp_path / "state").rglob("registry.db*"))
    assert secret.encode() not in stored


async def test_a_revoked_key_is_refused_everywhere_within_a_second(open_registry: Open) -> None:
    first, second = await open_registry(), await open_registry()
    key, secret = await first.create_key(DRAFT)
    await until(lambda: second.find_key(secret) is not None, 1.0)
    await first.revoke_key(key.id)
    await until(lambda: (found := second.find_key(secret)) is not None and found.revoked, 1.0)


async def test_two_gateways_adding_the_same_name_at_once_leave_one_entry(open_registry: Open) -> None:
    first, second = await open_registry(), await open_registry()
    answers = await asyncio.gather(
        first.put_candidate(candidate(price_in=1.0)),
        second.put_candidate(candidate(price_in=2.0)),
        return_exceptions=True,
    )
    assert sorted(isinstance(answer, Conflict) for answer in answers) == [False, True]


async def test_no_change_is_missed_while_two_gateways_write(open_registry: Open) -> None:
    first, second = await open_registry(), await open_registry()
    await asyncio.gather(
        *(first.create_key(replace(DRAFT, name=f"a{n}")) for n in range(15)),
        *(second.create_key(replace(DRAFT, name=f"b{n}")) for n in range(15)),
    )
    await until(lambda: len(first.snapshot.keys) == len(second.snapshot.keys) == 30, 2.0)
    assert first.snapshot.keys == second.snapshot.keys


async def test_a_registry_entry_overrides_the_config_file_and_says_so(open_registry: Open) -> None:
    registry = await open_registry(declared(price_in=1.0))
    await registry.put_candidate(candidate(price_in=9.0))
    assert registry.snapshot.candidates["small"].price_in == 9.0
    assert "overrides the config" in registry.snapshot.notes["small"]
    await registry.remove_candidate("small")
    assert registry.snapshot.candidates["small"].price_in == 1.0
    assert registry.snapshot.notes == {}


async def test_a_model_of_the_config_file_can_be_switched_off_but_not_removed(open_registry: Open) -> None:
    registry = await open_registry(declared())
    with pytest.raises(Conflict, match="config file"):
        await registry.remove_candidate("small")
    await registry.switch_candidate("small", False)
    again = await open_registry(declared())
    assert again.snapshot.enabled == {}
    await again.switch_candidate("small", True)
    assert list(again.snapshot.enabled) == ["small"]
    assert again.snapshot.notes == {}


async def test_an_unknown_name_is_told_the_near_ones(open_registry: Open) -> None:
    registry = await open_registry(declared("gpt-small"))
    with pytest.raises(NotFound, match="Did you mean 'gpt-small'"):
        await registry.switch_candidate("gpt-smal", False)


async def test_a_profile_is_read_again_only_where_it_changed(open_registry: Open) -> None:
    registry = await open_registry()
    for name in ("a", "b"):
        await registry.put_candidate(candidate(name))
        await registry.put_profile(name, {"answers": [name]})
    kept = registry.snapshot.profiles["a"]
    await registry.put_profile("b", {"answers": ["new"]})
    assert registry.snapshot.profiles["b"] == {"answers": ["new"]}
    assert registry.snapshot.profiles["a"] is kept
    await registry.remove_candidate("b")
    assert set(registry.snapshot.profiles) == {"a"}


async def test_a_job_keeps_its_progress_and_error(open_registry: Open) -> None:
    registry = await open_registry()
    job = await registry.create_job("aptitude", "small")
    await registry.update_job(replace(job, state="failed", progress={"done": 3}, error="no route", finished_at=7.0))
    again = await open_registry()
    found = await again.job(job.id)
    assert (found.state, found.progress, found.error, found.finished_at) == ("failed", {"done": 3}, "no route", 7.0)
    assert [each.id for each in await again.newest_jobs(subject="small")] == [job.id]
    with pytest.raises(NotFound):
        await again.job("job-of-nobody")


async def test_listeners_hear_of_changes_made_elsewhere(open_registry: Open) -> None:
    first, second = await open_registry(), await open_registry()
    heard: list[set[str]] = []
    second.subscribe(lambda snapshot: heard.append(set(snapshot.candidates)))
    await first.put_candidate(candidate())
    await until(lambda: heard == [{"small"}])
