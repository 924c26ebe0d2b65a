"""The lines on the first screen work when pasted."""

from __future__ import annotations

import asyncio
import shlex
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.greeting import things_to_try
from gateway.routing.prior import PriorScorer
from tests.support.live_gateway import LiveGateway, gateway_settings, live_gateway
from tests.support.scripted_upstream import ScriptedUpstream


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[LiveGateway]:
    async with ScriptedUpstream() as upstream:
        settings = gateway_settings(tmp_path, [{"name": "small", "base_url": upstream.base_url}])
        async with live_gateway(settings, scorer=PriorScorer()) as running:
            yield running


async def run(line: str) -> subprocess.CompletedProcess[str]:
    words = shlex.split(line)
    programs = {"python": [sys.executable], "orbweaver": [sys.executable, "-m", "gateway.cli.main"]}
    command = [*programs.get(words[0], [words[0]]), *words[1:]]
    return await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60, check=False)


async def test_every_line_of_the_first_screen_works(gateway: LiveGateway) -> None:
    curl, python, route = things_to_try(gateway.url, has_models=True)[1:]
    assert "Hello there." in (await run(curl)).stdout
    assert "Hello there." in (await run(python)).stdout
    assert "small" in (await run(route)).stdout


async def test_without_models_the_line_lists_none(gateway: LiveGateway) -> None:
    (line,) = things_to_try(gateway.url, has_models=False)
    assert '"object":"list"' in (await run(line.removeprefix("Try it:"))).stdout
