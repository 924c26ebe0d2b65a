"""What a finished request used and cost, read from the answer after its last byte is out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from gateway.registry.records import Candidate, Endpoint
from gateway.registry.snapshot import Snapshot
from gateway.routing.cost import actual_cost
from gateway.routing.features import estimate_tokens
from gateway.telemetry.record import Usage
from gateway.upstreams.execute import CHARACTERS_PER_TOKEN
from gateway.upstreams.openai_http import decompress
from gateway.upstreams.outbound import Served

# A larger answer (embeddings) is searched for its usage instead of being parsed as a whole.
PARSE_WHOLE = 2**16


def usage_of(served: Served, request_body: dict[str, Any], endpoint: Endpoint) -> Usage:
    """Token counts of an answer: the upstream's own, else estimated at four characters a token."""
    if served.stream is not None:
        reader = served.stream.reader
        reported, characters = reader.usage, reader.characters
    else:
        reported, characters = _unary_usage(plain_body(served))
    if reported is not None:
        found = _read_usage(reported)
        if found is not None:
            return found
    written = 0 if endpoint is Endpoint.EMBEDDINGS else -(-characters // CHARACTERS_PER_TOKEN)
    return Usage(estimate_tokens(request_body), written, 0, estimated=True)


def _read_usage(usage: Mapping[str, Any]) -> Usage | None:
    """Chat, completions and embeddings say prompt/completion, the Responses API says input/output."""
    prompt = _count(usage, "prompt_tokens", "input_tokens")
    if prompt is None:
        return None
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
    cached = _count(details, "cached_tokens") if isinstance(details, Mapping) else 0
    return Usage(prompt, _count(usage, "completion_tokens", "output_tokens") or 0, cached or 0)


def _count(values: Mapping[str, Any], *names: str) -> int | None:
    for name in names:
        value = values.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e15:
            return int(value)
    return None


def plain_body(served: Served) -> bytes:
    """A unary answer's body, unpacked; empty where that fails."""
    if served.content_encoding is None:
        return served.body
    try:
        return decompress(served.body, served.content_encoding.decode("latin-1"))
    except (ValueError, OverflowError):
        return b""


def _unary_usage(body: bytes) -> tuple[dict[str, Any] | None, int]:
    """The `usage` object and, where there is none, the number of characters written."""
    if len(body) > PARSE_WHOLE:
        found = _find_usage(body)
        if found is not None:
            return found, 0
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None, 0
    if not isinstance(answer, dict):
        return None, 0
    usage = answer.get("usage")
    return (usage, 0) if isinstance(usage, dict) else (None, _characters(answer))


def _find_usage(body: bytes) -> dict[str, Any] | None:
    """The last `usage` object of a long body: from its key to the brace that closes it."""
    start = body.find(b"{", body.rfind(b'"usage"'))
    if body.rfind(b'"usage"') < 0 or start < 0:
        return None
    end = start
    for _ in range(8):
        end = body.find(b"}", end) + 1
        if not end:
            return None
        try:
            found = orjson.loads(body[start:end])
        except orjson.JSONDecodeError:
            continue
        return found if isinstance(found, dict) else None
    return None


def _characters(answer: Mapping[str, Any]) -> int:
    """Characters of all texts of a chat or legacy completion."""
    choices = answer.get("choices")
    total = 0
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict):
            message = choice.get("message")
            for text in (choice.get("text"), *(message.values() if isinstance(message, dict) else ())):
                total += len(text) if isinstance(text, str) else 0
    return total


class Prices:
    """What answers cost, and what the baseline model would have cost; remembers the baseline of a snapshot."""

    def __init__(self, declared_baseline: str | None) -> None:
        self._declared = declared_baseline
        self._seen: Snapshot | None = None
        self._baseline: Candidate | None = None

    def cost(self, candidate: Candidate, usage: Usage) -> float | None:
        """USD, None without a declared price."""
        return actual_cost(candidate, usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens)

    def baseline_cost(self, snapshot: Snapshot, usage: Usage) -> float | None:
        """USD that the declared baseline (the dearest model, where none is declared) would have cost."""
        if snapshot is not self._seen:
            self._seen = snapshot
            self._baseline = snapshot.enabled.get(self._declared) if self._declared else _dearest(snapshot)
        return None if self._baseline is None else self.cost(self._baseline, usage)


def _dearest(snapshot: Snapshot) -> Candidate | None:
    priced = [each for each in snapshot.enabled.values() if each.price_in is not None or each.price_out is not None]
    return max(priced, key=lambda each: (each.price_in or 0.0) + (each.price_out or 0.0), default=None)
