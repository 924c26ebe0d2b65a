"""Instruction following: every constraint is checked by a rule, and all must hold."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from aptitude_tests.extraction.cleaning import strip_thoughts
from aptitude_tests.extraction.refusal import is_refusal
from aptitude_tests.item import Item, Reply, Verdict
from aptitude_tests.scorers.registry import SCORERS, Scorer, missing

_BULLET = re.compile(r"^\s*[-*•]\s+\S")
_NUMBERED = re.compile(r"^\s*\d+[.)]\s+\S")


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", text)


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


def _count(text: str, word: str) -> int:
    return len(re.findall(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE))


#: name -> check(text, value). The value is a number, a text, or [text, number].
CHECKS: dict[str, Callable[[str, Any], bool]] = {
    "words_exactly": lambda text, n: len(_words(text)) == n,
    "words_at_least": lambda text, n: len(_words(text)) >= n,
    "words_at_most": lambda text, n: len(_words(text)) <= n,
    "characters_at_most": lambda text, n: len(text) <= n,
    "lines_exactly": lambda text, n: len(_lines(text)) == n,
    "bullets_exactly": lambda text, n: len(_lines(text)) == n and all(map(_BULLET.match, _lines(text))),
    "numbered_exactly": lambda text, n: len(_lines(text)) == n and all(map(_NUMBERED.match, _lines(text))),
    "sentences_exactly": lambda text, n: len(re.findall(r"[^.!?。！？]*\w[^.!?。！？]*[.!?。！？]+", text)) == n,
    "words_per_line": lambda text, n: all(len(_words(line)) == n for line in _lines(text)),
    "contains": lambda text, word: _count(text, word) > 0,
    "contains_times": lambda text, value: _count(text, value[0]) == value[1],
    "lacks": lambda text, word: _count(text, word) == 0,
    "lacks_letter": lambda text, letter: letter.casefold() not in text.casefold(),
    "lacks_commas": lambda text, _: not set(text) & set(",，、"),
    "lowercase": lambda text, _: text == text.lower(),
    "uppercase": lambda text, _: text == text.upper(),
    "starts_with": lambda text, start: text.startswith(start),
    "ends_with": lambda text, end: text.endswith(end),
    "each_line_starts_with": lambda text, start: all(line.startswith(start) for line in _lines(text)),
}


def grade(item: Item, reply: Reply) -> Verdict:
    """Right where all constraints hold; the detail names those that do not."""
    text = strip_thoughts(reply.text).replace("**", "").strip()
    if not text:
        return missing(reply)
    broken = [rule for rule in item.gold["constraints"] if not CHECKS[rule["check"]](text, rule.get("value"))]
    if not broken:
        return Verdict(1.0, text[:200], "right")
    if is_refusal(text) and len(text) < 200:
        return missing(reply)
    return Verdict(0.0, text[:200], "wrong", "broken: " + ", ".join(rule["check"] for rule in broken))


def _problem(item: Item) -> str | None:
    rules = item.gold.get("constraints") if isinstance(item.gold, dict) else None
    if not isinstance(rules, list) or not rules:
        return "gold needs a list `constraints`"
    for rule in rules:
        if not isinstance(rule, dict) or rule.get("check") not in CHECKS:
            return f"unknown check in {rule!r}; known are {', '.join(CHECKS)}"
    return None


def _wrong(item: Item) -> Reply:
    candidates = ("Zebra, Über\nQUIZ", "zz", "one, two")
    return next(Reply(text) for text in candidates if grade(item, Reply(text)).score == 0.0)


SCORERS.add(
    Scorer(
        "constraints",
        "a text that keeps checkable constraints",
        '{"constraints": [{"check": name, "value": ...}], "example": optional reply that keeps them}',
        grade,
        lambda item: Reply(item.gold.get("example", "")),
        _wrong,
        _problem,
    )
)
