"""A number: exact, or within the tolerance that the item gives."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from aptitude_tests.extraction.number import extract_number
from aptitude_tests.item import Item, Reply, Verdict
from aptitude_tests.scorers.registry import SCORERS, Scorer, judged, missing


def grade(item: Item, reply: Reply) -> Verdict:
    """Right where either reading of the number's separators is the gold value."""
    found = extract_number(reply.text, item.language)
    if found is None:
        return missing(reply)
    value, tolerance = _gold(item.gold)
    readings = [reading for reading in found if reading is not None]
    return judged(any(abs(reading - value) <= tolerance for reading in readings), str(found.value))


def _gold(gold: Any) -> tuple[Fraction, Fraction]:
    """Value and tolerance; decimals are read as written, not as binary floats."""
    if isinstance(gold, dict):
        return Fraction(str(gold["value"])), Fraction(str(gold.get("tolerance", 0)))
    return Fraction(str(gold)), Fraction(0)


def _problem(item: Item) -> str | None:
    if isinstance(item.gold, bool):
        return f"gold {item.gold!r} is not a number"
    try:
        _, tolerance = _gold(item.gold)
    except (ValueError, KeyError, TypeError, ZeroDivisionError):
        return f"gold {item.gold!r} is not a number"
    return None if tolerance >= 0 else "the tolerance is negative"


def _wrong(item: Item) -> Reply:
    value, tolerance = _gold(item.gold)
    return Reply(str(value + 2 * tolerance + 1))


SCORERS.add(
    Scorer(
        "number",
        "a number, also as a fraction",
        'a number, a fraction as "3/4", or {"value": ..., "tolerance": ...}',
        grade,
        lambda item: Reply(str(_gold(item.gold)[0])),
        _wrong,
        _problem,
    )
)
