"""An answer's head waits for its body, but never longer than one step of the event loop."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from gateway.connection import HeadWithBody

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


class Transport:
    """Notes what is written in one call each."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def close(self) -> None:
        self.closed = True


def answer() -> tuple[Any, Transport]:
    """A cycle whose transport is stood for, and the real transport."""
    transport = Transport()
    cycle = cast(Any, SimpleNamespace(transport=transport))
    cycle.transport = HeadWithBody(cycle, asyncio.get_running_loop())
    return cycle, transport


async def test_head_and_body_leave_in_one_write_and_the_rest_goes_straight_on() -> None:
    cycle, transport = answer()
    cycle.transport.write(HEAD)
    cycle.transport.write(b"body")
    cycle.transport.write(b"more")
    await asyncio.sleep(0)
    assert transport.written == [HEAD + b"body", b"more"]


async def test_a_head_whose_body_comes_later_is_not_held_back() -> None:
    cycle, transport = answer()
    cycle.transport.write(HEAD)
    await asyncio.sleep(0.01)
    assert transport.written == [HEAD]


async def test_continue_is_sent_at_once_and_is_no_head() -> None:
    cycle, transport = answer()
    cycle.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert len(transport.written) == 1
    cycle.transport.write(HEAD)
    cycle.transport.write(b"body")
    assert transport.written[1:] == [HEAD + b"body"]


async def test_closing_sends_a_head_that_waits() -> None:
    cycle, transport = answer()
    cycle.transport.write(HEAD)
    cycle.transport.close()
    assert transport.written == [HEAD]
    assert transport.closed
