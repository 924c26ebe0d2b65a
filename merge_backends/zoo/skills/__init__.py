"""The skills of the zoo: each module draws seeded questions in plain English whose answers can be checked exactly."""

from __future__ import annotations

import random
from collections.abc import Iterator

from merge_backends.zoo.skills import arithmetic, dates, lists, lookup, text
from merge_backends.zoo.skills.draft import Draw, Level, Question

SKILLS: dict[str, Draw] = {
    "arithmetic": arithmetic.draw,
    "text": text.draw,
    "lists": lists.draw,
    "dates": dates.draw,
    "lookup": lookup.draw,
}

#: Words of the questions' content, which the tokenizer keeps as letters: a model that reverses or copies must see them.
CONTENT_WORDS: frozenset[str] = frozenset(
    word.lower() for pool in (text.WORDS, lists.WORDS, lookup.NAMES, lookup.THINGS, lookup.PLACES) for word in pool
)


def draw_questions(skill: str, *, seed: int, count: int, level: Level = "full") -> Iterator[Question]:
    """`count` questions of one skill; the same seed gives the same questions.

    Args:
        level: "full" is what the skill is measured on, "easy" the smaller variants that the base learns.
    Raises:
        KeyError: for a skill that is not in `SKILLS`.
    """
    draw = SKILLS[skill]
    rng = random.Random(f"{skill}/{level}/{seed}")
    for _ in range(count):
        yield draw(rng, level)


__all__ = ["CONTENT_WORDS", "SKILLS", "Draw", "Level", "Question", "draw_questions"]
