"""What a real serving process has imported once it has answered: nothing that trains, and litellm only where needed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.scripted_anthropic import anthropic_reply
from tests.support.scripted_upstream import ScriptedUpstream
from tests.support.serving import SERVE, candidate, chat, serving

HEAVY = {"torch", "transformers", "sentence_transformers", "sklearn", "scipy", "pandas", "pyarrow", "matplotlib", "ray"}
REPORT = """
import atexit, json, pathlib, sys
def report():
    names = sorted({name.partition(".")[0] for name in sys.modules})
    pathlib.Path("modules.json").write_text(json.dumps(names))
atexit.register(report)
"""


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as upstream:
        yield upstream


async def modules_after(
    folder: Path, candidates: list[dict[str, Any]], model: str, **sections: Any
) -> tuple[set[str], dict[str, Any]]:
    """Top-level modules at the end of a process that answered for `model`, and what /v1/route says of `auto`."""
    async with (
        serving(folder, candidates, script=REPORT + SERVE, **sections) as gateway,
        aiohttp.ClientSession() as session,
    ):
        body = {"model": "auto", "messages": [{"role": "user", "content": "Hello"}]}
        async with asyncio.timeout(60):
            while True:
                async with session.post(gateway.url + "/v1/route", json=body) as answer:
                    decision = await answer.json()
                if not sections or not decision["prior"]:
                    break
                await asyncio.sleep(0.2)
        status, answered = await chat(gateway, session, model)
        assert status == 200, answered
        gateway.terminate()
        assert await gateway.ended() == 0
    return set(json.loads((folder / "modules.json").read_text())), decision


async def test_auto_with_the_trained_encoder_needs_no_training_packages(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    pool = [candidate(name, upstream.base_url) for name in ("small", "large")]
    modules, decision = await modules_after(tmp_path, pool, "auto", routing={"scorer": "auto"})
    assert decision["prior"] is False
    assert "onnxruntime" in modules
    assert not modules & (HEAVY | {"litellm"})


async def test_a_named_model_needs_neither_encoder_nor_litellm(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    modules, _ = await modules_after(tmp_path, [candidate("small", upstream.base_url)], "small")
    assert "aiohttp" in modules
    assert not modules & (HEAVY | {"litellm", "onnxruntime", "faiss", "httpx", "openai"})


@pytest.mark.slow
async def test_a_model_of_another_dialect_brings_litellm_and_still_nothing_that_trains(
    tmp_path: Path, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLAUDE_KEY", "sk-scripted")
    upstream.always(anthropic_reply)
    claude = {
        **candidate("claude", upstream.base_url.removesuffix("/v1")),
        "provider": "anthropic",
        "upstream_model": "claude-scripted",
        "api_key_env": "CLAUDE_KEY",
    }
    modules, _ = await modules_after(tmp_path, [claude], "claude")
    assert "litellm" in modules
    assert not modules & (HEAVY - {"pandas", "scipy"})
