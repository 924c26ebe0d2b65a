"""An Anthropic-speaking script for `ScriptedUpstream`: what a server of the Messages API answers."""

from __future__ import annotations

from typing import Any

from tests.support.scripted_upstream import Received, Reply, event

TOOL_USE = {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Turin"}}


def anthropic_reply(received: Received) -> Reply:
    """The usual answer: a tool call where tools are offered, else a greeting; streamed where asked."""
    body = received.json
    content = TOOL_USE if body.get("tools") else {"type": "text", "text": "Hello there."}
    stop = "tool_use" if body.get("tools") else "end_turn"
    if body.get("stream"):
        return Reply(pieces=_events(content, stop))
    return Reply(body=_message(stop, [content]), headers={"request-id": "req_anthropic"})


def anthropic_error(status: int, kind: str, message: str, **headers: str) -> Reply:
    """An error in Anthropic's shape; header names are written with underscores."""
    body = {"type": "error", "error": {"type": kind, "message": message}}
    return Reply(status, body, {name.replace("_", "-"): value for name, value in headers.items()})


def _message(stop: str | None, content: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-scripted",
        "content": content,
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": {"input_tokens": 11, "output_tokens": 5},
    }


def _events(content: dict[str, Any], stop: str) -> list[bytes | float]:
    if content["type"] == "text":
        empty = {"type": "text", "text": ""}
        deltas = [{"type": "text_delta", "text": text} for text in ("Hel", "lo ", "there.")]
    else:
        empty = {**content, "input": {}}
        deltas = [{"type": "input_json_delta", "partial_json": text} for text in ('{"city": ', '"Turin"}')]
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": _message(None, [])},
        {"type": "ping"},
        {"type": "content_block_start", "index": 0, "content_block": empty},
        *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": stop, "stop_sequence": None}, "usage": {"output_tokens": 5}},
        {"type": "message_stop"},
    ]
    return [event(each, each["type"]) for each in events]
