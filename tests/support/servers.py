"""Real Redis and PostgreSQL servers for tests: in a folder of their own, on Unix sockets, so no port can be taken."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

POSTGRES_BIN = Path("/usr/lib/postgresql")


@dataclass
class RedisServer:
    """A `redis-server` that a test may stop, freeze and start again."""

    folder: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.folder / 'redis.sock'}"

    def start(self) -> None:
        binary = shutil.which("redis-server")
        assert binary is not None
        socket = self.folder / "redis.sock"
        self.process = subprocess.Popen(
            [binary, "--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(self.folder)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for(lambda: socket.exists() and _answers(binary, socket), "redis-server")

    def stop(self) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
            self.process = None

    def freeze(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)


def _answers(binary: str, socket: Path) -> bool:
    client = Path(binary).with_name("redis-cli")
    if not client.exists():
        return True
    return b"PONG" in subprocess.run([client, "-s", str(socket), "ping"], capture_output=True, check=False).stdout


@contextlib.contextmanager
def redis_server() -> Iterator[RedisServer]:
    """A fresh Redis; stopped at the end."""
    with _short_folder() as folder:
        server = RedisServer(folder)
        server.start()
        try:
            yield server
        finally:
            server.stop()


def redis_is_installed() -> bool:
    return shutil.which("redis-server") is not None


@dataclass
class PostgresServer:
    """A PostgreSQL cluster that a test may stop and start again; `url` fits `database_url`."""

    folder: Path
    binaries: Path
    user: str | None
    databases: int = 0

    @property
    def url(self) -> str:
        return f"postgresql://orbweaver@/postgres?host={self.folder}"

    def fresh_database(self) -> str:
        """The URL of a new, empty database."""
        self.databases += 1
        name = f"fresh{self.databases}"
        self._run("createdb", "-h", str(self.folder), "-U", "orbweaver", name)
        return f"postgresql://orbweaver@/{name}?host={self.folder}"

    def start(self) -> None:
        options = f"-c listen_addresses='' -c unix_socket_directories={self.folder} -c fsync=off -c shared_buffers=16MB"
        self._run(
            "pg_ctl", "-D", str(self.folder / "data"), "-l", str(self.folder / "log"), "-w", "-o", options, "start"
        )

    def stop(self) -> None:
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "-w", "stop")

    def freeze(self) -> None:
        """Stop answering without closing a connection, as a machine that hangs does."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        import psutil  # type: ignore[import-untyped]

        main = psutil.Process(int((self.folder / "data" / "postmaster.pid").read_text().splitlines()[0]))
        for process in (main, *main.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def initialise(self) -> None:
        self._run("initdb", "-D", str(self.folder / "data"), "-U", "orbweaver", "--auth", "trust", "--no-sync")

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self.binaries / program, *arguments],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            user=self.user,
            group=None if self.user is None else pwd.getpwnam(self.user).pw_gid,
            extra_groups=None if self.user is None else [],
            cwd=self.folder,
        )


@contextlib.contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """A fresh PostgreSQL, run by another user where the tests run as root (it refuses root); stopped at the end."""
    binaries = postgres_binaries()
    assert binaries is not None
    with _short_folder() as folder:
        user = None
        if os.geteuid() == 0:
            user = "nobody"
            os.chown(folder, pwd.getpwnam(user).pw_uid, pwd.getpwnam(user).pw_gid)
        server = PostgresServer(folder, binaries, user)
        server.initialise()
        server.start()
        try:
            yield server
        finally:
            with contextlib.suppress(subprocess.CalledProcessError):
                server.stop()


def postgres_binaries() -> Path | None:
    """The folder of the newest PostgreSQL server installed; None without one."""
    on_path = shutil.which("initdb")
    if on_path is not None:
        return Path(on_path).resolve().parent
    found = sorted(POSTGRES_BIN.glob("*/bin/initdb"))
    return found[-1].parent if found else None


@contextlib.contextmanager
def _short_folder() -> Iterator[Path]:
    """A folder whose path is short enough for a Unix socket (108 bytes)."""
    folder = Path(tempfile.mkdtemp(prefix="ow-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def wait_for(condition: object, what: str, seconds: float = 20.0) -> None:
    """Wait until a server is there; fails the test where it does not come."""
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come up in {seconds} s"
        time.sleep(0.02)
