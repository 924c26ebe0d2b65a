"""Two or three unknowns from as many linear equations with integer solutions."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from aptitude_tests.generators.registry import generator
from aptitude_tests.item import Difficulty, Draft, Language


@generator("linear_system", summary="a combination of the unknowns of a linear system", scorer="number")
def linear_system(rng: random.Random, difficulty: Difficulty, language: Language, params: Mapping[str, Any]) -> Draft:
    """One, two or three unknowns; the question asks for a combination, so that all are needed."""
    size = {"easy": 1, "medium": 2, "hard": 3}[difficulty]
    names = "xyz"[:size]
    while True:
        values = [rng.choice([n for n in range(-9, 13) if n]) for _ in names]
        rows = [[rng.choice([n for n in range(-5, 8) if n]) for _ in names] for _ in names]
        if _determinant(rows) != 0:
            break
    shift = rng.randint(2, 30)
    equations = []
    for row in rows:
        right = sum(a * x for a, x in zip(row, values, strict=True))
        equations.append(
            f"{_side(row, names)} + {shift} = {right + shift}" if size == 1 else f"{_side(row, names)} = {right}"
        )
    weights = [rng.choice((1, 2, 3, -1, -2)) for _ in names]
    asked = _side(weights, names)
    gold = sum(w * x for w, x in zip(weights, values, strict=True))
    return Draft(f"Given {'; '.join(equations)}, what is the value of {asked}?", gold)


def _side(row: list[int], names: str) -> str:
    text = ""
    for factor, name in zip(row, names, strict=True):
        sign = "-" if factor < 0 else "+"
        term = name if abs(factor) == 1 else f"{abs(factor)}{name}"
        text += f" {sign} {term}" if text else (f"-{term}" if factor < 0 else term)
    return text


def _determinant(rows: list[list[int]]) -> int:
    if len(rows) == 1:
        return rows[0][0]
    minors = ([row[:i] + row[i + 1 :] for row in rows[1:]] for i in range(len(rows)))
    return sum((-1) ** i * rows[0][i] * _determinant(minor) for i, minor in enumerate(minors))
