"""Weekdays, calendar dates, times of day and units of measure."""

from __future__ import annotations

import datetime
import random

from merge_backends.zoo.skills.draft import Level, Question

_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = tuple("January February March April May June July August September October November December".split())
#: (larger unit, smaller unit, how many of the smaller make one of the larger); the first three are the easy ones.
_UNITS = (
    ("km", "m", 1000),
    ("kg", "g", 1000),
    ("m", "cm", 100),
    ("hours", "minutes", 60),
    ("minutes", "seconds", 60),
    ("weeks", "days", 7),
    ("days", "hours", 24),
    ("years", "months", 12),
    ("feet", "inches", 12),
)
_PHRASES = {
    "later": ("Which weekday is {n} days after {d}?", "What day of the week comes {n} days after {d}?"),
    "earlier": ("Which weekday is {n} days before {d}?", "What day of the week comes {n} days before {d}?"),
    "shift": ("What date is {n} days after {d}?", "Which date comes {n} days after {d}?"),
    "written": ("Write the date {d} in words.", "Write the date {d} with the name of the month."),
    "iso": ("Write the date {d} as year-month-day.", "Write the date {d} in ISO format."),
    "clock": ("Write the time {d} on a 12-hour clock.", "What is the time {d} in am or pm?"),
    "convert": ("Convert {n} {a} to {b}.", "How many {b} are {n} {a}?", "How many {b} are there in {n} {a}?"),
    "length": ("How many days does {d} have?", "How many days are in the month of {d}?"),
}


def draw(rng: random.Random, level: Level) -> Question:
    """Steps of up to 12 days over the ends of months, nine units; easy ones stay within the month and three units."""
    family = rng.choice(("later", "earlier", "shift", "written", "iso", "clock", "convert", "convert", "length"))
    phrase = rng.choice(_PHRASES[family])
    easy = level == "easy"
    if family in ("later", "earlier"):
        index, n = rng.randrange(7), rng.randint(1, 2) if easy else rng.randint(2, 12)
        answer = _DAYS[(index + (n if family == "later" else -n)) % 7]
        return Question(family, phrase.format(n=n, d=_DAYS[index]), answer)
    if family == "convert":
        larger, smaller, factor = rng.choice(_UNITS[:3] if easy else _UNITS)
        n = rng.randint(1, 5) if easy else rng.randint(2, 20)
        return Question(family, phrase.format(n=n, a=larger, b=smaller), str(n * factor))
    if family == "clock":
        hour, minute = (rng.randint(1, 11), rng.choice((0, 30))) if easy else (rng.randrange(24), rng.randrange(60))
        half = "am" if hour < 12 else "pm"
        return Question(family, phrase.format(d=f"{hour:02}:{minute:02}"), f"{(hour - 1) % 12 + 1}:{minute:02} {half}")
    return _of_calendar(rng, family, phrase, easy=easy)


def _of_calendar(rng: random.Random, family: str, phrase: str, *, easy: bool) -> Question:
    # 2027 is not a leap year: dates without a year mean an ordinary one.
    day = datetime.date(2027, 1, 1) + datetime.timedelta(days=rng.randrange(345))
    if family == "length":
        days = ((day.replace(day=28) + datetime.timedelta(days=4)).replace(day=1) - datetime.timedelta(days=1)).day
        return Question(family, phrase.format(d=_MONTHS[day.month - 1]), str(days))
    if family == "shift":
        if easy:
            day = day.replace(day=rng.randint(1, 9))
        n = rng.randint(1, 9) if easy else rng.randint(2, 12)
        return Question(family, phrase.format(n=n, d=_named(day)), _named(day + datetime.timedelta(days=n)))
    if easy:
        day = day.replace(month=rng.randint(1, 3)) if day.day < 29 else day.replace(month=1)
    day = day.replace(year=rng.randint(2020, 2022) if easy else rng.randint(2000, 2039)) if day.day < 29 else day
    named, iso = f"{_named(day)} {day.year}", day.isoformat()
    shown, answer = (iso, named) if family == "written" else (named, iso)
    return Question(family, phrase.format(d=shown), answer)


def _named(day: datetime.date) -> str:
    return f"{day.day} {_MONTHS[day.month - 1]}"
