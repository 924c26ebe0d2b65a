"""A gateway with one model `small` over a scripted upstream, and clients that talk to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI

from gateway.routing.prior import PriorScorer
from tests.support.live_gateway import LiveGateway, gateway_settings, live_gateway
from tests.support.scripted_upstream import Reply, ScriptedUpstream

ASK = [{"role": "user", "content": "Say hello."}]
UPSTREAM_KEY = "sk-upstream-secret"


@dataclass
class Wire:
    """The three ends of a test: the upstream that plays the script, the gateway, and two kinds of client."""

    upstream: ScriptedUpstream
    gateway: LiveGateway
    sdk: AsyncOpenAI
    http: httpx.AsyncClient

    async def chat(self, *script: Reply, headers: dict[str, str] | None = None, **fields: Any) -> httpx.Response:
        """A raw chat request for `small`; `script` is what the upstream plays."""
        self.upstream.script(*script)
        body = {"model": "small", "messages": ASK, **fields}
        return await self.http.post("/v1/chat/completions", json=body, headers=headers)


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as upstream:
        yield upstream


@pytest.fixture
async def wire(upstream: ScriptedUpstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Wire]:
    monkeypatch.setenv("SCRIPTED_KEY", UPSTREAM_KEY)
    small = {
        "name": "small",
        "base_url": upstream.base_url,
        "upstream_model": "scripted-1",
        "api_key_env": "SCRIPTED_KEY",
        "context_window": 32_768,
        "can": ["tools", "vision", "json_schema", "logprobs", "n"],
        "endpoints": ["chat/completions", "completions", "embeddings", "responses"],
    }
    settings = gateway_settings(tmp_path, [small], retry={"retries": 0, "backoff_s": 0.0})
    async with (
        live_gateway(settings, scorer=PriorScorer()) as gateway,
        AsyncOpenAI(base_url=gateway.base_url, api_key="sk-client-secret", max_retries=0) as sdk,
        httpx.AsyncClient(base_url=gateway.url, timeout=20) as http,
    ):
        yield Wire(upstream, gateway, sdk, http)


def events_of(text: str) -> list[str]:
    """The data of each server-sent event of a whole stream."""
    return [
        "\n".join(line[5:].strip() for line in block.splitlines() if line.startswith("data:"))
        for block in text.replace("\r\n", "\n").split("\n\n")
        if "data:" in block
    ]
