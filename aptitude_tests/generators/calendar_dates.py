"""Dates: days between, repeating meetings, weekdays of a month, working days."""

from __future__ import annotations

import calendar
import datetime
import random
from collections.abc import Mapping
from typing import Any

from aptitude_tests.generators.registry import generator, texts
from aptitude_tests.item import Difficulty, Draft, Language

_DAY = datetime.timedelta(days=1)


@generator("calendar_date", summary="a date from another date", scorer="date")
def calendar_date(rng: random.Random, difficulty: Difficulty, language: Language, params: Mapping[str, Any]) -> Draft:
    """A few days on, then across months and leap years, then by weekdays and working days."""
    wording = texts("calendar_dates", language)
    start = datetime.date(1990, 1, 1) + datetime.timedelta(days=rng.randrange(25_000))
    if difficulty == "easy":
        n = rng.randint(5, 25)
        kind, gold, values = "after", start + n * _DAY, {"n": n}
    elif difficulty == "medium":
        kind = rng.choice(("after", "before", "weeks"))
        n, w = rng.randint(40, 160), rng.randint(2, 6)
        if kind == "weeks":
            n = rng.randint(5, 14)
            gold, values = start + 7 * w * (n - 1) * _DAY, {"n": n, "w": w}
        else:
            gold, values = start + (n if kind == "after" else -n) * _DAY, {"n": n}
    else:
        kind = rng.choice(("nth", "working", "month_end"))
        gold, values = _hard(rng, kind, start, wording)
    weekday = wording["weekdays"][start.weekday()]
    return Draft(wording[kind].format(date=start.isoformat(), weekday=weekday, **values), gold.isoformat())


def _hard(
    rng: random.Random, kind: str, start: datetime.date, wording: Mapping[str, Any]
) -> tuple[datetime.date, dict[str, Any]]:
    if kind == "working":
        n, day = rng.randint(12, 60), start
        left = n
        while left:
            day += _DAY
            left -= day.weekday() < 5
        return day, {"n": n}
    if kind == "month_end":
        n = rng.randint(4, 30)
        year, month = divmod(start.year * 12 + start.month - 1 + n - 1, 12)
        return datetime.date(year, month + 1, calendar.monthrange(year, month + 1)[1]), {"n": n}
    k, asked, ahead = rng.randint(2, 4), rng.randrange(7), rng.randint(3, 14)
    year, month = divmod(start.year * 12 + start.month - 1 + ahead, 12)
    first = datetime.date(year, month + 1, 1)
    day = first + ((asked - first.weekday()) % 7 + 7 * (k - 1)) * _DAY
    return day, {"k": k, "asked": wording["weekdays"][asked], "month": month + 1, "year": year}
