"""A scripted model that takes aptitude tests: it knows the items of a suite and answers them right or wrong on wish."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aptitude_tests.item import Item, Suite
from aptitude_tests.render import render_text
from aptitude_tests.scorers import SCORERS
from tests.support.scripted_upstream import Received, Reply, chat_answer, chat_stream

READY = "Reply with one word: ready"


class AnsweringModel:
    """A reply for `ScriptedUpstream.always`.

    Args:
        knows: whether it answers an item right.
        delay_s: before every answer.
    """

    def __init__(self, suite: Suite, knows: Callable[[Item], bool] = lambda _: True, *, delay_s: float = 0.0) -> None:
        self.asked: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self._items = {render_text(item): item for item in suite.items}
        self._knows, self._delay_s = knows, delay_s
        self._lock = threading.Lock()

    def __call__(self, received: Received) -> Reply:
        body = received.json
        content = body["messages"][-1]["content"]
        text = content if isinstance(content, str) else content[0]["text"]
        item = self._items.get(text)
        if body.get("stream"):
            return chat_stream(["one, ", "two, ", "three"])
        with self._lock:
            self.asked[item.id if item is not None else "probe"] += 1
        reply = Reply(body=self._answer(item, body), delay_s=self._delay_s)
        return reply

    def _answer(self, item: Item | None, body: dict[str, Any]) -> dict[str, Any]:
        if item is not None:
            scorer = SCORERS.get(item.scorer)
            return chat_answer((scorer.right if self._knows(item) else scorer.wrong)(item).text)
        if body.get("tools"):
            call = {
                "id": "c1",
                "type": "function",
                "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'},
            }
            return chat_answer(None, message={"tool_calls": [call]}, choice={"finish_reason": "tool_calls"})
        if body.get("response_format"):
            return chat_answer('{"city": "Tokyo", "inhabitants": 14000000}')
        return chat_answer("ready")


def write_suite(path: Path, count: int = 24, *, long: int = 0) -> Path:
    """A task file with choice items, the first `long` of some 500 tokens; load it with `build_suite(str(path))`."""
    head = {
        "task": "numbers",
        "version": 1,
        "summary": "Tell a number.",
        "keywords": ["number", "value", "choice", "letter", "plain"],
        "language": "en",
        "domain": "mathematics",
        "modality": "text",
        "scorer": "choice",
    }
    rows = [
        {
            "question": f"{'The weather was fine that day. ' * 64 * (number < long)}Which of these is {number}?",
            "gold": "ABCD"[number % 4],
            "options": [str(number) if k == number % 4 else f"not {number}, but {k}" for k in range(4)],
        }
        for number in range(count)
    ]
    path.write_text("\n".join(json.dumps(row) for row in [head, *rows]))
    return path
