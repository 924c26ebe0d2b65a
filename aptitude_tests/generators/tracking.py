"""Reading: where a thing is after a story of moves, plans and swaps, in six languages."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from aptitude_tests.generators.registry import generator, texts
from aptitude_tests.item import Difficulty, Draft, Language


@generator("tracking", summary="where a thing is after a story", scorer="text")
def tracking(rng: random.Random, difficulty: Difficulty, language: Language, params: Mapping[str, Any]) -> Draft:
    """Two things and one move, up to four things with plans that come to nothing and swaps."""
    wording = texts("tracking", language)
    size, steps = {"easy": (2, 2), "medium": (3, 6), "hard": (4, 12)}[difficulty]
    objects = rng.sample(wording["objects"], size)
    places = rng.sample(wording["places"], min(size + 2, len(wording["places"])))
    where = {i: places[i] for i in range(size)}

    def name() -> str:
        chosen: str = rng.choice(wording["names"])
        return chosen

    lines = [wording["put"].format(name=name(), object=objects[i][1], place=where[i][0]) for i in range(size)]
    moved: set[int] = set()
    idle = rng.sample(wording["idle"], len(wording["idle"]))
    for step in range(steps):
        i = rng.randrange(size)
        place = rng.choice([p for p in places if p != where[i]])
        kind = "move" if step == 0 or difficulty == "easy" else rng.choice(("move", "move", "idle", "plan", "swap"))
        if kind == "swap" and difficulty != "hard":
            kind = "idle"
        if kind == "idle":
            lines.append(idle[step % len(idle)].format(name=name()))
        elif kind == "swap":
            j = rng.choice([k for k in range(size) if k != i])
            where[i], where[j] = where[j], where[i]
            moved |= {i, j}
            lines.append(wording["swap"].format(name=name(), first=objects[i][0], second=objects[j][0]))
        else:
            lines.append(wording[kind].format(name=name(), object=objects[i][1], place=place[0]))
            if kind == "move":
                where[i] = place
                moved.add(i)
    asked = rng.choice(sorted(moved)) if moved and rng.random() < 0.8 else rng.randrange(size)
    gap = "" if language == "zh" else " "
    question = gap.join(lines) + "\n\n" + wording["ask"].format(object=objects[asked][0])
    return Draft(question, {"answers": [where[asked][1]], "candidates": [place[1] for place in wording["places"]]})
