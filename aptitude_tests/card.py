"""The model's card: what a measurement found, as plain values that a job keeps and a report shows."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from aptitude_tests.flow import Record
from aptitude_tests.item import Suite

_NORMAL_90 = 1.6449
CARD_VERSION = 1


class Interval(NamedTuple):
    """A share with its 90 % interval, all in 0..1."""

    share: float
    low: float
    high: float


def interval(right: float, total: int) -> Interval:
    """Wilson's score interval at 90 %. Raises ValueError where nothing was counted."""
    if total < 1:
        raise ValueError("an interval needs at least one answer")
    z2 = _NORMAL_90**2
    share = right / total
    centre = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = _NORMAL_90 * math.sqrt(share * (1 - share) / total + z2 / (4 * total**2)) / (1 + z2 / total)
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half))


@dataclass(frozen=True, slots=True)
class TaskResult:
    """One task of a card. `right` of `asked` replies; `no_answer` and `wrong_format` are among those not right."""

    name: str
    summary: str
    domain: str
    language: str
    asked: int
    right: float
    no_answer: int = 0
    wrong_format: int = 0

    @property
    def interval(self) -> Interval:
        """Share of right replies."""
        return interval(self.right, self.asked)


@dataclass(frozen=True, slots=True)
class Card:
    """What one measurement found. Times in seconds since 1970 or as durations in seconds; money in USD.

    Attributes:
        replies: graded or without an answer; `calls_without_reply` are not among them.
        reasons: verdict reason -> count. cut: replies that hit the token limit.
        standing: what the profile predicts for typical prompts, None without an encoder.
        wins: quality of the dial -> share of typical prompts that go to this model in the pool of then.
        notes: what the operator should know.
    """

    model: str
    suite: str
    suite_version: int
    seed: int
    measured_at: float
    tasks: tuple[TaskResult, ...]
    replies: int
    calls_without_reply: int
    reasons: Mapping[str, int]
    cut: int = 0
    cost_usd: float | None = None
    seconds_median: float | None = None
    tokens_mean: float | None = None
    probes: Mapping[str, Any] | None = None
    standing: Mapping[str, float] | None = None
    wins: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    drift: Mapping[str, Any] | None = None
    early: str | None = None
    notes: tuple[str, ...] = ()
    version: int = CARD_VERSION

    @property
    def overall(self) -> Interval:
        """Share of right replies over all tasks."""
        return interval(sum(task.right for task in self.tasks), sum(task.asked for task in self.tasks))

    def as_record(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Card:
        """Read what `as_record` wrote. Raises ValueError for a card of another version."""
        if record.get("version") != CARD_VERSION:
            raise ValueError(f"a card of version {record.get('version')!r}; this release reads {CARD_VERSION}")
        tasks = tuple(TaskResult(**task) for task in record["tasks"])
        return cls(**{**record, "tasks": tasks, "notes": tuple(record["notes"])})

    def by(self, attribute: str) -> dict[str, Interval]:
        """Shares by `domain` or `language`."""
        sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        for task in self.tasks:
            sums[getattr(task, attribute)][0] += task.right
            sums[getattr(task, attribute)][1] += task.asked
        return {name: interval(right, int(asked)) for name, (right, asked) in sorted(sums.items())}


def task_results(suite: Suite, records: Iterable[Record]) -> tuple[TaskResult, ...]:
    """Results by task, in the suite's order; tasks that were not asked are left out."""
    by_task: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        if record.verdict is not None:
            by_task[record.item.task].append(record)
    found = []
    for task in suite.tasks:
        mine = [record.verdict for record in by_task.get(task.name, ()) if record.verdict is not None]
        if mine:
            found.append(
                TaskResult(
                    task.name,
                    task.summary,
                    task.domain,
                    task.language,
                    len(mine),
                    sum(verdict.score or 0.0 for verdict in mine),
                    sum(verdict.score is None for verdict in mine),
                    sum(verdict.reason == "wrong_format" for verdict in mine),
                )
            )
    return tuple(found)


def standouts(card: Card, pool: Sequence[Card]) -> tuple[list[TaskResult], list[TaskResult]]:
    """Strengths and weaknesses: tasks whose interval lies beside what the model or the pool would lead one to expect.

    Compared with the pool's mean on the same task where other models were asked it, else with the model's own mean.
    """
    strengths, weaknesses = [], []
    for task in card.tasks:
        expected = pool_share(task.name, pool)
        expected = card.overall.share if expected is None else expected
        if task.interval.low > expected:
            strengths.append(task)
        elif task.interval.high < expected:
            weaknesses.append(task)
    strengths.sort(key=lambda task: -task.interval.low)
    weaknesses.sort(key=lambda task: task.interval.high)
    return strengths, weaknesses


def pool_share(task: str, pool: Sequence[Card]) -> float | None:
    """Mean share of right replies of other models on a task, None where none was asked it."""
    shares = [other.interval.share for card in pool for other in card.tasks if other.name == task]
    return sum(shares) / len(shares) if shares else None
