"""The processes that are measured: started on free ports, watched through psutil, ended afterwards."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.bench.canned import chat_body

ORBWEAVER = Path(sys.executable).with_name("orbweaver")
START_LIMIT_S = 60.0
PRIOR = {"scorer": "prior"}
"""Routing without the trained encoder, for figures that are not about it."""


@dataclass
class Server:
    """One running server. `key` is the client key that requests to it carry."""

    name: str
    port: int
    process: subprocess.Popen[str]
    key: str | None = None

    def cpu_s(self) -> float:
        """CPU seconds of the process and its children so far, user and system."""
        root = psutil.Process(self.process.pid)
        return sum(_cpu_of(each) for each in (root, *root.children(recursive=True)))

    def rss_mib(self) -> float:
        """Resident memory of the process, in MiB."""
        return float(psutil.Process(self.process.pid).memory_info().rss / 2**20)


def _cpu_of(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


@contextlib.contextmanager
def mock_upstream() -> Iterator[Server]:
    """The cheap provider."""
    with _python("direct", "tests.bench.mock_upstream") as server:
        yield server


@contextlib.contextmanager
def bare_relay(upstream: Server) -> Iterator[Server]:
    """The reference relay in front of the provider."""
    with _python("bare relay", "tests.bench.bare_relay", f"http://127.0.0.1:{upstream.port}") as server:
        wait_for_answer(server, "mock-1")
        yield server


@contextlib.contextmanager
def gateway(
    upstream: Server, *, candidates: Sequence[Mapping[str, Any]] | None = None, **sections: Any
) -> Iterator[Server]:
    """`orbweaver serve` in a fresh state folder, with a client key that it demands.

    Args:
        candidates: as in the config file; `small` and `paced` if None. `base_url` is filled in.
        sections: further sections of the config file.
    """
    with tempfile.TemporaryDirectory(prefix="orbweaver-bench-", ignore_cleanup_errors=True) as folder:
        config = write_config(Path(folder), upstream, candidates, **sections)
        command = [str(ORBWEAVER), "serve", "--config", str(config), "--port", "0", "--json"]
        with _process(command, Path(folder)) as process:
            assert process.stdout is not None
            address = json.loads(process.stdout.readline())["address"]
            server = Server("gateway", int(address.rpartition(":")[2]), process)
            server.key = _create_key(address)
            wait_for_answer(server, "small")
            yield server


def write_config(
    folder: Path, upstream: Server, candidates: Sequence[Mapping[str, Any]] | None = None, **sections: Any
) -> Path:
    """A config file (JSON is YAML) in `folder`."""
    usual = ({"name": "small", "upstream_model": "mock-1"}, {"name": "paced", "upstream_model": "mock-paced"})
    base_url = f"http://127.0.0.1:{upstream.port}/v1"
    priced = {"price_in": 0.1, "price_out": 0.4, "context_window": 32768}
    config = {
        "server": {"host": "127.0.0.1", "client_keys": "required"},
        "candidates": [{"base_url": base_url, **priced, **each} for each in candidates or usual],
        "discover": False,
        **sections,
    }
    path = folder / "orbweaver.yaml"
    path.write_text(json.dumps(config))
    return path


def clean_environment(folder: Path) -> dict[str, str]:
    """The environment without settings and provider keys of this machine."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("ORBWEAVER_") and not k.endswith("_API_KEY")}
    kept.pop("PORT", None)
    return {**kept, "ORBWEAVER_STATE_DIR": str(folder / "state")}


def wait_for_answer(server: Server, model: str) -> None:
    """Ask until the first 200, without sleeping longer than 10 ms."""
    deadline = time.monotonic() + START_LIMIT_S
    while True:
        try:
            post(server, "/v1/chat/completions", chat_body(model))
            return
        except (urllib.error.URLError, ConnectionError):
            if time.monotonic() > deadline or server.process.poll() is not None:
                raise
            time.sleep(0.01)


def post(server: Server, path: str, body: bytes) -> bytes:
    """One request outside of the measurements."""
    headers = {"content-type": "application/json"}
    if server.key is not None:
        headers["authorization"] = f"Bearer {server.key}"
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", body, headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return bytes(answer.read())


def get(server: Server, path: str) -> str:
    """One GET outside of the measurements."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=30) as answer:
        return bytes(answer.read()).decode()


def litellm_proxy_problem() -> str | None:
    """Why LiteLLM's proxy cannot be measured beside us; None where it can."""
    missing = [name for name in ("litellm", "backoff", "apscheduler", "fastapi_sso") if not _is_installed(name)]
    if missing:
        return f"LiteLLM's proxy is not installed here (missing: {', '.join(missing)})"
    return None


def _is_installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _create_key(address: str) -> str:
    request = urllib.request.Request(
        f"{address}/admin/keys", json.dumps({"name": "bench"}).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return str(json.load(answer)["key"])


@contextlib.contextmanager
def _python(name: str, module: str, *arguments: str) -> Iterator[Server]:
    root = Path(__file__).resolve().parents[2]
    with _process([sys.executable, "-m", module, *arguments], root) as process:
        assert process.stdout is not None
        yield Server(name, int(process.stdout.readline()), process)


@contextlib.contextmanager
def _process(command: Sequence[str], folder: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=clean_environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
