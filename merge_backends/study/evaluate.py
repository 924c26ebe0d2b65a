"""Accuracy of an encoder on every task, row by row, and what share of the gap between probe and experts it recovers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import nn

from merge_backends.study.data import Split, StudyTask
from merge_backends.study.encoder import encode
from merge_backends.study.heads import Head

Correct = dict[str, npt.NDArray[np.bool_]]
"""Task -> one entry per row: was the row classified correctly?"""
DRAWS = 2000


def correct_rows(
    encoder: nn.Module, tasks: Sequence[StudyTask], heads: Sequence[Head], split: Split, *, half: bool
) -> Correct:
    """Which rows of a split the encoder gets right under each task's head."""
    return {
        task.name: correct_of_task(encoder, task, head, split, half=half)
        for task, head in zip(tasks, heads, strict=True)
    }


def correct_of_task(
    encoder: nn.Module, task: StudyTask, head: Head, split: Split, *, half: bool
) -> npt.NDArray[np.bool_]:
    """One task's entry of `correct_rows`."""
    rows = {"train": task.train, "validation": task.validation, "test": task.test}[split]
    predicted = head.logits(encode(encoder, rows, half=half)).argmax(-1)
    result: npt.NDArray[np.bool_] = (predicted == rows.labels).numpy()
    return result


def accuracies(correct: Mapping[str, npt.NDArray[np.bool_]]) -> dict[str, float]:
    """Accuracy per task, in 0..1."""
    return {name: float(rows.mean()) for name, rows in correct.items()}


def average(correct: Mapping[str, npt.NDArray[np.bool_]]) -> float:
    """Mean of the tasks' accuracies; every task counts the same."""
    return float(np.mean(list(accuracies(correct).values())))


@dataclass(frozen=True)
class Interval:
    """An estimate and its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """A method against probe and individual experts, over the same rows.

    Attributes:
        average: mean accuracy over tasks.
        recovered: (method - probe) / (individual - probe); 1 is as good as the experts. Wide where the gap is small.
    """

    average: Interval
    recovered: Interval


def compare(
    method: Sequence[Correct], probe: Sequence[Correct], individual: Sequence[Correct], *, seed: int = 0
) -> Comparison:
    """Paired bootstrap: rows are drawn within each task, the same ones for all three and for all runs.

    Runs of other seeds have other experts and the same test rows, so their errors go together. Where the method was
    tested on the first rows only, the other two are looked at on those.

    Args:
        method: one entry per run (seed); `probe` and `individual` belong to it by position.
    """
    draws = _Draws(seed)
    means = np.zeros((3, DRAWS))
    points = np.zeros(3)
    count = 0
    for runs in zip(method, probe, individual, strict=True):
        for task in runs[0]:
            count_of_rows = min(len(run[task]) for run in runs)
            rows = np.stack([run[task][:count_of_rows] for run in runs]).astype(np.float64)
            points += rows.mean(axis=1)
            means += draws.means(task, rows)
            count += 1
    return Comparison(_interval(points[0] / count, means[0] / count), _interval(_share(points), _share(means)))


class _Draws:
    """Bootstrap samples of each task's rows: drawn once for a number of rows, however many runs are looked at."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.kept: dict[tuple[str, int], npt.NDArray[np.float64]] = {}

    def means(self, task: str, rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Of `(..., rows)`, the mean of each sample: `(..., draws)`."""
        count = rows.shape[-1]
        if (task, count) not in self.kept:
            generator = np.random.default_rng([self.seed, len(self.kept)])
            times = generator.multinomial(count, np.full(count, 1 / count), size=DRAWS)
            self.kept[task, count] = times.T / count
        drawn: npt.NDArray[np.float64] = rows @ self.kept[task, count]
        return drawn


def _share(means: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    gap = means[2] - means[1]
    share: npt.NDArray[np.float64] = np.divide(means[0] - means[1], gap, out=np.full_like(gap, np.nan), where=gap != 0)
    return share


def _interval(value: float | npt.NDArray[np.float64], draws: npt.NDArray[np.float64]) -> Interval:
    low, high = np.nanpercentile(draws, [2.5, 97.5]) if np.isfinite(draws).any() else (np.nan, np.nan)
    return Interval(float(value), float(low), float(high))


def bootstrap_difference(first: Sequence[Correct], second: Sequence[Correct], *, seed: int = 0) -> Interval:
    """Average accuracy of `first` minus that of `second`, paired by row and drawn as in `compare`."""
    draws = _Draws(seed)
    columns = [
        (task, _difference(run[task], other[task])) for run, other in zip(first, second, strict=True) for task in run
    ]
    value = float(np.mean([rows.mean() for _, rows in columns]))
    return _interval(value, np.mean([draws.means(task, rows) for task, rows in columns], axis=0))


def _difference(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Row by row over the rows that both have: a slow method may be tested on the first rows only."""
    count = min(len(first), len(second))
    return first[:count].astype(np.float64) - second[:count].astype(np.float64)


def as_lists(correct: Correct) -> dict[str, str]:
    """Compact text for JSON: one character per row, "1" where it was right."""
    return {name: "".join("1" if row else "0" for row in rows) for name, rows in correct.items()}


def from_lists(kept: Mapping[str, str]) -> Correct:
    """The inverse of `as_lists`."""
    return {name: np.frombuffer(rows.encode(), dtype=np.uint8) == ord("1") for name, rows in kept.items()}
