"""Who is tried next when an upstream fails before the first byte, end to end over loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.routing.prior import PriorScorer
from tests.support.live_gateway import LiveGateway, gateway_settings, live_gateway
from tests.support.scripted_upstream import (
    DONE,
    Reply,
    ScriptedUpstream,
    chat_answer,
    chat_chunk,
    chat_stream,
    error_answer,
    event,
)

ASK = [{"role": "user", "content": "Say hello."}]
ROLE = event(chat_chunk({"role": "assistant", "content": ""}))
ERROR_EVENT = event({"error": {"message": "overloaded", "type": "overloaded_error", "code": None}})


@dataclass
class Pair:
    """`strong` is chosen by `auto`, `weak` (with the larger window) and `spare` are its fallbacks."""

    strong: ScriptedUpstream
    weak: ScriptedUpstream
    gateway: LiveGateway
    http: httpx.AsyncClient

    async def ask(self, model: str = "auto", **fields: Any) -> httpx.Response:
        return await self.http.post("/v1/chat/completions", json={"model": model, "messages": ASK, **fields})


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    async with ScriptedUpstream() as strong, ScriptedUpstream() as weak:
        candidates = [
            {"name": "strong", "base_url": strong.base_url, "strength": 0.9, "context_window": 8_000},
            {"name": "weak", "base_url": weak.base_url, "strength": 0.3, "context_window": 64_000},
        ]
        limits = {"connect_s": 5, "first_token_s": 2, "idle_s": 2, "total_s": 5}
        settings = gateway_settings(tmp_path, candidates, retry={"retries": 1, "backoff_s": 0.0}, timeouts=limits)
        async with (
            live_gateway(settings, scorer=PriorScorer()) as gateway,
            httpx.AsyncClient(base_url=gateway.url, timeout=20) as http,
        ):
            yield Pair(strong, weak, gateway, http)


PASSING_FAULTS: dict[str, tuple[Reply, int]] = {
    "429": (error_answer(429, "slow", "rate_limit_exceeded"), 1),
    "500": (error_answer(500, "oops"), 1),
    "502, tried again": (Reply(502, b"<html>"), 2),
    "503, tried again": (error_answer(503, "busy"), 2),
    "504, tried again": (error_answer(504, "late"), 2),
    "provider key": (error_answer(401, "bad key", "invalid_api_key"), 1),
    "provider permission": (error_answer(403, "no"), 1),
    "model unknown there": (error_answer(404, "none", "model_not_found"), 1),
    "connection cut, tried again": (Reply(drop=True), 2),
    "no HTTP": (Reply(raw=b"nonsense\r\n\r\n"), 1),
    "HTML with 200": (Reply(200, b"<html>"), 1),
    "error with 200": (Reply(200, {"error": {"message": "no", "code": 500}}), 1),
}


@pytest.mark.parametrize(("fault", "tries"), PASSING_FAULTS.values(), ids=PASSING_FAULTS)
@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
async def test_auto_falls_back_where_another_model_may_do_better(
    pair: Pair, fault: Reply, tries: int, stream: bool
) -> None:
    pair.strong.always(fault)
    response = await pair.ask(stream=stream)
    assert response.status_code == 200
    assert response.headers["x-orbweaver-model"] == "weak"
    assert response.headers["x-orbweaver-fallbacks"] == "1"
    assert (len(pair.strong.requests), len(pair.weak.requests)) == (tries, 1)


@pytest.mark.parametrize("status", [400, 409, 413, 422])
async def test_what_is_the_callers_fault_is_not_tried_elsewhere(pair: Pair, status: int) -> None:
    pair.strong.always(error_answer(status, "Their words.", "invalid_value"))
    response = await pair.ask()
    assert response.status_code == status
    assert response.json()["error"]["message"] == "Their words."
    assert not pair.weak.requests


HEADS: dict[str, list[bytes | float]] = {
    "error event first": [ERROR_EVENT],
    "pings, a role, then an error": [b": ping\n\n", ROLE, ERROR_EVENT],
    "pings and a role, then nothing": [b": ping\n\n", ROLE, 4.0],
    "endless pings": [b": ping\n\n", 0.1] * 40,
    "an empty stream": [DONE[:0]],
    "no JSON": [b"data: <html>\n\n"],
}


@pytest.mark.parametrize("pieces", HEADS.values(), ids=HEADS)
async def test_a_stream_that_fails_before_its_first_token_is_tried_elsewhere(
    pair: Pair, pieces: list[bytes | float]
) -> None:
    pair.strong.always(Reply(pieces=pieces))
    response = await pair.ask(stream=True)
    assert response.headers["x-orbweaver-model"] == "weak"
    assert "ping" not in response.text
    assert response.text.count("[DONE]") == 1


async def test_nothing_is_tried_again_once_a_token_was_sent(pair: Pair) -> None:
    pair.strong.always(Reply(pieces=[event(chat_chunk({"content": "Hi"}))], drop=True))
    response = await pair.ask(stream=True)
    assert response.headers["x-orbweaver-model"] == "strong"
    assert '"error"' in response.text
    assert not pair.weak.requests


async def test_reasoning_counts_as_a_first_token(pair: Pair) -> None:
    pair.strong.always(
        Reply(pieces=[event(chat_chunk({"reasoning_content": "hm"})), 0.2, event(chat_chunk({}, "stop"))])
    )
    response = await pair.ask(stream=True)
    assert response.headers["x-orbweaver-model"] == "strong"


async def test_a_prompt_too_long_goes_to_a_larger_window(pair: Pair) -> None:
    pair.strong.always(error_answer(400, "This model's maximum context length is 8000 tokens."))
    response = await pair.ask()
    assert response.headers["x-orbweaver-model"] == "weak"


async def test_what_just_failed_is_not_asked_again_while_it_cools_down(pair: Pair) -> None:
    pair.strong.always(error_answer(429, "slow", retry_after="60"))
    for _ in range(3):
        assert (await pair.ask()).headers["x-orbweaver-model"] == "weak"
    assert len(pair.strong.requests) == 1


async def test_the_client_hears_of_the_failure_it_can_do_most_about(pair: Pair) -> None:
    pair.strong.always(error_answer(429, "Slow down.", "rate_limit_exceeded", retry_after="9"))
    pair.weak.always(error_answer(401, "Our key is wrong.", "invalid_api_key"))
    response = await pair.ask()
    assert response.status_code == 429
    assert response.headers["retry-after"] == "9"
    assert response.json()["error"]["message"] == "Slow down."


async def test_a_named_model_is_never_answered_by_another(pair: Pair) -> None:
    pair.strong.always(error_answer(500, "Their words."))
    response = await pair.ask("strong")
    assert response.status_code == 500
    assert response.json()["error"]["message"] == "Their words."
    assert not pair.weak.requests


NAMED_FAULTS = {"500": (500, 1), "502": (502, 2), "503": (503, 2), "504": (504, 2), "429": (429, 1), "400": (400, 1)}


@pytest.mark.parametrize(("status", "tries"), NAMED_FAULTS.values(), ids=NAMED_FAULTS)
async def test_a_named_model_is_tried_again_only_where_that_may_help(pair: Pair, status: int, tries: int) -> None:
    pair.strong.always(error_answer(status, "no"))
    assert (await pair.ask("strong")).status_code == status
    assert len(pair.strong.requests) == tries


async def test_a_retry_that_works_is_invisible(pair: Pair) -> None:
    pair.strong.script(error_answer(503, "busy"), Reply(body=chat_answer("At last.")))
    response = await pair.ask("strong")
    assert response.status_code == 200
    assert response.headers["x-orbweaver-fallbacks"] == "0"


async def test_a_named_model_is_still_asked_while_its_circuit_is_open(pair: Pair) -> None:
    pair.strong.always(error_answer(500, "no"))
    for _ in range(8):
        assert (await pair.ask("strong")).status_code == 500
    pair.strong.always(Reply(body=chat_answer("Back.")))
    assert (await pair.ask("strong")).status_code == 200
    assert pair.gateway.services.health.snapshot()["strong#0"]["circuit"] == "closed"


async def test_an_upstream_that_hangs_is_a_timeout(pair: Pair) -> None:
    pair.strong.always(Reply(hang=True))
    response = await pair.ask("strong", stream=True)
    assert response.status_code == 504
    assert response.json()["error"]["code"] == "upstream_timeout"
    assert "within 2 s" in response.json()["error"]["message"]


async def test_the_total_limit_ends_a_unary_call(pair: Pair) -> None:
    pair.strong.always(Reply(hang=True))
    response = await pair.ask("strong")
    assert response.status_code == 504
    assert "within 5 s" in response.json()["error"]["message"]


async def test_a_silent_stream_ends_in_an_error_event(pair: Pair) -> None:
    pair.strong.always(Reply(pieces=[event(chat_chunk({"content": "Hi"}))], hang=True))
    response = await pair.ask(stream=True)
    assert '"upstream_timeout"' in response.text
    assert "[DONE]" not in response.text


async def test_a_slow_but_steady_stream_is_not_cut(pair: Pair) -> None:
    pair.strong.always(chat_stream([str(number) for number in range(5)], pause_s=0.25))
    response = await pair.ask("strong", stream=True)
    assert response.text.count("[DONE]") == 1
