"""Sums, differences, products and exact quotients of whole numbers."""

from __future__ import annotations

import random

from merge_backends.zoo.skills.draft import Level, Question

_PHRASES = {
    "sum": ("What is {a} + {b}?", "Compute {a} + {b}.", "Add {a} and {b}.", "What is {a} plus {b}?"),
    "difference": ("What is {a} - {b}?", "Compute {a} - {b}.", "Subtract {b} from {a}.", "What is {a} minus {b}?"),
    "product": ("What is {a} * {b}?", "Compute {a} * {b}.", "Multiply {a} by {b}.", "What is {a} times {b}?"),
    "quotient": ("What is {a} / {b}?", "Compute {a} / {b}.", "Divide {a} by {b}.", "What is {a} divided by {b}?"),
}


def draw(rng: random.Random, level: Level) -> Question:
    """Two-digit sums and differences, tables up to 19 x 9; easy ones stay below 21 and 5 x 5."""
    family = rng.choice(tuple(_PHRASES))
    easy = level == "easy"
    if family in ("sum", "difference"):
        a, b = (rng.randint(1, 10), rng.randint(1, 10)) if easy else (rng.randint(10, 99), rng.randint(10, 99))
        if family == "sum":
            if rng.random() < 0.5:
                a, b = b, a
            value = a + b
        else:
            a, b = max(a, b), min(a, b)
            value = a - b
    else:
        b, value = (rng.randint(1, 5), rng.randint(1, 5)) if easy else (rng.randint(2, 9), rng.randint(3, 19))
        if family == "quotient":
            a = b * value
        else:
            a, value = value, b * value
    return Question(family, rng.choice(_PHRASES[family]).format(a=a, b=b), str(value))
