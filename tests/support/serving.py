"""Runs `orbweaver serve` as a real process on a free port, for tests of signals, restarts and several processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

START_S = 40.0
END_S = 30.0
CHAT = "/v1/chat/completions"
SERVE = "from gateway.cli.main import main; main()"


@dataclass
class Serving:
    """A running gateway. `log` is the file with everything it wrote to its standard error."""

    process: asyncio.subprocess.Process
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    async def ended(self, within_s: float = END_S) -> int:
        """Wait for the end; gives the exit status."""
        async with asyncio.timeout(within_s):
            return await self.process.wait()

    async def kill(self) -> None:
        """As a crash or the kernel would."""
        self.process.kill()
        await self.process.wait()


@asynccontextmanager
async def serving(
    folder: Path,
    candidates: Sequence[dict[str, Any]],
    *arguments: str,
    script: str = SERVE,
    **sections: Any,
) -> AsyncIterator[Serving]:
    """A gateway with this config, its state in `folder / "state"`, accepting requests; killed at the end.

    Args:
        arguments: further ones for `orbweaver serve`.
        script: what the process runs instead of the command line's own entry point.
        sections: further sections of the config file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    usual = {"discover": False, "state_dir": str(folder / "state"), "routing": {"scorer": "prior"}}
    config = folder / "orbweaver.yaml"
    config.write_text(json.dumps({**usual, "candidates": list(candidates), **sections}))
    log = folder / "serve.log"
    with log.open("ab") as errors:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-c", script, "serve", "--config", str(config), "--port", "0", "--json", *arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            cwd=folder,
            env=_environment(),
        )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(START_S):
            line = await process.stdout.readline()
        assert line, f"the gateway ended instead of starting:\n{log.read_text()}"
        yield Serving(process, int(json.loads(line)["address"].rpartition(":")[2]), log)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def _environment() -> dict[str, str]:
    """The test's own, but the state folder is the config file's."""
    kept = {name: value for name, value in os.environ.items() if name != "ORBWEAVER_STATE_DIR"}
    return {**kept, "PYTHONPATH": str(Path(__file__).parents[2])}


def candidate(name: str, base_url: str, **fields: Any) -> dict[str, Any]:
    """A candidate of the config file."""
    return {"name": name, "base_url": base_url, "upstream_model": "scripted-1", **fields}


async def chat(
    gateway: Serving, session: aiohttp.ClientSession, model: str = "small", *, key: str | None = None, **fields: Any
) -> tuple[int, dict[str, Any]]:
    """One chat request; status and body."""
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], **fields}
    async with session.post(gateway.url + CHAT, json=body, headers=headers) as answer:
        return answer.status, await answer.json()


async def admin(
    gateway: Serving, session: aiohttp.ClientSession, method: str, path: str, body: Any = None
) -> dict[str, Any]:
    """One call of the admin API that must succeed."""
    async with session.request(method, f"{gateway.url}/admin{path}", json=body) as answer:
        assert answer.status < 300, await answer.text()
        found: dict[str, Any] = await answer.json()
        return found


async def until_status(
    wanted: int, gateway: Serving, session: aiohttp.ClientSession, within_s: float, **request: Any
) -> None:
    """Ask until the status is the wanted one."""
    async with asyncio.timeout(within_s):
        while (await chat(gateway, session, **request))[0] != wanted:
            await asyncio.sleep(0.05)
