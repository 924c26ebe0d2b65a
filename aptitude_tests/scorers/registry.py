"""The registry of scorers and the one function that applies them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from aptitude_tests.errors import AptitudeError
from aptitude_tests.extraction.refusal import is_refusal
from aptitude_tests.item import Item, Reply, Verdict
from aptitude_tests.registry import Registry


@dataclass(frozen=True, slots=True)
class Scorer:
    """One way to grade.

    Attributes:
        gold: the shape of `Item.gold`, in words.
        grade: the verdict on a reply; pure but for `code`, which runs a process.
        right: a reply that must score 1, from the gold answer.
        wrong: a reply that must score 0 and does hold an answer.
        problem: what is wrong with the item's gold answer, None if nothing.
        blocks: takes longer than a millisecond; run it in a thread.
    """

    name: str
    summary: str
    gold: str
    grade: Callable[[Item, Reply], Verdict]
    right: Callable[[Item], Reply]
    wrong: Callable[[Item], Reply]
    problem: Callable[[Item], str | None]
    blocks: bool = False


def _load() -> None:
    from aptitude_tests.scorers import choice, code, constraints, date, exact, json_value, number, text, tool_call

    assert all((choice, code, constraints, date, exact, json_value, number, text, tool_call))


#: Entry points of the group are callables that return a `Scorer`.
SCORERS: Registry[Scorer] = Registry("scorer", group="orbweaver.aptitude.scorers", load=_load)


def score(item: Item, reply: Reply) -> Verdict:
    """Grade a reply with the item's scorer.

    Raises:
        LookupError: no scorer of that name.
    """
    return SCORERS.get(item.scorer).grade(item, reply)


def missing(reply: Reply, detail: str = "") -> Verdict:
    """The verdict on a reply without an answer: no score, and why."""
    if not reply.text.strip() and not reply.tool_calls:
        return Verdict(None, None, "empty", detail or "the reply is empty")
    if is_refusal(reply.text):
        return Verdict(None, None, "refused", detail or "the reply declines")
    return Verdict(None, None, "no_answer", detail or "no answer found in the reply")


def judged(is_right: bool, extracted: str, detail: str = "") -> Verdict:
    """The verdict on an answer: 1 or 0."""
    return Verdict(1.0, extracted, "right") if is_right else Verdict(0.0, extracted, "wrong", detail)


def check_item(item: Item) -> None:
    """Refuse an item that its own scorer could not grade.

    Raises:
        AptitudeError: unknown scorer, or a gold answer of the wrong shape.
    """
    try:
        scorer = SCORERS.get(item.scorer)
    except LookupError as error:
        raise AptitudeError(f"item {item.id!r}: {error}") from error
    try:
        problem = scorer.problem(item)
    except (KeyError, TypeError, AttributeError) as error:
        problem = f"gold or tools have the wrong shape ({type(error).__name__}: {error}), gold {item.gold!r}"
    if problem:
        raise AptitudeError(
            f"item {item.id!r}: {problem}", hint=f"The gold answer of {item.scorer!r} is {scorer.gold}."
        )
