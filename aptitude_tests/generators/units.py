"""Units: conversions, mixed sums, rates."""

from __future__ import annotations

import random
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from aptitude_tests.generators.registry import generator, texts
from aptitude_tests.item import Difficulty, Draft, Language

_LENGTH = {"km": 1_000_000, "m": 1000, "cm": 10, "mm": 1}
_MASS = {"t": 1_000_000, "kg": 1000, "g": 1}
_VOLUME = {"l": 1000, "ml": 1}
_TIME = {"d": 86_400, "h": 3600, "min": 60, "s": 1}
_KINDS = (_LENGTH, _MASS, _TIME)


@generator("unit", summary="a conversion of units", scorer="number")
def unit(rng: random.Random, difficulty: Difficulty, language: Language, params: Mapping[str, Any]) -> Draft:
    """A whole conversion, a sum of two units with a decimal, a rate of both volume and time."""
    wording = texts("units", language)
    names, one = wording["units"], wording["one"]
    kind = rng.choice(_KINDS)
    big, small = sorted(rng.sample(sorted(kind), 2), key=lambda name: -kind[name])
    if difficulty == "easy":
        value = rng.randint(2, 90)
        gold = Fraction(value * kind[big], kind[small])
        return Draft(wording["convert"].format(value=value, a=names[big], b=names[small]), str(gold))
    if difficulty == "medium":
        kind = rng.choice((_LENGTH, _MASS, _TIME))
        low, middle, high = sorted(rng.sample(sorted(kind), 3), key=lambda name: kind[name])
        x, y = rng.randint(2, 20), rng.randint(3, 50)
        gold = Fraction(x * kind[high] + y * kind[middle], kind[low])
        return Draft(wording["sum"].format(b=names[low], x=x, a=names[high], y=y, b2=names[middle]), str(gold))
    s, t = rng.sample(("d", "h", "min", "s"), 2)
    value = rng.randint(2, 60) * (_TIME[s] // _TIME[t] if _TIME[s] > _TIME[t] else 1)
    gold = Fraction(value * _VOLUME["l"] * _TIME[t], _VOLUME["ml"] * _TIME[s])
    return Draft(wording["rate"].format(value=value, a=names["l"], s=one[s], b=names["ml"], t=one[t]), str(gold))
