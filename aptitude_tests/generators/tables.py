"""Tables: look-ups, sums over a filter, two-step questions."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

from aptitude_tests.generators.registry import generator, texts
from aptitude_tests.item import Difficulty, Draft, Language


class Branch(NamedTuple):
    """One row of the table."""

    name: str
    region: str
    staff: int
    orders: int
    returns: int


@generator("table", summary="a question about a table", scorer="number")
def table(rng: random.Random, difficulty: Difficulty, language: Language, params: Mapping[str, Any]) -> Draft:
    """Four rows and a look-up, up to twelve rows and two steps."""
    wording = texts("tables", language)
    size = {"easy": 4, "medium": 7, "hard": 12}[difficulty]
    rows = [
        Branch(name, rng.choice(wording["regions"]), rng.randint(4, 60), rng.randint(100, 990), rng.randint(5, 95))
        for name in rng.sample(wording["branches"], size)
    ]
    head = wording["head"]
    written = [f"| {' | '.join(map(str, row))} |" for row in [head, ["---"] * len(head), *rows]]
    ask, gold = _question(rng, difficulty, rows, wording)
    return Draft("\n".join([wording["intro"], "", *written, "", ask]), gold)


def _question(
    rng: random.Random, difficulty: Difficulty, rows: list[Branch], wording: Mapping[str, Any]
) -> tuple[str, int]:
    head = wording["head"]
    column = rng.choice((2, 3, 4))
    first, second = rng.sample(rows, 2)
    if difficulty == "easy":
        if rng.random() < 0.6:
            return wording["cell"].format(column=head[column], branch=first.name), int(first[column])
        gap = int(first[column]) - int(second[column])
        return wording["difference"].format(column=head[column], first=first.name, second=second.name), gap
    if difficulty == "medium":
        if rng.random() < 0.5:
            total = sum(int(row[column]) for row in rows if row.region == first.region)
            return wording["sum"].format(column=head[column], region=first.region), total
        n, m = rng.randint(15, 35) * 10, rng.randint(40, 80)
        hits = sum(row.orders > n and row.returns < m for row in rows)
        return wording["count"].format(n=n, m=m, a=head[3], b=head[4]), hits
    if rng.random() < 0.5:
        a, b = rng.sample((2, 3, 4), 2)
        totals: dict[str, int] = defaultdict(int)
        for row in rows:
            totals[row.region] += int(row[a])
        best = max(totals, key=lambda region: (totals[region], region))
        if list(totals.values()).count(totals[best]) == 1:
            return wording["best"].format(a=head[a], b=head[b]), max(int(r[b]) for r in rows if r.region == best)
    n = sorted(row.staff for row in rows)[len(rows) // 2]
    return wording["ratio"].format(n=n), sum(row.orders - row.returns for row in rows if row.staff >= n)
