"""No prompt, answer or key reaches logs, metrics, traces, the decision log or the database."""

from __future__ import annotations

import io
import logging
import sys
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from gateway.telemetry.decision_log import DecisionLog
from tests.support.live_gateway import gateway_settings, live_gateway
from tests.support.scripted_upstream import Reply, ScriptedUpstream, chat_answer, error_answer

PROMPT = "zebra-prompt-text"
ANSWER = "zebra-answer-text"
CLIENT_KEY = "sk-zebra-client-key"
PROVIDER_KEY = "sk-zebra-provider-key"
MODEL_FIELD = "sk-zebra-in-the-model-field"


async def test_nothing_private_is_written_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ZEBRA_KEY", PROVIDER_KEY)
    caplog.set_level(logging.DEBUG)
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    spans: list[bytes] = []
    async with ScriptedUpstream() as upstream, TestServer(receiver(spans)) as otlp:
        upstream.script(
            Reply(body=chat_answer(ANSWER)),
            error_answer(400, f"I cannot read {PROMPT}"),
            Reply(body=b"<html>" + ANSWER.encode(), headers={"content-type": "text/html"}),
            Reply(drop=True),
            Reply(drop=True),
        )
        model = {
            "name": "small",
            "base_url": upstream.base_url,
            "api_key_env": "ZEBRA_KEY",
            "price_in": 1,
            "price_out": 1,
        }
        telemetry = {"access_log": True, "otlp_endpoint": str(otlp.make_url("")).rstrip("/")}
        settings = gateway_settings(tmp_path / "state", [model], telemetry=telemetry)
        async with live_gateway(settings) as gateway, aiohttp.ClientSession() as session:
            for name in ("auto", "small", "small", "auto", MODEL_FIELD):
                body = {"model": name, "messages": [{"role": "user", "content": PROMPT}], "user": PROMPT}
                headers = {"authorization": f"Bearer {CLIENT_KEY}"}
                async with session.post(f"{gateway.base_url}/chat/completions", json=body, headers=headers) as answer:
                    await answer.read()
            async with session.get(gateway.url + "/metrics") as answer:
                metrics = await answer.text()
            async with session.get(gateway.url + "/admin/decisions") as answer:
                decisions = await answer.text()
            assert any(isinstance(sink, DecisionLog) for sink in gateway.services.sinks)
    assert '"event":"request"' in written.getvalue()
    assert spans
    out, err = capfd.readouterr()
    logs = caplog.text + out + err + written.getvalue()
    stored = b"".join(path.read_bytes() for path in (tmp_path / "state").rglob("*") if path.is_file())
    everywhere = logs + metrics + decisions + b"".join(spans).decode("latin-1") + stored.decode("latin-1")
    assert len(upstream.requests) == 5
    assert "zebra" not in everywhere


def receiver(spans: list[bytes]) -> web.Application:
    """An OTLP receiver that keeps what it gets."""

    async def take(request: web.Request) -> web.Response:
        spans.append(await request.read())
        return web.Response()

    app = web.Application()
    app.router.add_post("/v1/traces", take)
    return app
