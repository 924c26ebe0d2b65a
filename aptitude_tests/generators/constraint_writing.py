"""Instruction following: texts under rules that a program can check, with an example that keeps them."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from aptitude_tests.generators.registry import generator, texts
from aptitude_tests.item import Difficulty, Draft, Language

_COUNTS: dict[Difficulty, tuple[int, int]] = {"easy": (1, 2), "medium": (3, 3), "hard": (5, 5)}


@generator("constraint_writing", summary="a short text under checkable rules", scorer="constraints")
def constraint_writing(
    rng: random.Random, difficulty: Difficulty, language: Language, params: Mapping[str, Any]
) -> Draft:
    """One or two rules, then three, then five. The rules are read off an example text, so they never clash."""
    wording = texts("constraint_writing", language)
    lines, width = rng.randint(2, 6), rng.randint(3, 8)
    letter = rng.choice("zkxwj" if difficulty == "easy" else "uhfgb" if difficulty == "medium" else "dlst")
    usable = [word for word in wording["words"] if letter not in word]
    word = rng.choice(usable)
    others = [w for w in usable if w != word] or usable
    body = [[rng.choice(others) for _ in range(width)] for _ in range(lines)]
    times = rng.randint(2, 4)
    spots = rng.sample([(i, j) for i in range(lines) for j in range(width - 1)], min(times, lines * (width - 1)))
    for i, j in spots:
        body[i][j] = word
    bullets = rng.random() < 0.4
    text = "\n".join(("- " if bullets else "") + " ".join(row) for row in body)
    absent = rng.choice([w for w in wording["words"] if w not in text.split()])
    rules: list[dict[str, Any]] = [
        {"check": "bullets_exactly" if bullets else "lines_exactly", "value": lines},
        {"check": "words_per_line", "value": width},
        {"check": "lacks_letter", "value": letter},
        {"check": "contains_times", "value": [word, len(spots)]},
        {"check": "lacks", "value": absent},
        {"check": "lowercase"},
        {"check": "lacks_commas"},
        {"check": "ends_with", "value": body[-1][-1]},
        {"check": "words_at_most", "value": lines * width + rng.randint(0, 20)},
        {"check": "contains", "value": word},
    ]
    first = rules[0] if difficulty != "easy" or rng.random() < 0.5 else rules[3]
    rest = [rule for rule in rules if rule is not first]
    if first is rules[3]:
        rest.remove(rules[9])
    chosen = [first, *rng.sample(rest, rng.randint(*_COUNTS[difficulty]) - 1)]
    told = [f"{i}. {_tell(rule, wording)}" for i, rule in enumerate(chosen, 1)]
    intro = wording["intro"].format(subject=rng.choice(wording["subjects"]))
    return Draft("\n".join([intro, *told]), {"constraints": chosen, "example": text})


def _tell(rule: Mapping[str, Any], wording: Mapping[str, str]) -> str:
    value = rule.get("value")
    parts = {"v0": value[0], "v1": value[1]} if isinstance(value, list) else {}
    return wording[rule["check"]].format(v=value, **parts)
