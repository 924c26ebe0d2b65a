"""Numbers alone: expressions, number theory and sequences."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import Any

from aptitude_tests.generators.registry import generator
from aptitude_tests.item import Difficulty, Draft, Language

_SIZES = {"easy": (2, 20), "medium": (12, 99), "hard": (101, 999)}


@generator("expression", summary="a nested integer expression", scorer="number")
def expression(rng: random.Random, difficulty: Difficulty, language: Language, params: Mapping[str, Any]) -> Draft:
    """An expression of two to five operations, brackets in all but the easy ones."""
    low, high = _SIZES[difficulty]
    a, b, c, d, e = (rng.randint(low, high) for _ in range(5))
    small = rng.randint(3, 9)
    forms = {
        "easy": [(f"{a} + {b} * {small}", a + b * small), (f"{a} * {small} - {b}", a * small - b)],
        "medium": [
            (f"({a} + {b}) * {small} - {c} * {d}", (a + b) * small - c * d),
            (f"{a} * {b} - ({c} - {d}) * {small}", a * b - (c - d) * small),
        ],
        "hard": [
            (f"({a} - {b}) * ({c} + {small}) - {d} * {e}", (a - b) * (c + small) - d * e),
            (f"{a} * {b} - {c} * ({d} - {e} * {small})", a * b - c * (d - e * small)),
        ],
    }
    text, value = rng.choice(forms[difficulty])
    return Draft(f"Compute the value of the expression {text}.", value)


@generator("number_theory", summary="divisors, remainders, powers and digits", scorer="number")
def number_theory(rng: random.Random, difficulty: Difficulty, language: Language, params: Mapping[str, Any]) -> Draft:
    """Greatest common divisors, remainders of powers, counts of multiples, sums of digits."""
    if difficulty == "easy":
        g, a, b = rng.randint(3, 15), rng.randint(4, 20), rng.randint(4, 20)
        if rng.random() < 0.5:
            return Draft(f"What is the greatest common divisor of {g * a} and {g * b}?", math.gcd(g * a, g * b))
        n, k = rng.randint(100, 999), rng.randint(6, 17)
        return Draft(f"What is the remainder when {n} is divided by {k}?", n % k)
    if difficulty == "medium":
        n, a, b = rng.randint(200, 900), rng.choice((4, 6, 8, 9)), rng.choice((10, 14, 15, 21))
        if rng.random() < 0.5:
            both = math.lcm(a, b)
            return Draft(
                f"How many integers from 1 to {n} are divisible by {a} or by {b}?", n // a + n // b - n // both
            )
        return Draft(f"What is the least common multiple of {a * 7}, {b} and {n}?", math.lcm(a * 7, b, n))
    base, power, modulus = rng.randint(3, 19), rng.randint(30, 90), rng.choice((7, 11, 13, 17, 19, 23, 29, 31))
    if rng.random() < 0.5:
        return Draft(f"What is the remainder when {base}^{power} is divided by {modulus}?", pow(base, power, modulus))
    n = rng.choice((360, 420, 504, 720, 756, 840, 990, 1008, 1260)) * rng.randint(2, 9)
    divisors = sum(1 for k in range(1, n + 1) if n % k == 0)
    return Draft(f"How many positive divisors does {n} have?", divisors)


@generator("sequence", summary="the next number of a sequence", scorer="number")
def sequence(rng: random.Random, difficulty: Difficulty, language: Language, params: Mapping[str, Any]) -> Draft:
    """Arithmetic and geometric, then quadratic, then two-term recurrences and interleaved sequences."""
    start, step = rng.randint(2, 30), rng.randint(2, 12)
    if difficulty == "easy":
        ratio = rng.choice((2, 3))
        terms = [start + i * step for i in range(7)] if rng.random() < 0.6 else [step * ratio**i for i in range(6)]
    elif difficulty == "medium":
        grow = rng.randint(1, 5)
        terms = [start]
        for i in range(7):
            terms.append(terms[-1] + step + grow * i)
    elif rng.random() < 0.5:
        factor, add = rng.choice((1, 2)), rng.randint(-4, 6)
        terms = [rng.randint(1, 5), rng.randint(2, 9)]
        while len(terms) < 8:
            terms.append(factor * terms[-1] + terms[-2] + add)
    else:
        terms = []
        for i in range(5):
            terms += [start + i * step, rng.choice((2, 3)) if i == 0 else terms[1] * 2**i]
        terms = terms[:9]
    shown, following = terms[:-1], terms[-1]
    listed = ", ".join(map(str, shown))
    return Draft(f"A sequence follows a fixed rule. Its first terms are {listed}. What is the next term?", following)
