"""Exact probabilities and counts, asked as fractions or whole numbers."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from aptitude_tests.generators.registry import generator
from aptitude_tests.item import Difficulty, Draft, Language

_COLOURS = ("red", "blue", "green", "white", "black", "yellow")


@generator("probability", summary="probabilities of draws and dice, as fractions", scorer="number")
def probability(rng: random.Random, difficulty: Difficulty, language: Language, params: Mapping[str, Any]) -> Draft:
    """One draw, then two draws without putting back, then conditions and complements."""
    first, second, third = rng.sample(_COLOURS, 3)
    a, b, c = rng.randint(2, 9), rng.randint(2, 9), rng.randint(2, 9)
    total = a + b + c
    bag = f"A bag holds {a} {first}, {b} {second} and {c} {third} balls."
    if difficulty == "easy":
        gold = Fraction(a + b, total)
        ask = f"One ball is drawn at random. What is the probability that it is {first} or {second}?"
    elif difficulty == "medium":
        gold = Fraction(2 * a * b, total * (total - 1))
        ask = (
            "Two balls are drawn at random without putting the first one back. "
            f"What is the probability that one is {first} and the other is {second}?"
        )
    elif rng.random() < 0.5:
        gold = 1 - Fraction(math.comb(total - a, 3), math.comb(total, 3))
        ask = f"Three balls are drawn at random at once. What is the probability that at least one is {first}?"
    else:
        same = math.comb(a, 2) + math.comb(b, 2) + math.comb(c, 2)
        gold = Fraction(math.comb(a, 2), same)
        ask = (
            "Two balls are drawn at random at once. Given that they have the same colour, "
            f"what is the probability that both are {first}?"
        )
    return Draft(f"{bag} {ask} Give a fraction.", str(gold))
