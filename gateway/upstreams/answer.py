"""Readers that follow a streamed answer without changing it: usage, errors, the end, missing tool-call indexes.

Whole events go in and the same bytes come out, except where something has to be repaired or taken out. Most events are
only searched for a few marks; JSON is parsed where a mark is found.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

import orjson

from gateway.registry.records import Endpoint
from gateway.upstreams.sse import DONE_EVENT, event_data, format_event, is_done, parse_event, split_events

EventKind = Literal["nothing", "opening", "token", "error", "end"]
"""What an event means while the first token is awaited. Comments and pings are `nothing`, a chunk that only announces
the answer (its role, its id) is `opening`; neither counts as a token."""


class AnswerReader(Protocol):
    """`usage` is the upstream's own object, `error` that of an error event; `done` is set at the protocol's end."""

    usage: dict[str, Any] | None
    error: Any
    done: bool
    characters: int

    def kind(self, event: bytes) -> tuple[EventKind, Any]:
        """What this event means before the first token, and the error object if it is one."""
        ...

    def pass_on(self, block: bytes) -> bytes:
        """What the client gets for a block of whole events."""
        ...

    def finish(self) -> bytes | None:
        """What is missing at a clean end of the stream; None where the answer is not complete."""
        ...

    def failure(self, message: str, code: str) -> bytes:
        """The event that tells the client of a failure."""
        ...


def reader_for(endpoint: Endpoint, *, hide_usage: bool = False, count_text: bool = True) -> AnswerReader:
    """The reader for an endpoint.

    Args:
        hide_usage: take the usage chunk out: the client has not asked for it.
        count_text: count the characters of the answer, for upstreams that report no usage.
    """
    if endpoint is Endpoint.RESPONSES:
        return ResponsesReader()
    return ChatReader(hide_usage=hide_usage, count_text=count_text)


class ChatReader:
    """Reads chat completions and legacy completions."""

    __slots__ = ("_complete", "_count_text", "_hide_usage", "_indexes", "characters", "done", "error", "usage")

    def __init__(self, *, hide_usage: bool = False, count_text: bool = True) -> None:
        self.usage: dict[str, Any] | None = None
        self.error: Any = None
        self.done = False
        self.characters = 0
        self._complete = False
        self._hide_usage = hide_usage
        self._count_text = count_text
        self._indexes: dict[int, int] = {}

    def kind(self, event: bytes) -> tuple[EventKind, Any]:
        data = event_data(event)
        if not data:
            return "nothing", None
        if data.startswith(b"[DONE]"):
            return "end", None
        try:
            chunk = orjson.loads(data)
        except orjson.JSONDecodeError:
            return "error", {"message": "The upstream sent an event that is no JSON.", "code": "upstream_bad_reply"}
        if not isinstance(chunk, dict):
            return "nothing", None
        if chunk.get("error"):
            return "error", chunk["error"]
        choices = chunk.get("choices")
        if isinstance(choices, list):
            return ("token" if any(_says_something(choice) for choice in choices) else "opening"), None
        return "nothing", None

    def pass_on(self, block: bytes) -> bytes:
        if self.done:
            return b""
        if self._count_text:
            self.characters += _count(block, b'content":') or _count(block, b'"text":')
        if not self._complete and (b'"finish_reason":"' in block or b'"finish_reason": "' in block):
            self._complete = True
        if (
            b"[DONE]" in block
            or b'"error"' in block
            or b'"tool_calls"' in block
            or (b'"usage"' in block and _has_usage(block))
        ):
            return self._look_closely(block)
        return block

    def finish(self) -> bytes | None:
        if self.done or self.error is not None:
            return b""
        if self._complete:
            self.done = True
            return DONE_EVENT
        return None

    def failure(self, message: str, code: str) -> bytes:
        return format_event({"error": {"message": message, "type": "upstream_error", "param": None, "code": code}})

    def _look_closely(self, block: bytes) -> bytes:
        """As `pass_on`, for a block that holds a mark somewhere: only the events that hold it are parsed."""
        kept = []
        for event in split_events(block):
            if b"[DONE]" in event and is_done(event):
                self.done = True
                kept.append(event)
                break
            if (b'"error"' in event or b'"tool_calls"' in event or _has_usage(event)) and (
                chunk := parse_event(event)
            ) is not None:
                event = self._read_chunk(event, chunk)
            kept.append(event)
        return b"".join(kept)

    def _read_chunk(self, event: bytes, chunk: dict[str, Any]) -> bytes:
        """Note error and usage of a chunk; gives the event that the client gets, which may be none."""
        if chunk.get("error"):
            self.error = chunk["error"]
        choices = chunk.get("choices")
        usage = chunk.get("usage")
        if isinstance(usage, dict):
            self.usage = usage
            if self._hide_usage and not choices:
                return b""
        if isinstance(choices, list) and b'"tool_calls"' in event and self._repair(choices):
            return format_event(chunk)
        return event

    def _repair(self, choices: list[Any]) -> bool:
        """Give tool-call deltas the index that their upstream left out. Tells whether any was missing.

        A delta with an id of its own begins the next call; one without goes on with the newest.
        """
        repaired = False
        for choice in choices:
            delta = choice.get("delta") if isinstance(choice, dict) else None
            calls = delta.get("tool_calls") if isinstance(delta, dict) else None
            if not isinstance(calls, list):
                continue
            number = choice.get("index") if isinstance(choice.get("index"), int) else 0
            for call in calls:
                if not isinstance(call, dict):
                    continue
                newest = self._indexes.get(number, -1)
                index = call.get("index")
                if not isinstance(index, int):
                    index = newest + 1 if call.get("id") or newest < 0 else newest
                    call["index"] = index
                    repaired = True
                self._indexes[number] = max(newest, index)
                self._count_arguments(call)
        return repaired

    def _count_arguments(self, call: dict[str, Any]) -> None:
        function = call.get("function")
        arguments = function.get("arguments") if isinstance(function, dict) else None
        if isinstance(arguments, str):
            self.characters += len(arguments)


class ResponsesReader:
    """Reads the named events of the Responses API, which end without `[DONE]`."""

    __slots__ = ("_events", "characters", "done", "error", "response_id", "usage")

    _LAST = ("response.completed", "response.incomplete", "response.failed", "response.cancelled")
    # A stream may only announce itself for a long time; these are not answers yet.
    _OPENING = ("response.created", "response.queued", "response.in_progress")
    _PINGS = ("keepalive", "ping")

    def __init__(self) -> None:
        self.usage: dict[str, Any] | None = None
        self.error: Any = None
        self.done = False
        self.characters = 0
        self.response_id: str | None = None
        self._events = 0

    def kind(self, event: bytes) -> tuple[EventKind, Any]:
        data = parse_event(event)
        if data is None:
            return "nothing", None
        name = data.get("type")
        response = data.get("response")
        if isinstance(response, dict) and isinstance(response.get("id"), str):
            self.response_id = response["id"]
        if name == "error" or data.get("error"):
            return "error", data.get("error") or {key: data.get(key) for key in ("message", "code", "param")}
        if name == "response.failed":
            error = response.get("error") if isinstance(response, dict) else None
            return "error", error or {"message": "The upstream could not answer."}
        if name in self._PINGS:
            return "nothing", None
        return ("opening" if name in self._OPENING else "token"), None

    def pass_on(self, block: bytes) -> bytes:
        if self.done:
            return b""
        self._events += 1
        self.characters += _count(block, b'"delta":')
        if (
            b'"response.' in block
            and not any(name.encode() in block for name in self._LAST)
            and b'"error"' not in block
        ):
            return block
        for event in split_events(block):
            self._note(event)
        return block

    def finish(self) -> bytes | None:
        return b"" if self.done or self.error is not None else None

    def failure(self, message: str, code: str) -> bytes:
        error = {"message": message, "type": "upstream_error", "param": None, "code": code}
        # `error` is what the SDK raises on; the rest is the shape that the API documents.
        return format_event({**error, "type": "error", "sequence_number": self._events, "error": error}, "error")

    def _note(self, event: bytes) -> None:
        data = parse_event(event)
        if data is None:
            return
        name = data.get("type")
        response = data.get("response")
        if name == "error":
            self.error = data.get("error") or data
        elif name in self._LAST:
            self.done = True
            if isinstance(response, dict):
                usage = response.get("usage")
                self.usage = usage if isinstance(usage, dict) else None
                if name == "response.failed":
                    self.error = response.get("error") or {"message": "The upstream could not answer."}


def _says_something(choice: Any) -> bool:
    """Whether a choice of a chunk holds more than a role: text, reasoning, a tool call, a refusal, or the end."""
    if not isinstance(choice, dict):
        return False
    if choice.get("finish_reason") or choice.get("text"):
        return True
    delta = choice.get("delta")
    return isinstance(delta, dict) and any(value for name, value in delta.items() if name != "role")


def _has_usage(block: bytes) -> bool:
    """Whether any `usage` in the block is more than null."""
    return block.count(b'"usage"') > block.count(b'"usage":null') + block.count(b'"usage": null')


def _count(block: bytes, mark: bytes) -> int:
    """About how many characters follow the marks as JSON strings; an escaped quote ends the count early."""
    total = 0
    at = block.find(mark)
    while at >= 0:
        at += len(mark)
        if block[at : at + 1] == b" ":
            at += 1
        if block[at : at + 1] == b'"':
            end = block.find(b'"', at + 1)
            if end < 0:
                break
            total += end - at - 1
            at = end
        at = block.find(mark, at)
    return total
