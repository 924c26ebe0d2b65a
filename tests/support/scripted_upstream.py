"""`ScriptedUpstream`: a real OpenAI-speaking server on loopback that plays the replies a test gives it.

Without a script it answers every endpoint sensibly, so a test scripts only what it is about.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

JSON = "application/json"
EVENTS = "text/event-stream; charset=utf-8"
DONE = b"data: [DONE]\n\n"


@dataclass
class Reply:
    """One scripted answer.

    `body` is sent whole (dict and list as JSON); `pieces` is streamed instead: bytes are one packet each, a number is
    a pause in seconds. `drop` cuts the connection after the last piece (or at once, where there is nothing to send),
    `hang` never ends the answer, `raw` replaces the whole HTTP answer by these bytes.
    """

    status: int = 200
    body: Any = b""
    headers: dict[str, str] = field(default_factory=dict)
    pieces: Sequence[bytes | float] | None = None
    delay_s: float = 0.0
    drop: bool = False
    hang: bool = False
    gzip: bool = False
    raw: bytes | None = None


@dataclass
class Received:
    """One request as it came in; `left` is set when its client went away before the answer was out.

    `peer` is the address at the other end: the same for requests on one connection.
    """

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    arrived_at: float
    peer: Any = None
    left: asyncio.Event = field(default_factory=asyncio.Event)
    done: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Script = Reply | Callable[[Received], Reply]


class ScriptedUpstream:
    """`async with ScriptedUpstream() as upstream:`; `upstream.base_url` ends in `/v1`, the port is a free one.

    `script(...)` queues replies for the next requests, `always(...)` sets the reply for all others. Everything
    received is in `requests`. `in_thread()` serves synchronous tests and subprocesses.
    """

    def __init__(self, *replies: Script) -> None:
        self.queue: deque[Script] = deque(replies)
        self.requests: list[Received] = []
        self.standing: Script | None = None
        self._changed = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self._port = 0

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    @property
    def last(self) -> Received:
        """The newest request of the data plane."""
        return self.requests[-1]

    def script(self, *replies: Script) -> ScriptedUpstream:
        """Queue replies; each answers one request."""
        self.queue.extend(replies)
        return self

    def always(self, reply: Script) -> ScriptedUpstream:
        """Answer so whenever the queue is empty."""
        self.standing = reply
        return self

    async def wait_for_requests(self, count: int, timeout_s: float = 5.0) -> Received:
        """Wait until `count` requests have come in; gives the newest."""
        async with asyncio.timeout(timeout_s):
            while len(self.requests) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.requests[-1]

    async def __aenter__(self) -> ScriptedUpstream:
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True)
        await site.start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def stop(self) -> None:
        """Go down (connections are refused); `start` comes back on the same port."""
        await self.__aexit__()

    async def start(self) -> None:
        await self.__aenter__()

    @contextmanager
    def in_thread(self) -> Iterator[ScriptedUpstream]:
        """Serve from a thread of its own, for tests that do not run on an event loop."""
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, daemon=True)
        thread.start()
        asyncio.run_coroutine_threadsafe(self.__aenter__(), loop).result(10)
        try:
            yield self
        finally:
            asyncio.run_coroutine_threadsafe(self.__aexit__(), loop).result(10)
            loop.call_soon_threadsafe(loop.stop)
            thread.join(10)
            loop.close()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        received = Received(
            request.method,
            request.path_qs,
            {name.lower(): value for name, value in request.headers.items()},
            await request.read(),
            time.monotonic(),
            request.transport.get_extra_info("peername") if request.transport else None,
        )
        if request.method != "GET":
            self.requests.append(received)
            self._changed.set()
        script: Script
        if request.method == "GET" and not (self.queue and request.path.count("/") > 2):
            script = models_list()
        else:
            script = self.queue.popleft() if self.queue else (self.standing or usual_reply)
        reply = script(received) if callable(script) else script
        try:
            response = await self._play(request, reply)
        except (asyncio.CancelledError, ConnectionResetError):
            if not reply.drop and reply.raw is None:
                received.left.set()
            raise
        received.done.set()
        return response

    async def _play(self, request: web.Request, reply: Reply) -> web.StreamResponse:
        transport = request.transport
        assert transport is not None
        if reply.delay_s:
            await asyncio.sleep(reply.delay_s)
        if reply.raw is not None:
            transport.write(reply.raw)
            transport.close()
            await asyncio.sleep(30)
        if reply.drop and reply.pieces is None and not reply.body:
            transport.abort()
            await asyncio.sleep(30)
        if reply.hang and reply.pieces is None and not reply.body:
            await asyncio.sleep(3600)
        if reply.pieces is None and not reply.drop and not reply.hang:
            return self._whole(reply)
        response = web.StreamResponse(status=reply.status, headers={"content-type": EVENTS, **reply.headers})
        pieces = [encode_body(reply.body)] if reply.pieces is None else reply.pieces
        await response.prepare(request)
        for piece in pieces:
            if isinstance(piece, bytes):
                await response.write(piece)
                await asyncio.sleep(0.001)  # one packet each
            else:
                await asyncio.sleep(piece)
        if reply.drop:
            transport.abort()
            await asyncio.sleep(30)
        if reply.hang:
            await asyncio.sleep(3600)
        await response.write_eof()
        return response

    def _whole(self, reply: Reply) -> web.Response:
        body = encode_body(reply.body)
        headers = {"content-type": JSON, **reply.headers}
        if reply.gzip:
            body = gzip.compress(body)
            headers["content-encoding"] = "gzip"
        return web.Response(status=reply.status, body=body, headers=headers)


def encode_body(body: Any) -> bytes:
    """Bytes as they are, text as UTF-8, everything else as JSON."""
    if isinstance(body, bytes):
        return body
    return body.encode() if isinstance(body, str) else json.dumps(body, ensure_ascii=False).encode()


def event(data: Any, name: str | None = None) -> bytes:
    """One server-sent event."""
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


def chat_answer(text: str | None = "Hello there.", model: str = "scripted-1", **changes: Any) -> dict[str, Any]:
    """A whole chat completion. `message` and `choice` add to those objects, other names to the top level."""
    message = {"role": "assistant", "content": text, "refusal": None, **changes.pop("message", {})}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop", **changes.pop("choice", {})}
    usage = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
    return {
        "id": "chatcmpl-scripted",
        "object": "chat.completion",
        "created": 1700000000,
        "model": model,
        "choices": [choice],
        "usage": usage,
        **changes,
    }


def chat_chunk(
    delta: dict[str, Any] | None, finish: str | None = None, *, index: int = 0, model: str = "scripted-1", **top: Any
) -> dict[str, Any]:
    """One `chat.completion.chunk`; `delta=None` gives the one with no choices (usage goes in `top`)."""
    choices = [] if delta is None else [{"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}]
    return {
        "id": "chatcmpl-scripted",
        "object": "chat.completion.chunk",
        "created": 1700000000,
        "model": model,
        "choices": choices,
        **top,
    }


def chat_stream(
    texts: Sequence[str] = ("Hel", "lo ", "the", "re."), *, usage: dict[str, Any] | None = None, pause_s: float = 0.0
) -> Reply:
    """A usual stream: role, one event for each text, finish, usage where given, `[DONE]`."""
    pieces: list[bytes | float] = [event(chat_chunk({"role": "assistant", "content": ""}))]
    for text in texts:
        if pause_s:
            pieces.append(pause_s)
        pieces.append(event(chat_chunk({"content": text})))
    pieces.append(event(chat_chunk({}, "stop")))
    if usage is not None:
        pieces.append(event(chat_chunk(None, usage=usage)))
    return Reply(pieces=[*pieces, DONE])


def error_answer(
    status: int, message: str, code: str | None = None, kind: str = "invalid_request_error", **headers: str
) -> Reply:
    """An error in OpenAI's shape; header names are written with underscores."""
    error = {"message": message, "type": kind, "param": None, "code": code}
    return Reply(status, {"error": error}, {name.replace("_", "-"): value for name, value in headers.items()})


def models_list() -> Reply:
    model = {"id": "scripted-1", "object": "model", "created": 1700000000, "owned_by": "scripted"}
    return Reply(body={"object": "list", "data": [model]})


def usual_reply(received: Received) -> Reply:
    """What a well-behaved server would answer to this request."""
    path = received.path.partition("?")[0]
    body = received.json if received.body else {}
    headers = {"x-request-id": "req_scripted"}
    if path.endswith("/chat/completions"):
        if body.get("stream"):
            wanted = (body.get("stream_options") or {}).get("include_usage")
            usage = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
            reply = chat_stream(usage=usage if wanted else None)
            reply.headers = headers
            return reply
        return Reply(body=chat_answer(model=body.get("model", "scripted-1")), headers=headers)
    if path.endswith("/completions"):
        return _usual_completion(body, headers)
    if path.endswith("/embeddings"):
        return _usual_embeddings(body, headers)
    if path.endswith("/responses"):
        return usual_response(body, headers)
    return error_answer(404, f"There is no {path}.", "not_found")


def _usual_completion(body: dict[str, Any], headers: dict[str, str]) -> Reply:
    choice = {"index": 0, "text": "Hello.", "logprobs": None, "finish_reason": "stop"}
    answer = {"id": "cmpl-1", "object": "text_completion", "created": 1700000000, "model": body.get("model", "")}
    usage = {"prompt_tokens": 2, "completion_tokens": 2, "total_tokens": 4}
    if not body.get("stream"):
        return Reply(body={**answer, "choices": [choice], "usage": usage}, headers=headers)
    parts = [("Hel", None), ("lo.", None), ("", "stop")]
    events = [event({**answer, "choices": [{**choice, "text": t, "finish_reason": f}]}) for t, f in parts]
    return Reply(pieces=[*events, DONE], headers=headers)


def _usual_embeddings(body: dict[str, Any], headers: dict[str, str]) -> Reply:
    inputs = body["input"] if isinstance(body.get("input"), list) else [body.get("input", "")]
    data = []
    for index, _ in enumerate(inputs):
        vector: Any = [0.25, -0.5, float(index)]
        if body.get("encoding_format") == "base64":
            vector = base64.b64encode(struct.pack("<3f", *vector)).decode()
        data.append({"object": "embedding", "index": index, "embedding": vector})
    usage = {"prompt_tokens": 5, "total_tokens": 5}
    return Reply(body={"object": "list", "data": data, "model": body.get("model"), "usage": usage}, headers=headers)


def usual_response(body: dict[str, Any], headers: dict[str, str]) -> Reply:
    """An answer of the Responses API, streamed as named events without `[DONE]` where asked."""
    text = {"type": "output_text", "text": "Hello.", "annotations": []}
    message = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [text]}
    usage = {
        "input_tokens": 7,
        "input_tokens_details": {"cached_tokens": 2},
        "output_tokens": 3,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 10,
    }
    whole = {
        "id": "resp_1",
        "object": "response",
        "created_at": 1700000000,
        "status": "completed",
        "model": body.get("model", ""),
        "output": [message],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": usage,
    }
    if not body.get("stream"):
        return Reply(body=whole, headers=headers)
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    events: list[tuple[str, dict[str, Any]]] = [
        ("response.created", {"response": begun}),
        ("response.in_progress", {"response": begun}),
        ("response.output_text.delta", {**place, "delta": "Hel", "logprobs": []}),
        ("response.output_text.delta", {**place, "delta": "lo.", "logprobs": []}),
        ("response.output_text.done", {**place, "text": "Hello.", "logprobs": []}),
        ("response.completed", {"response": whole}),
    ]
    pieces = [event({"type": n, "sequence_number": i, **data}, n) for i, (n, data) in enumerate(events)]
    return Reply(pieces=pieces, headers=headers)
