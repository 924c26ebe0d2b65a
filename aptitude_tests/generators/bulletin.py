"""Extraction: one detail out of notices, some of which are changed by later ones."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from aptitude_tests.generators.registry import generator, texts
from aptitude_tests.item import Difficulty, Draft, Language


@generator("bulletin", summary="one detail out of notices", scorer="text")
def bulletin(rng: random.Random, difficulty: Difficulty, language: Language, params: Mapping[str, Any]) -> Draft:
    """Two notices, then four, then six with changes that come later and count."""
    wording = texts("bulletin", language)
    count = {"easy": 2, "medium": 4, "hard": 6}[difficulty]
    subjects = rng.sample(wording["subjects"], count)
    details = [_details(rng, wording) for _ in subjects]
    lines = [wording["notice"].format(subject=s, **d) for s, d in zip(subjects, details, strict=True)]
    asked = rng.randrange(count)
    field = rng.choice(("person", "room", "code", "mail") if difficulty == "easy" else ("room", "code", "mail"))
    if difficulty == "hard":
        field = rng.choice(("room", "code"))
        for i in {asked, *rng.sample(range(count), 2)}:
            details[i] |= {key: value for key, value in _details(rng, wording).items() if key in ("room", "code")}
            lines.append(wording["change"].format(subject=subjects[i], **details[i]))
    question = "\n".join(lines) + "\n\n" + wording["asks"][field].format(subject=subjects[asked])
    known = {"person": wording["people"], "room": wording["rooms"]}.get(field)
    gold: Any = [details[asked][field]]
    return Draft(question, {"answers": gold, "candidates": known} if known else gold)


def _details(rng: random.Random, wording: Mapping[str, Any]) -> dict[str, str]:
    letters = "".join(rng.choice("BCDFGHKLMNPRST") for _ in range(2))
    return {
        "person": rng.choice(wording["people"]),
        "room": rng.choice(wording["rooms"]),
        "code": f"{letters}-{rng.randint(1000, 9999)}",
        "time": f"{rng.randint(8, 17)}:{rng.choice(('00', '15', '30', '45'))}",
        "mail": f"kurs{rng.randint(100, 999)}@beispiel{rng.randint(2, 9)}.example",
    }
