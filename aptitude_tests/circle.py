"""Circle test: a hard choice item counts only if it is solved with its options in every rotation.

Ref: Model-SAT (AAAI 2025), data refinement; a guess among n options survives r rotations with chance n^-(r+1).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from aptitude_tests.item import LETTERS, Item, Suite, Verdict

_REFERS = re.compile(
    r"\b(?:all|none|both|neither|either|any|two)\b.{0,12}\b(?:above|these|those|the other)"
    r"|\b(?:option|choice)s?\s[A-J]\b|\b[A-J]\s(?:and|or|&)\s[A-J]\b|\b[A-J],\s[A-J]\b",
    re.IGNORECASE,
)


def can_rotate(item: Item) -> bool:
    """True for choice items whose options do not speak of each other, as "all of the above" does."""
    return item.scorer == "choice" and not any(_REFERS.search(option) for option in item.options)


def rotate(item: Item, by: int) -> Item:
    """The item with its options moved `by` places; its id says so, and its gold letter follows the right option.

    Raises:
        ValueError: not a choice item.
    """
    if item.scorer != "choice":
        raise ValueError(f"item {item.id!r} has scorer {item.scorer!r}; only choice items have options to rotate")
    size = len(item.options)
    by %= size
    if by == 0:
        return item
    options = item.options[-by:] + item.options[:-by]
    gold = LETTERS[(LETTERS.index(item.gold) + by) % size]
    return replace(item, id=f"{item.id}#r{by}", options=options, gold=gold)


def rotations(item: Item, count: int) -> tuple[Item, ...]:
    """Up to `count` rotations other than the item itself, spread over the circle; none where it cannot rotate."""
    size = len(item.options)
    count = min(count, size - 1)
    if count < 1 or not can_rotate(item):
        return ()
    steps = sorted({1 + i * (size - 1) // count for i in range(count)})
    return tuple(rotate(item, by) for by in steps)


def hard_items(suite: Suite) -> tuple[Item, ...]:
    """Choice items worth a circle: few known models solved them, or they were made as hard ones."""
    return tuple(
        item
        for item in suite.items
        if can_rotate(item)
        and (suite.statistics[item.id]["p_seen"] < 0.45 if item.id in suite.statistics else item.difficulty == "hard")
    )


def close_circle(verdicts: Sequence[Verdict]) -> Verdict:
    """One verdict on all turns of an item: right only if every turn is; no answer in a turn is no answer at all.

    Raises:
        ValueError: no verdicts.
    """
    if not verdicts:
        raise ValueError("a circle needs at least one verdict")
    missing = next((verdict for verdict in verdicts if verdict.score is None), None)
    wrong = next((verdict for verdict in verdicts if verdict.score is not None and verdict.score < 1.0), None)
    if wrong is not None:
        held = sum(verdict.score == 1.0 for verdict in verdicts)
        return Verdict(0.0, wrong.extracted, "wrong", f"right in {held} of {len(verdicts)} rotations")
    return missing or verdicts[0]
