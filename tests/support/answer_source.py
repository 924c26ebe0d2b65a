"""`ScriptedSource`: an `AnswerSource` in memory that a test tells what to answer, and builders of small suites."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aptitude_tests.item import Item, Reply, Suite, Task
from aptitude_tests.render import render_text
from aptitude_tests.scorers import SCORERS
from aptitude_tests.source import AskFailure, Completion, Question

Answer = Callable[[Item | None, Question], Completion | AskFailure]


class ScriptedSource:
    """Answers each item by `answer`; what is asked is in `asked`, the most calls at a time in `most`."""

    identity = "scripted"

    def __init__(self, suite: Suite, answer: Answer | None = None, *, delay_s: float = 0.0) -> None:
        self.asked: list[str] = []
        self.running = self.most = 0
        self.answer: Answer = answer or (lambda item, question: right(item))
        self._items = {render_text(item): item for item in suite.items}
        self._delay_s = delay_s

    async def ask(self, question: Question, limit_s: float) -> Completion:
        content = question.fields["messages"][0]["content"]
        item = self._items.get(content if isinstance(content, str) else content[0]["text"])
        self.asked.append(item.id if item is not None else "?")
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(self._delay_s)
        finally:
            self.running -= 1
        found = self.answer(item, question)
        if isinstance(found, AskFailure):
            raise found
        return found


def right(item: Item | None) -> Completion:
    """A reply that scores 1; a fixed one for what is no item."""
    return _completion(Reply("ready") if item is None else SCORERS.get(item.scorer).right(item))


def wrong(item: Item | None) -> Completion:
    """A reply that scores 0."""
    return _completion(Reply("ready") if item is None else SCORERS.get(item.scorer).wrong(item))


def _completion(reply: Reply) -> Completion:
    return Completion(reply.text, tuple(reply.tool_calls), "stop", 100, 10, None, 0.01)


def choice_suite(count: int = 12, tasks: int = 3) -> Suite:
    """Choice items with four options; difficulty easy, medium, hard in turn."""
    names = [f"task-{number}" for number in range(tasks)]
    items = tuple(
        Item(
            id=f"small/{names[number % tasks]}/{number}",
            task=names[number % tasks],
            shot=number // tasks,
            question=f"What is {number} and nothing else?",
            gold="ABCD"[number % 4],
            scorer="choice",
            difficulty=("easy", "medium", "hard")[number // tasks % 3],
            options=tuple(f"value {number * 10 + k}" for k in range(4)),
        )
        for number in range(count)
    )
    words = ("one", "two", "three", "four", "five")
    made = tuple(
        Task(name, 1, f"Tell {name}.", words, "en", f"domain-{number % 2}", "text", "choice")
        for number, name in enumerate(names)
    )
    return Suite("small", 1, "A small suite.", 0, made, items)
