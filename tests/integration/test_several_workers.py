"""`orbweaver serve --workers 2`: metrics and dashboard speak for the whole gateway, whichever worker is asked."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.scripted_upstream import ScriptedUpstream

REQUESTS = 24


@contextlib.asynccontextmanager
async def two_workers(folder: Path, base_url: str) -> AsyncIterator[str]:
    """The address of a gateway with two worker processes."""
    candidate = {"name": "small", "base_url": base_url, "price_in": 1, "price_out": 1}
    config = folder / "orbweaver.yaml"
    config.write_text(json.dumps({"candidates": [candidate], "discover": False, "state_dir": str(folder / "state")}))
    command = ["-m", "gateway.cli.main", "serve", "--config", str(config), "--port", "0", "--workers", "2", "--json"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, stdout=asyncio.subprocess.PIPE, env={**os.environ, "TMPDIR": "/tmp"}
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(30):
            yield json.loads(await process.stdout.readline())["address"]
    finally:
        process.terminate()
        await process.wait()


async def ask(address: str, path: str, body: object = None) -> tuple[int, str]:
    """One request on a connection of its own, so that any worker may get it."""
    method = "GET" if body is None else "POST"
    async with aiohttp.ClientSession() as session, session.request(method, address + path, json=body) as answer:
        return answer.status, await answer.text()


async def both_are_up(address: str) -> None:
    async with asyncio.timeout(40):
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                text = (await ask(address, "/metrics"))[1]
                if len({line for line in text.splitlines() if line.startswith("orbweaver_build_info")}) == 2:
                    return
            await asyncio.sleep(0.2)


@pytest.mark.slow
async def test_two_workers_count_as_one_gateway(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream, two_workers(tmp_path, upstream.base_url) as address:
        await both_are_up(address)
        body = {"model": "small", "messages": [{"role": "user", "content": "Hello"}]}
        answers = await asyncio.gather(*(ask(address, "/v1/chat/completions", body) for _ in range(REQUESTS)))
        assert {status for status, _ in answers} == {200}
        for _ in range(4):
            families = text_string_to_metric_families((await ask(address, "/metrics"))[1])
            samples = next(family.samples for family in families if family.name == "orbweaver_requests")
            assert sum(sample.value for sample in samples) == REQUESTS
            overview = json.loads((await ask(address, "/admin/overview"))[1])
            assert overview["totals"]["requests"] == REQUESTS
