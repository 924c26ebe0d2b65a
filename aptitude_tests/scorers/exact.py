"""Exactly this reply and nothing else: for tasks whose point is the format."""

from __future__ import annotations

from aptitude_tests.extraction.cleaning import strip_thoughts
from aptitude_tests.extraction.refusal import is_refusal
from aptitude_tests.item import Item, Reply, Verdict
from aptitude_tests.scorers.registry import SCORERS, Scorer, missing


def grade(item: Item, reply: Reply) -> Verdict:
    """Right where the reply is the gold text; the same text within more words is the wrong format."""
    text = strip_thoughts(reply.text)
    if text == item.gold:
        return Verdict(1.0, text, "right")
    if not text or (item.gold not in text and is_refusal(text)):
        return missing(reply)
    if item.gold in text:
        return Verdict(0.0, text[:200], "wrong_format", "the answer is there, with other text around it")
    return Verdict(0.0, text[:200], "wrong")


def _problem(item: Item) -> str | None:
    is_text = isinstance(item.gold, str) and item.gold.strip() == item.gold != ""
    return None if is_text else f"gold {item.gold!r} is not a text without blanks around it"


SCORERS.add(
    Scorer(
        "exact",
        "exactly the given characters",
        "the whole reply",
        grade,
        lambda item: Reply(item.gold),
        lambda item: Reply(f"Here you are: {item.gold}"),
        _problem,
    )
)
