"""Long context: facts among hundreds of sentences that look alike."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from aptitude_tests.generators.registry import generator
from aptitude_tests.item import Difficulty, Draft, Language

_PLACES = (
    "harbour", "library", "station", "museum", "market", "bakery", "theatre", "hospital", "garden", "school",
    "airport", "chapel", "stadium", "quarry", "lighthouse", "mill", "bridge", "archive", "factory", "observatory",
)  # fmt: skip
_DETAILS = (
    "was painted last spring", "closes early on Mondays", "has a new caretaker", "is popular with tourists",
    "was damaged by a storm", "will be extended next year", "has three entrances", "is hard to find at night",
    "belongs to the town", "was built from local stone", "is heated with wood", "has a small cafe",
)  # fmt: skip
_TOWNS = ("Avel", "Brenn", "Corvo", "Dalby", "Estrin", "Farrow", "Gotha Vale", "Hollin", "Istra", "Jarrow End")
_SIZES = {"easy": 12, "medium": 60, "hard": 200}


@generator("needle", summary="facts hidden in a long text", scorer="number")
def needle(rng: random.Random, difficulty: Difficulty, language: Language, params: Mapping[str, Any]) -> Draft:
    """One code among filler; then one of several like it; then two codes to add, one of them corrected later."""
    spots = rng.sample([(place, town) for place in _PLACES for town in _TOWNS], 8)
    codes = {spot: rng.randint(1000, 9999) for spot in spots}
    lines = [
        f"The {place} of {town} {rng.choice(_DETAILS)}."
        for place, town in ((rng.choice(_PLACES), rng.choice(_TOWNS)) for _ in range(_SIZES[difficulty]))
    ]
    hidden = spots[: {"easy": 1, "medium": 4, "hard": 8}[difficulty]]
    for place, town in hidden:
        lines.insert(rng.randrange(len(lines)), f"The access code of the {place} of {town} is {codes[place, town]}.")
    (place, town), gold = hidden[0], codes[hidden[0]]
    ask = f"What is the access code of the {place} of {town}?"
    if difficulty == "hard":
        new = rng.randint(1000, 9999)
        lines.append(f"Correction: the access code of the {place} of {town} was changed; it is now {new}.")
        lines += [f"The {rng.choice(_PLACES)} of {rng.choice(_TOWNS)} {rng.choice(_DETAILS)}." for _ in range(20)]
        other = hidden[1]
        ask = (
            f"What is the sum of the current access codes of the {place} of {town} and of the {other[0]} of {other[1]}?"
        )
        gold = new + codes[other]
    return Draft(" ".join(lines) + "\n\n" + ask, gold)
