"""A caller's trace goes through the gateway to the provider, with and without span export."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest

from gateway.telemetry.tracing import TraceParent
from tests.support.live_gateway import gateway_settings, live_gateway
from tests.support.scripted_upstream import ScriptedUpstream

INCOMING = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
async def test_without_span_export_the_provider_gets_the_callers_own_header(tmp_path: Path, stream: bool) -> None:
    assert await sent_on(tmp_path, stream=stream) == INCOMING


async def test_with_span_export_the_provider_gets_the_callers_trace(tmp_path: Path) -> None:
    header = await sent_on(tmp_path, telemetry={"otlp_endpoint": "http://127.0.0.1:9"})
    sent, incoming = TraceParent.parse(header), TraceParent.parse(INCOMING)
    assert sent is not None
    assert incoming is not None
    assert sent.trace_id == incoming.trace_id
    assert sent.span_id != incoming.span_id


async def sent_on(folder: Path, *, stream: bool = False, **sections: object) -> str | None:
    """The `traceparent` that the provider receives for a request that carries INCOMING."""
    async with ScriptedUpstream() as upstream:
        settings = gateway_settings(folder, [{"name": "small", "base_url": upstream.base_url}], **sections)
        async with live_gateway(settings) as gateway, aiohttp.ClientSession() as session:
            body = {"model": "small", "stream": stream, "messages": [{"role": "user", "content": "Hello"}]}
            headers = {"traceparent": INCOMING}
            async with session.post(f"{gateway.base_url}/chat/completions", json=body, headers=headers) as answer:
                await answer.read()
        return upstream.last.headers.get("traceparent")
