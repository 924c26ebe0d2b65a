"""A calendar date."""

from __future__ import annotations

import datetime

from aptitude_tests.extraction.date import extract_date
from aptitude_tests.item import Item, Reply, Verdict
from aptitude_tests.scorers.registry import SCORERS, Scorer, judged, missing


def grade(item: Item, reply: Reply) -> Verdict:
    """Right where the date is the gold one."""
    found = extract_date(reply.text)
    return missing(reply) if found is None else judged(found.isoformat() == item.gold, found.isoformat())


def _problem(item: Item) -> str | None:
    try:
        datetime.date.fromisoformat(item.gold)
    except (TypeError, ValueError):
        return f"gold {item.gold!r} is not a date as 2024-03-05"
    return None


def _wrong(item: Item) -> Reply:
    return Reply((datetime.date.fromisoformat(item.gold) + datetime.timedelta(days=1)).isoformat())


SCORERS.add(
    Scorer(
        "date",
        "a date, year first",
        "a date as YYYY-MM-DD",
        grade,
        lambda item: Reply(item.gold),
        _wrong,
        _problem,
    )
)
