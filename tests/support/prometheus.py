"""A real Prometheus that scrapes a gateway often, with the shipped rules loaded."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml

PROMETHEUS = shutil.which("prometheus")
PROMTOOL = shutil.which("promtool")
DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
SCRAPE_INTERVAL = "250ms"


@dataclass
class Prometheus:
    """Its HTTP API."""

    url: str
    session: aiohttp.ClientSession

    async def query(self, expression: str) -> list[dict[str, Any]]:
        """The instant vector of an expression. Raises ValueError where Prometheus refuses it."""
        return await self._ask("query", {"query": expression})

    async def query_range(self, expression: str, *, start: float, end: float) -> list[dict[str, Any]]:
        """The series of an expression, a point every half second. Raises ValueError where Prometheus refuses it."""
        return await self._ask("query_range", {"query": expression, "start": start, "end": end, "step": 0.5})

    async def rules(self) -> list[dict[str, Any]]:
        """All rules with their health and last error."""
        async with self.session.get(f"{self.url}/api/v1/rules") as answer:
            groups = (await answer.json())["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    async def _ask(self, kind: str, params: dict[str, Any]) -> list[dict[str, Any]]:
        async with self.session.get(f"{self.url}/api/v1/{kind}", params=params) as answer:
            data = await answer.json()
        if data["status"] != "success":
            raise ValueError(f"{data['error']}: {params['query']}")
        result: list[dict[str, Any]] = data["data"]["result"]
        return result


@contextlib.asynccontextmanager
async def prometheus(folder: Path, target: str) -> AsyncIterator[Prometheus]:
    """Prometheus with the shipped configuration, pointed at `target` (host:port) and in a hurry."""
    assert PROMETHEUS is not None, "prometheus is not installed"
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": SCRAPE_INTERVAL, "evaluation_interval": "500ms"}
    config["rule_files"] = [str(DEPLOY / "prometheus" / name) for name in config["rule_files"]]
    config["scrape_configs"][0]["static_configs"][0]["targets"] = [target]
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(config))
    port = _free_port()
    command = [
        PROMETHEUS,
        f"--config.file={path}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--query.lookback-delta=5s",
        "--log.level=warn",
    ]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        async with aiohttp.ClientSession() as session:
            await _until_ready(session, port, process, folder / "prometheus.log")
            yield Prometheus(f"http://127.0.0.1:{port}", session)
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait, 20)


async def _until_ready(session: aiohttp.ClientSession, port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    async with asyncio.timeout(30):
        while True:
            if process.poll() is not None:
                raise RuntimeError(f"prometheus ended: {log.read_text()}")
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get(f"http://127.0.0.1:{port}/-/ready") as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(0.1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
