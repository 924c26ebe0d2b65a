"""A request leaves nothing in cycles: what does waits for a collection, and a collection stops the event loop."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.middleware.inbound import Message, Receive, Scope, Send, inbound_of
from gateway.middleware.request_id import RequestId
from gateway.registry.ledger_store import _inserts_of
from gateway.upstreams.watchdog import Watchdog


@pytest.fixture(autouse=True)
def no_collections() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


class ServersRequest:
    """As uvicorn's: holds the scope, and is held by its own `send`, which the application gets."""

    def __init__(self) -> None:
        self.scope: dict[str, Any] = {"type": "http", "path": "/v1/models", "method": "GET", "headers": []}
        self.sent: list[Message] = []

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    async def receive(self) -> Message:
        await asyncio.Event().wait()
        raise AssertionError("nobody sets it")


async def test_a_request_goes_when_it_is_over() -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(inbound_of(scope).send.__name__)
        await send({"type": "http.response.start", "status": 200, "headers": []})

    request = ServersRequest()
    gone = weakref.ref(request)
    await RequestId(app)(request.scope, request.receive, request.send)
    assert (request.sent[0]["status"], seen) == (200, ["send"])
    del request
    assert gone() is None


async def test_a_watch_goes_when_it_is_over() -> None:
    dog = Watchdog(tick_s=0.005)
    request = ServersRequest()
    gone = weakref.ref(request)

    async def serve(receive: Receive) -> None:
        with dog.watch(receive):
            await asyncio.sleep(0.05)

    await asyncio.create_task(serve(request.receive))
    await asyncio.sleep(0.05)
    del request
    assert gone() is None


def test_the_ledgers_statements_are_built_once() -> None:
    assert _inserts_of("postgresql") is _inserts_of("postgresql")
    assert _inserts_of("postgresql") is not _inserts_of("sqlite")
