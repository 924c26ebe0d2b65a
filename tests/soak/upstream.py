"""A counting upstream: honest for clients called `clean`, and failing, hanging or cutting for those called `rough`."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from random import Random
from typing import Any

from aiohttp import web

PROMPT_TOKENS = 11
ROUGH = (("ok", 0.9), ("500", 0.03), ("429", 0.03), ("cut", 0.02), ("slow", 0.02))


class CountingUpstream:
    """Serves chat completions and counts what it gave away: answers and tokens of clean clients, by model."""

    def __init__(self, seed: int) -> None:
        self.answers: Counter[str] = Counter()
        self.tokens: Counter[str] = Counter()
        self.asked = 0
        self.port = 0
        self._random = Random(seed)
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> CountingUpstream:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._chat)
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.asked += 1
        clean = body.get("user") == "clean"
        fate = "ok" if clean else self._random.choices(*zip(*ROUGH, strict=True))[0]
        if fate in ("500", "429"):
            error = {"message": f"forced {fate}", "type": "server_error", "code": None}
            return web.json_response({"error": error}, status=int(fate), headers={"retry-after": "0"})
        if fate == "slow":
            await asyncio.sleep(1.0)
        words = self._random.randrange(1, 40)
        usage = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": words, "total_tokens": PROMPT_TOKENS + words}
        head = {"id": "chatcmpl-soak", "created": 1, "model": body["model"]}
        if body.get("stream"):
            response = await self._stream(request, body, head, words, usage, cut=fate == "cut")
        else:
            message = {"role": "assistant", "content": "word " * words}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            response = web.json_response({**head, "object": "chat.completion", "choices": [choice], "usage": usage})
        if clean:
            self.answers[body["model"]] += 1
            self.tokens[body["model"]] += words + PROMPT_TOKENS
        return response

    async def _stream(
        self, request: web.Request, body: dict[str, Any], head: dict[str, Any], words: int, usage: Any, *, cut: bool
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)

        async def send(choices: list[dict[str, Any]], **more: Any) -> None:
            event = {**head, "object": "chat.completion.chunk", "choices": choices, **more}
            await response.write(b"data: " + json.dumps(event).encode() + b"\n\n")

        await send([{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}])
        for index in range(words):
            if cut and index >= words // 2 and request.transport is not None:
                request.transport.abort()
                return response
            await send([{"index": 0, "delta": {"content": "word "}, "finish_reason": None}])
        await send([{"index": 0, "delta": {}, "finish_reason": "stop"}])
        if (body.get("stream_options") or {}).get("include_usage"):
            await send([], usage=usage)
        await response.write(b"data: [DONE]\n\n")
        return response
