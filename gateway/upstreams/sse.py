"""Server-sent events as bytes: cutting a stream into whole events without changing them. Pure, no I/O."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import orjson

DONE_EVENT = b"data: [DONE]\n\n"
_SEPARATOR = re.compile(rb"\r\n\r\n|\n\r\n|\n\n|\r\r")
_LONGEST_SEPARATOR = 4


class EventSplitter:
    """Turns raw chunks into blocks of whole events and keeps the unfinished tail.

    Nothing is parsed or copied where a chunk ends with an event, which is the usual case. There is no limit on the
    length of a line, and a long event that arrives in many pieces costs linear time.
    """

    __slots__ = ("_tail",)

    def __init__(self) -> None:
        self._tail = bytearray()

    def feed(self, chunk: bytes) -> bytes:
        """All events that are whole by now, exactly as they came; empty where none is."""
        tail = self._tail
        if not tail:
            if chunk.endswith(b"\n\n"):
                return chunk
            end = _last_end(chunk, 0)
            if end < len(chunk):
                tail += chunk[end:]
            return chunk[:end]
        start = max(0, len(tail) - _LONGEST_SEPARATOR)
        tail += chunk
        end = _last_end(tail, start)
        if not end:
            return b""
        block = bytes(tail[:end])
        del tail[:end]
        return block

    def flush(self) -> bytes:
        """What is left when the stream has ended without a blank line."""
        rest = bytes(self._tail)
        self._tail.clear()
        return rest


def _last_end(data: bytes | bytearray, start: int) -> int:
    """Index just behind the last event separator at or after `start`; 0 where there is none."""
    found = data.rfind(b"\n\n", start)
    end = found + 2 if found >= 0 else 0
    if data.find(b"\r", start) >= 0:
        for separator in (b"\n\r\n", b"\r\r"):
            found = data.rfind(separator, start)
            if found >= 0:
                end = max(end, found + len(separator))
    return end


def split_events(block: bytes) -> list[bytes]:
    """The events of a block, each with the blank line that ends it; joined they give the block again."""
    if b"\r" not in block:
        parts = block.split(b"\n\n")
        last = parts.pop()
        events = [part + b"\n\n" for part in parts]
        return [*events, last] if last else events
    events, position = [], 0
    for found in _SEPARATOR.finditer(block):
        events.append(block[position : found.end()])
        position = found.end()
    if position < len(block):
        events.append(block[position:])
    return events


def event_data(event: bytes) -> bytes:
    """The `data` of one event; empty for comments and pings."""
    if event.startswith(b"data:") and b"\n" not in (line := event[5:].strip(b"\r\n")) and b"\r" not in line:
        return line.strip(b" ")
    lines = [line[5:].removeprefix(b" ") for line in event.splitlines() if line.startswith(b"data:")]
    return b"\n".join(lines).strip(b" ")


def parse_event(event: bytes) -> dict[str, Any] | None:
    """The JSON object of one event; None where its data is no JSON object."""
    try:
        value = orjson.loads(event_data(event))
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def format_event(data: dict[str, Any], name: str | None = None) -> bytes:
    """One event from JSON, in the form that OpenAI's servers use."""
    head = b"event: " + name.encode() + b"\n" if name else b""
    return head + b"data: " + orjson.dumps(data) + b"\n\n"


def is_done(event: bytes) -> bool:
    """Whether this event is the closing `[DONE]` (the SDK stops at any data that starts with it)."""
    return event_data(event).startswith(b"[DONE]")


def parsed_events(block: bytes) -> Iterator[tuple[bytes, dict[str, Any] | None]]:
    """Each event of a block, raw and parsed."""
    for event in split_events(block):
        yield event, parse_event(event)
