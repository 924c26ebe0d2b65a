"""Who came where: clues that leave exactly one answer, found by trying all orders."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import permutations
from typing import Any, TypeAlias

from aptitude_tests.generators.registry import generator, texts
from aptitude_tests.item import LETTERS, Difficulty, Draft, Language

Order: TypeAlias = Sequence[str]
Clue: TypeAlias = tuple[str, Callable[[Order], bool]]

_RUNNERS = {"easy": 3, "medium": 4, "hard": 6}


@generator("ordering", summary="an order from clues", scorer="choice")
def ordering(rng: random.Random, difficulty: Difficulty, language: Language, params: Mapping[str, Any]) -> Draft:
    """Clues are drawn until the asked place has one possible runner; clues that add nothing are dropped."""
    wording = texts("ordering", language)
    names = rng.sample(wording["names"], _RUNNERS[difficulty])
    truth = rng.sample(names, len(names))
    place = rng.randint(2, len(names) - 1) if difficulty != "easy" else rng.randint(1, len(names))
    clues: list[Clue] = []
    orders: list[Order] = list(permutations(sorted(names)))
    left = orders
    while len({order[place - 1] for order in left}) > 1:
        text, holds = _clue(rng, truth, difficulty, wording)
        fewer = [order for order in left if holds(order)]
        if len(fewer) < len(left):
            clues.append((text, holds))
            left = fewer
    clues = _needed(clues, orders, place)
    rng.shuffle(clues)
    intro = wording["intro"].format(n=len(names), names=wording["join"].join(sorted(names)))
    options = tuple(rng.sample(names, len(names)))
    return Draft(
        "\n".join([intro, *(text for text, _ in clues), wording["ask"].format(p=place)]),
        LETTERS[options.index(truth[place - 1])],
        options=options,
    )


def _needed(clues: list[Clue], orders: Iterable[Order], place: int) -> list[Clue]:
    """The clues without those that the others imply for the asked place."""
    kept = list(clues)
    for clue in clues:
        others = [other for other in kept if other is not clue]
        if len({order[place - 1] for order in orders if all(holds(order) for _, holds in others)}) == 1:
            kept = others
    return kept


def _clue(rng: random.Random, truth: Order, difficulty: Difficulty, wording: Mapping[str, str]) -> Clue:
    """One true statement about the order."""
    i, j = sorted(rng.sample(range(len(truth)), 2))
    a, b = truth[i], truth[j]
    kinds = {"easy": ("before",), "medium": ("before", "not_place", "just_before")}.get(
        difficulty, ("before", "not_place", "gap", "just_before")
    )
    kind = rng.choice(kinds)
    if kind == "gap" and j - i > 1:
        k = j - i - 1
        pair = (a, b) if rng.random() < 0.5 else (b, a)
        return wording["gap"].format(k=k, a=pair[0], b=pair[1]), lambda o: abs(o.index(a) - o.index(b)) == k + 1
    if kind == "just_before" and j - i == 1:
        return wording["just_before"].format(a=a, b=b), lambda o: o.index(b) - o.index(a) == 1
    if kind == "not_place":
        p = rng.choice([p for p in range(len(truth)) if p != i])
        return wording["not_place"].format(a=a, p=p + 1), lambda o: o[p] != a
    return wording["before"].format(a=a, b=b), lambda o: o.index(a) < o.index(b)
