"""Arithmetic in words, in six languages: prices, speeds, tanks, ages, mixtures and crews."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

from aptitude_tests.generators.registry import generator, texts
from aptitude_tests.item import Difficulty, Draft, Language

Values = dict[str, int]


def _change(rng: random.Random) -> tuple[Values, int]:
    a, p, b, q = rng.randint(2, 9), rng.randint(2, 7), rng.randint(2, 9), rng.randint(2, 6)
    cost = a * p + b * q
    n = (cost // 10 + rng.randint(1, 3)) * 10
    return {"a": a, "p": p, "b": b, "q": q, "n": n}, n - cost


def _distance(rng: random.Random) -> tuple[Values, int]:
    h, v, k, w = rng.randint(2, 4), rng.randint(12, 25), rng.randint(2, 5), rng.randint(11, 24)
    return {"h": h, "v": v, "k": k, "w": w}, h * v + k * w


def _tank(rng: random.Random) -> tuple[Values, int]:
    d, net, minutes = rng.randint(3, 12), rng.randint(7, 25), rng.randint(12, 48)
    return {"t": net * minutes, "f": net + d, "d": d}, minutes


def _discount(rng: random.Random) -> tuple[Values, int]:
    p, x, y = rng.randint(3, 40) * 100, rng.choice((10, 15, 20, 25, 30, 40)), rng.choice((10, 20, 30, 40, 50))
    p *= 2  # so that cuts of 15 and 25 percent leave whole prices
    return {"p": p, "x": x, "y": y}, p * (100 - x) * (100 - y) // 10_000


def _ages(rng: random.Random) -> tuple[Values, int]:
    younger, m, k = rng.randint(3, 14), rng.randint(2, 9), rng.choice((3, 4, 5))
    older_by = (k - 1) * (younger + m)
    return {"a": older_by, "m": m, "k": k}, younger + older_by


def _meeting(rng: random.Random) -> tuple[Values, int]:
    h, t, v, w = rng.randint(1, 3), rng.randint(2, 6), rng.randint(7, 12) * 10, rng.randint(6, 13) * 10
    h += 1  # plural in every language
    return {"d": v * h + (v + w) * t, "h": h, "v": v, "w": w}, v * (h + t)


def _mixture(rng: random.Random) -> tuple[Values, int]:
    while True:
        x, y, p, q = rng.randint(2, 18), rng.randint(2, 18), rng.randint(4, 40), rng.randint(41, 85)
        if x != y and (p * x + q * y) % (x + y) == 0:
            return {"x": x, "y": y, "p": p, "q": q}, (p * x + q * y) // (x + y)


def _crew(rng: random.Random) -> tuple[Values, int]:
    while True:
        w, d = rng.randint(5, 16), rng.randint(8, 24)
        e, r = rng.randint(2, d - 3), rng.randint(2, w - 2)
        if w * (d - e) % (w - r) == 0:
            return {"w": w, "d": d, "e": e, "r": r}, e + w * (d - e) // (w - r)


_SCENES: dict[Difficulty, dict[str, Callable[[random.Random], tuple[Values, int]]]] = {
    "easy": {"change": _change, "distance": _distance},
    "medium": {"tank": _tank, "discount": _discount},
    "hard": {"ages": _ages, "meeting": _meeting, "mixture": _mixture, "crew": _crew},
}


@generator("word_problem", summary="an everyday problem in words", scorer="number")
def word_problem(rng: random.Random, difficulty: Difficulty, language: Language, params: Mapping[str, Any]) -> Draft:
    """Two steps, then rates and percentages, then equations that the reader has to set up."""
    wording = texts("word_problems", language)
    scene = rng.choice(sorted(_SCENES[difficulty]))
    values, gold = _SCENES[difficulty][scene](rng)
    name, other = rng.sample(wording["names"], 2)
    return Draft(wording[scene].format(name=name, other=other, **values), gold)
