"""Multiple choice: the letter counts."""

from __future__ import annotations

from aptitude_tests.extraction.choice import extract_choice
from aptitude_tests.item import LETTERS, Item, Reply, Verdict
from aptitude_tests.scorers.registry import SCORERS, Scorer, judged, missing


def grade(item: Item, reply: Reply) -> Verdict:
    """Right where the letter that the reply commits to is the gold one."""
    letter = extract_choice(reply.text, item.options)
    return missing(reply) if letter is None else judged(letter == item.gold, letter)


def _problem(item: Item) -> str | None:
    if not 2 <= len(item.options) <= len(LETTERS):
        return f"{len(item.options)} options, expected 2 to {len(LETTERS)}"
    return (
        None if item.gold in tuple(LETTERS[: len(item.options)]) else f"gold {item.gold!r} is the letter of no option"
    )


def _wrong(item: Item) -> Reply:
    return Reply("B" if item.gold == "A" else "A")


SCORERS.add(
    Scorer(
        "choice",
        "the letter of an option",
        "the letter of the right option",
        grade,
        lambda item: Reply(str(item.gold)),
        _wrong,
        _problem,
    )
)
