"""The calendar date a reply commits to."""

from __future__ import annotations

import datetime
import re

from aptitude_tests.extraction.cleaning import answer_part, fold_scripts, strip_markup
from aptitude_tests.extraction.commitment import drop_refuted, last_commitment

_DATE = re.compile(r"(?<!\d)(\d{4})\s*[-/.年]\s*(\d{1,2})\s*[-/.月]\s*(\d{1,2})(?!\d)")


def extract_date(reply: str) -> datetime.date | None:
    """The last date, year first as `2024-03-05` or `2024年3月5日`, that the reply commits to; None without one."""
    text = drop_refuted(strip_markup(fold_scripts(answer_part(reply)).replace("\u2010", "-").replace("\u2011", "-")))
    committed = last_commitment(text)
    found = (_dates(committed.text)[:1] if committed else []) or _dates(text)
    return found[-1] if found else None


def _dates(text: str) -> list[datetime.date]:
    found = []
    for year, month, day in _DATE.findall(text):
        try:
            found.append(datetime.date(int(year), int(month), int(day)))
        except ValueError:
            continue
    return found
