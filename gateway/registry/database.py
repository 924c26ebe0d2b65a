"""One database behind the registry: SQLite (WAL) or PostgreSQL, migrated when opened. Synchronous; for threads.

Every failure leaves as `RegistryError` with the place (never the password) and what would fix it.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.errors import ConfigError, RegistryError

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine
    from sqlalchemy.engine import URL
    from sqlalchemy.exc import DBAPIError

LOCK_WAIT_S = 2.0
MIGRATION_WAIT_S = 30.0
ADVISORY_LOCK = 0x6F72_6277  # any number will do, as long as every gateway takes the same one
# alembic keeps the running migration in module globals.
_one_migration = threading.Lock()


class Database:
    """Opens lazily: `open` (or the first `read`/`write`) connects and migrates; a failed open may be tried again.

    Args:
        url: `sqlite:///path` or `postgresql://user@host/name`.
        lock_wait_s: how long a statement waits for another process's lock.
    """

    def __init__(self, url: str, *, lock_wait_s: float = LOCK_WAIT_S) -> None:
        self._given = url
        self._lock_wait_s = lock_wait_s
        self._engine: Engine | None = None
        self._opening = threading.Lock()

    @property
    def place(self) -> str:
        """Where the data lives, fit for logs: a path, or the URL without its password."""
        url = parse_url(self._given)
        return str(url.database) if url.get_backend_name() == "sqlite" else url.render_as_string(hide_password=True)

    def open(self) -> None:
        """Connect and bring the schema up to date. Raises RegistryError or ConfigError."""
        with self._opening:
            if self._engine is not None:
                return
            url = parse_url(self._given)
            engine = self._sqlite(url) if url.get_backend_name() == "sqlite" else self._postgresql(url)
            try:
                with self._explained():
                    migrate(engine)
            except BaseException:
                engine.dispose()
                raise
            self._engine = engine

    def _opened(self) -> Engine:
        engine = self._engine
        if engine is None:
            self.open()
            engine = self._engine
        if engine is None:
            raise RegistryError("The registry was closed.", status=503)
        return engine

    def close(self) -> None:
        """Drop all connections; a later use opens again."""
        with self._opening:
            if self._engine is not None:
                self._engine.dispose()
                self._engine = None

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection in one consistent read transaction. Raises RegistryError."""
        engine = self._opened()
        with self._explained(), engine.begin() as connection:
            yield connection

    @contextlib.contextmanager
    def write(self) -> Iterator[Connection]:
        """A connection in a write transaction, committed at the end. Raises RegistryError."""
        engine = self._opened()
        with self._explained(), engine.execution_options(writes=True).begin() as connection:
            yield connection

    def _sqlite(self, url: URL) -> Engine:
        from sqlalchemy import create_engine, event

        assert url.database is not None
        folder = Path(url.database).absolute().parent
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise RegistryError(
                f"The registry's folder {str(folder)!r} cannot be made: {error.strerror}.",
                hint="Set ORBWEAVER_STATE_DIR or database_url to a place that can be written.",
                status=503,
            ) from None
        engine = create_engine(url, connect_args={"timeout": self._lock_wait_s}, pool_size=4, max_overflow=4)

        @event.listens_for(engine, "connect")
        def configure(connection: Any, _record: Any) -> None:
            # The driver must not open transactions of its own: a read that turns into a write would fail at once
            # with "database is locked" instead of waiting.
            connection.isolation_level = None
            _use_wal(connection, self._lock_wait_s)
            connection.execute("PRAGMA synchronous = NORMAL")

        @event.listens_for(engine, "begin")
        def begin(connection: Connection) -> None:
            writes = connection.get_execution_options().get("writes")
            connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

        return engine

    def _postgresql(self, url: URL) -> Engine:
        from sqlalchemy import create_engine

        wait_ms = int(self._lock_wait_s * 1000)
        return create_engine(
            url,
            pool_size=3,
            max_overflow=5,
            pool_timeout=5,
            pool_pre_ping=True,
            connect_args={
                "connect_timeout": 3,
                "tcp_user_timeout": 5000,
                # A server that vanished before its answer is noticed in 25 s, not in the two hours of the system.
                "keepalives_idle": 10,
                "keepalives_interval": 5,
                "keepalives_count": 3,
                "options": f"-c lock_timeout={wait_ms} -c statement_timeout=10000",
            },
        )

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        from sqlalchemy.exc import DBAPIError, SQLAlchemyError

        try:
            yield
        except DBAPIError as error:
            raise self._explain(error) from error
        except SQLAlchemyError as error:
            raise RegistryError(f"The registry {self.place!r} failed: {error}.", status=503) from error

    def _explain(self, error: DBAPIError) -> RegistryError:
        """The driver's words as one sentence with a fix."""
        from sqlalchemy.exc import DataError, IntegrityError, ProgrammingError

        words = str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else type(error.orig).__name__
        place = self.place
        if isinstance(error, DataError | IntegrityError | ProgrammingError):
            return RegistryError(f"The registry {place!r} refused a value ({words}).", code="registry_rejected")
        if "locked" in words or "lock timeout" in words:
            return RegistryError(
                f"The registry {place!r} is locked by another process.",
                hint="It is tried again; if it stays so, find the process that holds the lock.",
                code="registry_locked",
                status=503,
            )
        if "not a database" in words or "malformed" in words or "disk image" in words:
            return RegistryError(
                f"The registry file {place!r} is corrupt ({words}).",
                hint="Restore it from a backup, or move it away to start with an empty registry.",
                code="registry_corrupt",
                status=503,
            )
        if "unable to open" in words or "readonly" in words or "read-only" in words:
            return RegistryError(
                f"The registry file {place!r} cannot be opened for writing ({words}).",
                hint="Check the path, its owner and the free space.",
                code="registry_unavailable",
                status=503,
            )
        return RegistryError(
            f"The registry {place!r} cannot be used: {words.rstrip('.')}.",
            hint="Check that the database is up and database_url is right.",
            code="registry_unavailable",
            status=503,
        )


def parse_url(text: str) -> URL:
    """The URL with the driver filled in. Raises ConfigError for anything but SQLite files and PostgreSQL."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(text)
    except ArgumentError:
        raise ConfigError(
            "database_url is not a database URL.",
            hint="For example sqlite:///registry.db or postgresql://user@host/db.",
        ) from None
    if url.drivername in ("postgresql", "postgres", "postgresql+psycopg"):
        return url.set(drivername="postgresql+psycopg")
    if url.get_backend_name() != "sqlite":
        raise ConfigError(
            f"database_url names {url.drivername!r}, which the registry does not speak.",
            hint="Use sqlite:///path or postgresql://user@host/db.",
        )
    if not url.database or url.database == ":memory:":
        raise ConfigError("database_url names no file.", hint="Write sqlite:///path/to/registry.db.")
    return url.set(drivername="sqlite+pysqlite")


def _use_wal(connection: Any, wait_s: float) -> None:
    """Switch a SQLite file to WAL. The switch does not wait for other processes by itself, so it is tried again."""
    import sqlite3

    deadline = time.monotonic() + wait_s
    while connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            connection.execute("PRAGMA journal_mode = WAL").fetchone()
            return
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def migrate(engine: Engine) -> None:
    """Bring the schema to `HEAD`; cheap where it is there already, and safe while other processes do the same."""
    from gateway.registry.migrations import HEAD

    if _revision(engine) == HEAD:
        return
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    try:
        with _one_migration, _migration_transaction(engine) as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except CommandError as error:
        raise RegistryError(
            f"The registry's schema does not fit this release ({error}).",
            hint="It was written by a newer Orbweaver: update this one, or use another database_url.",
            code="registry_schema",
            status=503,
        ) from error


@contextlib.contextmanager
def _migration_transaction(engine: Engine) -> Iterator[Connection]:
    """A transaction that only one process at a time can hold; others wait for it instead of failing."""
    with engine.connect().execution_options(writes=True) as connection:
        if engine.dialect.name == "sqlite":
            usual = _set_busy_timeout(connection, int(MIGRATION_WAIT_S * 1000))
            try:
                with connection.begin():
                    yield connection
            finally:
                _set_busy_timeout(connection, usual)
            return
        with connection.begin():
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = {int(MIGRATION_WAIT_S * 1000)}")
            connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({ADVISORY_LOCK})")
            yield connection


def _set_busy_timeout(connection: Connection, milliseconds: int) -> int:
    """How long this SQLite connection waits for another process; the old value. Outside of a transaction only."""
    driver = connection.connection.dbapi_connection
    assert driver is not None
    cursor = driver.cursor()
    old = int(cursor.execute("PRAGMA busy_timeout").fetchone()[0])
    cursor.execute(f"PRAGMA busy_timeout = {milliseconds}")
    return old


def _revision(engine: Engine) -> str | None:
    """The revision of the schema that is there, None where there is none."""
    from sqlalchemy import inspect

    with engine.connect() as connection:
        if not inspect(connection).has_table("alembic_version"):
            return None
        row = connection.exec_driver_sql("SELECT version_num FROM alembic_version").first()
    return None if row is None else str(row[0])
