"""Deduction: classes of invented things, islanders who lie or not, formulas to satisfy."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any, TypeAlias

from aptitude_tests.generators.registry import generator, texts
from aptitude_tests.item import LETTERS, Difficulty, Draft, Language

#: kind, first class, second class
Premise: TypeAlias = tuple[str, int, int]


@generator("syllogism", summary="what follows about invented classes", scorer="choice")
def syllogism(rng: random.Random, difficulty: Difficulty, language: Language, params: Mapping[str, Any]) -> Draft:
    """Two premises over three classes up to four over five; certain, impossible or open, about equally often."""
    wording = texts("syllogism", language)
    size, count = {"easy": (3, 2), "medium": (4, 3), "hard": (5, 5)}[difficulty]
    target = rng.choice(("yes", "no", "open"))
    while True:
        kinds = ("all",) if difficulty == "easy" and target == "yes" else ("all", "all", "none", "some")
        premises: list[Premise] = []
        for i in range(count):
            a, b = (i, i + 1) if i + 1 < size and rng.random() < 0.8 else rng.sample(range(size), 2)
            premises.append((rng.choice(kinds), a, b))
        ask = (0, size - 1) if rng.random() < 0.7 else tuple(rng.sample(range(size), 2))
        stated = ("all", ask[0], ask[1]) in premises or ("none", ask[0], ask[1]) in premises
        consequence = follows(premises, ask[0], ask[1], size)
        if len(set(premises)) == count and consequence == target and not stated:
            break
    names = rng.sample(wording["classes"], size)
    rng.shuffle(premises)
    lines = [wording[kind].format(a=names[a], b=names[b]) for kind, a, b in premises]
    lines += [wording["exist"], wording["ask_all"].format(a=names[ask[0]], b=names[ask[1]])]
    kinds_shown = ("yes", "no", "open")
    return Draft(
        " ".join(lines), LETTERS[kinds_shown.index(target)], options=tuple(wording[kind] for kind in kinds_shown)
    )


def follows(premises: Sequence[Premise], a: int, b: int, size: int) -> str:
    """Whether "all a are b" is certain (`yes`), impossible (`no`), `open`, or the premises are at odds (`clash`).

    An individual is a set of classes. "All" and "none" forbid kinds of individuals, "some" asks for one of the rest,
    and every class has a member; so each case is decided by looking at the kinds that are left.
    """
    left = [
        kind
        for kind in range(1, 2**size)
        if all(
            not (kind >> x & 1) or (bool(kind >> y & 1) == (which == "all"))
            for which, x, y in premises
            if which != "some"
        )
    ]
    asked_for = [(x, y) for which, x, y in premises if which == "some"] + [(x, x) for x in range(size)]
    witnesses = [[kind for kind in left if kind >> x & 1 and kind >> y & 1] for x, y in asked_for]
    if not all(witnesses):
        return "clash"
    breaks = [kind for kind in left if kind >> a & 1 and not kind >> b & 1]
    if not breaks:
        return "yes"
    forced = any(all(kind in breaks for kind in group) for group in witnesses)
    return "no" if forced else "open"


@generator("islanders", summary="who tells the truth", scorer="choice")
def islanders(rng: random.Random, difficulty: Difficulty, language: Language, params: Mapping[str, Any]) -> Draft:
    """Islanders always lie or never; their statements leave exactly one assignment."""
    size = {"easy": 2, "medium": 3, "hard": 4}[difficulty]
    names = rng.sample(["Alba", "Boro", "Cato", "Dima", "Enzo", "Faye", "Gita", "Hale"], size)
    worlds = list(product((True, False), repeat=size))
    while True:
        statements = [_statement(rng, i, names) for i in range(size)]
        possible = [w for w in worlds if all(claim(w) == w[i] for i, (_, claim) in enumerate(statements))]
        if len(possible) == 1:
            break
    said = "\n".join(f'{name} says: "{text}"' for name, (text, _) in zip(names, statements, strict=True))
    truth = possible[0]
    wrong = rng.sample([w for w in worlds if w != truth], 3)
    options = tuple(_describe(w, names) for w in rng.sample([truth, *wrong], 4))
    question = (
        "On an island every inhabitant is either a knight, who always tells the truth, or a knave, who always lies. "
        f"You meet {', '.join(names[:-1])} and {names[-1]}.\n{said}\nWho are the knights?"
    )
    return Draft(question, LETTERS[options.index(_describe(truth, names))], options=options)


def _describe(world: Sequence[bool], names: Sequence[str]) -> str:
    knights = [name for name, honest in zip(names, world, strict=True) if honest]
    return " and ".join([", ".join(knights[:-1]), knights[-1]] if len(knights) > 1 else knights) or "nobody"


def _statement(rng: random.Random, speaker: int, names: Sequence[str]) -> tuple[str, Callable[[Sequence[bool]], bool]]:
    others = [i for i in range(len(names)) if i != speaker]
    i = rng.choice(others)
    j = rng.choice([k for k in range(len(names)) if k != i])
    first, second = names[i], "I" if j == speaker else names[j]
    verb = "am" if j == speaker else "is"
    kind = rng.choice(("knight", "knave", "same", "differ", "either", "count"))
    if kind == "knight":
        return f"{first} is a knight.", lambda w: w[i]
    if kind == "knave":
        return f"{first} is a knave.", lambda w: not w[i]
    if kind == "same":
        return f"{first} and {second} are of the same kind.", lambda w: w[i] == w[j]
    if kind == "differ":
        return f"{first} and {second} are of different kinds.", lambda w: w[i] != w[j]
    if kind == "either":
        return f"{first} is a knave or {second} {verb} a knight.", lambda w: not w[i] or w[j]
    n = rng.randint(1, len(names) - 1)
    return f"Exactly {n} of us {'is a knight' if n == 1 else 'are knights'}.", lambda w: sum(w) == n


@generator("satisfying_assignments", summary="how many assignments make a formula true", scorer="number")
def satisfying_assignments(
    rng: random.Random, difficulty: Difficulty, language: Language, params: Mapping[str, Any]
) -> Draft:
    """Formulas over two to four variables; the count leaves little to guess."""
    names = "pqrs"[: {"easy": 2, "medium": 3, "hard": 4}[difficulty]]
    while True:
        text, holds = _formula(rng, names, {"easy": 1, "medium": 2, "hard": 3}[difficulty])
        count = sum(holds(dict(zip(names, world, strict=True))) for world in product((True, False), repeat=len(names)))
        if 0 < count < 2 ** len(names) and all(name in text for name in names):
            break
    return Draft(
        f"How many of the {2 ** len(names)} assignments of true and false to {', '.join(names)} "
        f"make this formula true? {text}",
        count,
    )


def _formula(rng: random.Random, names: str, depth: int) -> tuple[str, Callable[[Mapping[str, bool]], bool]]:
    if depth == 0 or (depth < 3 and rng.random() < 0.15):
        name = rng.choice(names)
        if rng.random() < 0.35:
            return f"NOT {name}", lambda w: not w[name]
        return name, lambda w: w[name]
    left, left_holds = _formula(rng, names, depth - 1)
    right, right_holds = _formula(rng, names, depth - 1)
    kind = rng.choice(("AND", "OR", "XOR", "IMPLIES"))
    rules: dict[str, Callable[[Mapping[str, bool]], bool]] = {
        "AND": lambda w: left_holds(w) and right_holds(w),
        "OR": lambda w: left_holds(w) or right_holds(w),
        "XOR": lambda w: left_holds(w) != right_holds(w),
        "IMPLIES": lambda w: not left_holds(w) or right_holds(w),
    }
    return f"({left} {kind} {right})", rules[kind]
