"""Cutting a stream of bytes into whole events, whatever the packets look like."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.upstreams.sse import EventSplitter, event_data, is_done, parse_event, split_events

lines = st.sampled_from([b"data: {}", b"data: \xc3\xa4", b": ping", b"event: x", b"data:", b"", b"id: 1"])
newlines = st.sampled_from([b"\n", b"\r\n"])


@given(st.lists(lines, max_size=12), newlines, st.lists(st.integers(1, 9), min_size=1, max_size=40))
def test_blocks_and_rest_give_the_stream_again(parts: list[bytes], newline: bytes, sizes: list[int]) -> None:
    stream = newline.join(parts)
    splitter, out, at = EventSplitter(), b"", 0
    while at < len(stream):
        size = sizes[at % len(sizes)]
        out += splitter.feed(stream[at : at + size])
        at += size
    assert out + splitter.flush() == stream


@given(st.integers(1, 30))
def test_a_block_never_ends_inside_an_event(size: int) -> None:
    stream = b'data: {"a": 1}\r\n\r\n: ping\n\ndata: [DONE]\r\n\r\n'
    splitter = EventSplitter()
    blocks = [splitter.feed(stream[at : at + size]) for at in range(0, len(stream), size)]
    assert b"".join(blocks) == stream
    assert all(block.endswith((b"\n\n", b"\r\n\r\n")) for block in blocks if block)


def test_a_whole_chunk_is_handed_on_without_a_copy() -> None:
    chunk = b"data: 1\n\ndata: 2\n\n"
    assert EventSplitter().feed(chunk) is chunk


@pytest.mark.parametrize(
    "block", [b"data: 1\n\n: p\n\ndata: 2\n\n", b"data: 1\r\n\r\ndata: 2\r\n\r\n", b"data: 1\n\ndata: 2"]
)
def test_events_of_a_block_join_to_the_block(block: bytes) -> None:
    events = split_events(block)
    assert b"".join(events) == block
    assert [event_data(event) for event in events if event_data(event)] == [b"1", b"2"]


DATA = {
    b"data: x\n\n": b"x",
    b"data:x\n\n": b"x",
    b"event: e\ndata: x\nid: 3\n\n": b"x",
    b"data: a\ndata: b\n\n": b"a\nb",
    b"data: a\r\ndata: b\r\n\r\n": b"a\nb",
    b": only a comment\n\n": b"",
    b"\n\n": b"",
}


@pytest.mark.parametrize(("event", "data"), DATA.items())
def test_data_of_an_event(event: bytes, data: bytes) -> None:
    assert event_data(event) == data


def test_done_is_recognised_as_an_event_only() -> None:
    assert is_done(b"data: [DONE]\n\n")
    assert is_done(b"data:[DONE]")
    assert not is_done(b'data: {"x": "[DONE]"}\n\n')


def test_only_objects_count_as_parsed() -> None:
    assert parse_event(b'data: {"a": 1}\n\n') == {"a": 1}
    assert parse_event(b"data: [1]\n\n") is None
    assert parse_event(b"data: {broken\n\n") is None
