"""The registry locked, corrupt, missing or away: requests go on with the last known state, and it is said."""

from __future__ import annotations

import logging
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.errors import ConfigError, RegistryError
from gateway.registry.database import Database, parse_url
from gateway.registry.registry import Registry
from tests.support.registry import candidate, declared, settings_in, until
from tests.support.servers import postgres_binaries, postgres_server

OPEN = "import sys; from gateway.registry.database import Database; Database(sys.argv[1]).open(); print('open')"


async def test_a_corrupt_file_leaves_the_config_file_in_force_and_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "registry.db").write_bytes(b"this is no database at all, but text" * 100)
    async with Registry(settings_in(tmp_path, candidates=[declared()])) as registry:
        assert list(registry.snapshot.enabled) == ["small"]
        assert registry.problem is not None
        assert "corrupt" in registry.problem
        assert str(tmp_path / "registry.db") in registry.problem
        assert not registry.loaded
        with pytest.raises(RegistryError, match="corrupt"):
            await registry.put_candidate(candidate("other"))
    assert [record.levelname for record in caplog.records if "corrupt" in record.message] == ["ERROR"]


async def test_a_repaired_file_is_taken_up_without_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    path.write_bytes(b"broken" * 1000)
    async with Registry(settings_in(tmp_path)) as registry:
        path.unlink()
        await until(lambda: registry.problem is None)
        await registry.put_candidate(candidate())
    assert registry.loaded


async def test_a_file_damaged_in_use_leaves_the_last_known_state_in_force(tmp_path: Path) -> None:
    async with Registry(settings_in(tmp_path)) as registry:
        await registry.put_candidate(candidate())
        registry.database.close()
        for file in tmp_path.glob("registry.db*"):
            file.write_bytes(b"\0garbage" * 4000)
        await until(lambda: registry.problem is not None)
        assert list(registry.snapshot.enabled) == ["small"]


async def test_a_file_restored_from_a_backup_is_taken_as_it_is(tmp_path: Path) -> None:
    path, backup = tmp_path / "registry.db", tmp_path / "backup.db"
    async with Registry(settings_in(tmp_path)) as registry:
        await registry.put_candidate(candidate("kept"))
        with sqlite3.connect(path) as source, sqlite3.connect(backup) as target:
            source.backup(target)
        source.close()
        target.close()
        await registry.put_candidate(candidate("later"))
        registry.database.close()
        for file in tmp_path.glob("registry.db*"):
            file.unlink()
        backup.rename(path)
        await until(lambda: list(registry.snapshot.candidates) == ["kept"])


async def test_a_locked_file_is_said_to_be_locked_and_works_again_afterwards(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with Registry(settings) as registry:
        registry.database._lock_wait_s = 0.1
        registry.database.close()
        locker = sqlite3.connect(tmp_path / "registry.db", isolation_level=None)
        locker.execute("BEGIN EXCLUSIVE")
        with pytest.raises(RegistryError, match="locked by another process") as caught:
            await registry.put_candidate(candidate())
        assert caught.value.status == 503
        locker.execute("ROLLBACK")
        locker.close()
        await registry.put_candidate(candidate())
        assert list(registry.snapshot.enabled) == ["small"]


async def test_a_database_that_does_not_answer_does_not_hold_up_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.registry.registry.START_WAIT_S", 0.2)
    locker = sqlite3.connect(tmp_path / "registry.db", isolation_level=None)
    locker.execute("PRAGMA journal_mode = WAL").fetchone()
    locker.execute("BEGIN IMMEDIATE")
    async with Registry(settings_in(tmp_path, candidates=[declared()])) as registry:
        assert not registry.loaded
        assert list(registry.snapshot.enabled) == ["small"]
        locker.execute("ROLLBACK")
        locker.close()
        await until(lambda: registry.loaded, 15)
        await registry.put_candidate(candidate("other"))


async def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    async with Registry(settings_in(tmp_path / "file" / "state", candidates=[declared()])) as registry:
        assert registry.problem is not None
        assert "ORBWEAVER_STATE_DIR" in registry.problem
        assert list(registry.snapshot.enabled) == ["small"]


async def test_one_unreadable_entry_does_not_take_the_others_with_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with Registry(settings_in(tmp_path)) as registry:
        await registry.put_candidate(candidate("good"))
        await registry.put_candidate(candidate("bad"))
    with sqlite3.connect(tmp_path / "registry.db") as database:
        database.execute("UPDATE candidates SET body = '{}' WHERE name = 'bad'")
    database.close()
    async with Registry(settings_in(tmp_path)) as again:
        assert list(again.snapshot.candidates) == ["good"]
    assert any("'bad' cannot be read" in record.message for record in caplog.records)


def test_two_processes_starting_at_once_both_open_a_new_registry(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'new' / 'registry.db'}"
    starts = [
        subprocess.Popen([sys.executable, "-c", OPEN, url], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    answers = [start.communicate(timeout=60) for start in starts]
    assert [out.strip() for out, _ in answers] == [b"open"] * 3, answers


def test_threads_opening_one_new_registry_wait_for_each_other(tmp_path: Path) -> None:
    databases = [Database(f"sqlite:///{tmp_path / 'registry.db'}") for _ in range(4)]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(Database.open, databases))
    for database in databases:
        database.close()


def test_a_schema_of_a_newer_release_is_refused_with_the_reason(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'registry.db'}"
    database = Database(url)
    database.open()
    database.close()
    with sqlite3.connect(tmp_path / "registry.db") as raw:
        raw.execute("UPDATE alembic_version SET version_num = '9999'")
    raw.close()
    with pytest.raises(RegistryError, match="newer Orbweaver"):
        Database(url).open()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("mysql://root@localhost/x", "does not speak"),
        ("nonsense", "not a database URL"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
    ],
)
def test_a_wrong_database_url_is_refused_with_the_fix(url: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_url(url)


def test_a_postgresql_url_gets_its_driver_and_never_shows_its_password() -> None:
    database = Database("postgresql://user:secret@db.example/registry")
    assert parse_url("postgres://user@db.example/x").drivername == "postgresql+psycopg"
    assert "secret" not in database.place


async def test_postgresql_gone_and_back_is_survived(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    if postgres_binaries() is None:
        pytest.skip("PostgreSQL is not installed")
    with postgres_server() as server:
        caplog.set_level(logging.WARNING)
        async with Registry(settings_in(tmp_path, database_url=server.url)) as registry:
            await registry.put_candidate(candidate())
            server.stop()
            await until(lambda: registry.problem is not None, 20)
            assert list(registry.snapshot.enabled) == ["small"]
            server.start()
            await until(lambda: registry.problem is None, 20)
            await registry.put_candidate(candidate("second"))
    assert sum("can be read again" in record.message for record in caplog.records) == 1
