"""The load: clean clients, whose every answer is counted, and rough ones, who leave early and meet faults."""

from __future__ import annotations

import asyncio
from collections import Counter
from random import Random
from typing import Any

import aiohttp

TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
THINK_S = 0.05
PROMPTS = (
    "What is 17 * 23?",
    "Traduce al francés: buenos días",
    "Sort: pear, fig, apple",
    "def f(x): return",
    "你好吗?",
)


class Clients:
    """Asks replicas in turn until told to stop. `urls` may change while it runs; a replica that is away is waited for.

    Attributes:
        ended: how requests ended, by client and by status (`left` where the client went away, `lost` for a broken
            connection).
        answers: whole answers of the clean clients.  tokens: what their usage says.
    """

    def __init__(self, urls: list[str], key: str, seed: int) -> None:
        self.urls = urls
        self.ended: Counter[tuple[str, str]] = Counter()
        self.answers = 0
        self.tokens = 0
        self.stop = asyncio.Event()
        self._key = key
        self._random = Random(seed)

    async def run(self, clean: int, rough: int) -> None:
        """Keep so many clients of each kind busy until `stop` is set."""
        timeout = aiohttp.ClientTimeout(total=60)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
            kinds = ["clean"] * clean + ["rough"] * rough
            await asyncio.gather(*(self._one(session, kind) for kind in kinds))

    async def _one(self, session: aiohttp.ClientSession, kind: str) -> None:
        while not self.stop.is_set():
            url = self._random.choice(self.urls)
            try:
                status = await self._ask(session, url, kind)
            except aiohttp.ClientConnectorError:
                await asyncio.sleep(0.1)  # the replica is being restarted; nothing was sent
                continue
            except (aiohttp.ClientError, TimeoutError):
                status = "lost"
            self.ended[kind, status] += 1
            # People and programs think between requests; without this the soak would only measure a full machine.
            await asyncio.sleep(self._random.expovariate(1 / THINK_S))

    async def _ask(self, session: aiohttp.ClientSession, url: str, kind: str) -> str:
        random = self._random
        body: dict[str, Any] = {
            "model": random.choice(("auto", "auto", "auto:best", "alpha", "beta")),
            "messages": [{"role": "user", "content": f"{random.choice(PROMPTS)} {random.randrange(50)}"}],
            "user": kind,
            "stream": random.random() < 0.5,
        }
        if random.random() < 0.2:
            body["tools"] = [TOOL]
        if body["stream"] and random.random() < 0.5:
            body["stream_options"] = {"include_usage": True}
        headers = {"authorization": f"Bearer {self._key}"}
        async with session.post(f"{url}/v1/chat/completions", json=body, headers=headers) as answer:
            if kind == "rough" and random.random() < 0.1:
                await answer.content.readany()
                return "left"
            data = await answer.read()
        if kind == "clean" and answer.status == 200:
            if body["stream"] and not data.rstrip().endswith(b"[DONE]"):
                return "lost"
            self.answers += 1
        return str(answer.status)
