"""What `auto` costs beside a named model: with the documented prior, and with the trained encoder."""

from __future__ import annotations

import re
import time
import urllib.error
from collections.abc import Sequence
from typing import Any

import uvloop

from tests.bench.canned import chat_body, http_request
from tests.bench.load import ask_in_turn, check, percentile
from tests.bench.processes import Server, gateway, get, mock_upstream, post
from tests.bench.report import Figure, Options

CLIENTS = 16
LOAD_LIMIT_S = 60.0
LAG_S = 8.0
"""The gateway takes two samples of its lag a second; fewer than a dozen say nothing."""
POOL: tuple[dict[str, Any], ...] = (
    {"name": "small", "upstream_model": "mock-1", "strength": 0.5, "price_in": 0.1, "price_out": 0.4},
    {"name": "medium", "upstream_model": "mock-1", "strength": 0.65, "price_in": 0.5, "price_out": 2.0},
    {"name": "large", "upstream_model": "mock-1", "strength": 0.8, "price_in": 3.0, "price_out": 12.0},
)
SUBJECTS = ("ships", "bread", "prime numbers", "the moon", "tax law", "violins", "rust", "bees", "glass", "verbs")
TASKS = ("Explain {}.", "Write a poem about {}.", "Give ten facts about {}.", "Plan a lesson on {}.", "Why {}?")


def run(options: Options) -> list[Figure]:
    """The same requests to a named model and to `auto`; asks are all different, then all the same."""
    count = options.scaled(400, 2000)
    figures = []
    with mock_upstream() as upstream:
        for scorer in ("prior", "auto"):
            with gateway(upstream, candidates=POOL, routing={"scorer": scorer}) as own:
                if scorer == "prior" or _encoder_answers(own):
                    figures += _measure(own, count, "prior" if scorer == "prior" else "encoder")
                else:
                    raise RuntimeError("the encoder did not load; the prior answered in its place")
    return figures


def asks(count: int, salt: str) -> list[str]:
    """So many different questions."""
    return [
        TASKS[index % len(TASKS)].format(SUBJECTS[index // len(TASKS) % len(SUBJECTS)]) + f" ({salt} {index})"
        for index in range(count)
    ]


def _encoder_answers(own: Server) -> bool:
    """Whether the encoder decides within a minute of the first question."""
    deadline = time.monotonic() + LOAD_LIMIT_S
    while time.monotonic() < deadline:
        try:
            if b'"prior":false' in post(own, "/v1/route", chat_body("auto")).replace(b" ", b""):
                return True
        except urllib.error.HTTPError:
            pass
        time.sleep(0.2)
    return False


def _measure(own: Server, count: int, scorer: str) -> list[Figure]:
    def ask(model: str, texts: Sequence[str], clients: int = 1) -> tuple[float, float, float]:
        """p50 and p95 in ms, CPU in ms a request."""
        requests = [
            http_request("/v1/chat/completions", chat_body(model, ask=text), key=own.key, port=own.port)
            for text in texts
        ]
        before = own.cpu_s()
        answers = uvloop.run(ask_in_turn(own.port, requests, clients=clients))
        cpu_ms = (own.cpu_s() - before) / len(requests) * 1e3
        check(answers)
        times = [answer.total_s * 1e3 for answer in answers]
        return percentile(times, 0.5), percentile(times, 0.95), cpu_ms

    ask("auto", asks(100, "warm"))
    named, _, named_cpu = ask("small", asks(count, "named"))
    fresh, fresh_95, fresh_cpu = ask("auto", asks(count, "fresh"))
    same, _, same_cpu = ask("auto", ["How are you today?"] * count)
    began = time.perf_counter()
    ask("auto", asks(count, "rate"), CLIENTS)
    enough = int(LAG_S * count / (time.perf_counter() - began))
    lag = _lag(own)
    began = time.perf_counter()
    busy, busy_95, _ = ask("auto", asks(enough, "busy"), CLIENTS)
    rate = enough / (time.perf_counter() - began)
    mean_lag, late = _lag_since(own, lag)
    return [
        Figure(f"auto ({scorer}) adds to a named model, new prompt, p50", fresh - named, "ms"),
        Figure(f"auto ({scorer}) adds to a named model, new prompt, p95", fresh_95 - named, "ms"),
        Figure(f"auto ({scorer}) adds to a named model, known prompt, p50", same - named, "ms"),
        Figure(f"auto ({scorer}) adds CPU, new prompt", fresh_cpu - named_cpu, "ms"),
        Figure(f"auto ({scorer}) adds CPU, known prompt", same_cpu - named_cpu, "ms"),
        Figure(
            f"auto ({scorer}) requests per second, {CLIENTS} callers, new prompts",
            rate,
            "1/s",
            more_is_better=True,
            note=f"p50 {busy:.0f} ms, p95 {busy_95:.0f} ms",
        ),
        Figure(
            f"auto ({scorer}) event loop lag, {CLIENTS} callers, mean",
            mean_lag * 1e3,
            "ms",
            note=f"{late:.0%} of samples above 10 ms",
        ),
        Figure(f"auto ({scorer}) resident memory", own.rss_mib(), "MiB", 150 if scorer == "prior" else 500),
    ]


def _lag(own: Server) -> tuple[float, float, float]:
    """Sum in seconds, count, and count above 10 ms, of the gateway's own measurement."""
    text = get(own, "/metrics")

    def value(pattern: str) -> float:
        found = re.search(rf"^orbweaver_event_loop_lag_seconds{pattern} (\S+)$", text, re.MULTILINE)
        assert found is not None
        return float(found.group(1))

    count = value("_count")
    return value("_sum"), count, count - value(r'_bucket\{le="0\.01"\}')


def _lag_since(own: Server, before: tuple[float, float, float]) -> tuple[float, float]:
    """Mean lag in seconds and the share of samples above 10 ms."""
    total, count, late = (now - then for now, then in zip(_lag(own), before, strict=True))
    return total / max(count, 1.0), late / max(count, 1.0)
