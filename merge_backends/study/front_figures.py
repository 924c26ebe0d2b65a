"""What the records of one front over several seeds say: differences at equal weights, hypervolume, monotonicity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from merge_backends.moe.front import Point, hypervolume, monotonicity
from merge_backends.study.evaluate import DRAWS, Interval
from merge_backends.study.fronts import KINDS

Floats = npt.NDArray[np.float64]
Record = Mapping[str, Any]


def summarise_fronts(records: Sequence[Record], *, draws: int = DRAWS, seed: int = 0) -> list[dict[str, Any]]:
    """One summary for each set of tasks among the records, in order of appearance."""
    sets = list(dict.fromkeys(tuple(record["tasks"]) for record in records))
    return [
        summarise([record for record in records if tuple(record["tasks"]) == tasks], draws=draws, seed=seed)
        for tasks in sets
    ]


def summarise(records: Sequence[Record], *, draws: int = DRAWS, seed: int = 0) -> dict[str, Any]:
    """Pareto MoE against linear task arithmetic over the records of one set of tasks, one record per seed.

    `chosen` compares with linear at equal weights the point of each seed's front whose worst task, by loss on
    validation rows, stands best against it: the point that a user who wants no task to lose would take.

    Intervals are 95 % paired bootstrap ones over test rows; all kinds, preferences and seeds are looked at on the same
    draw, for they share their test rows. Hypervolumes (of accuracies) are means over the seeds, above the lowest
    accuracy of any point. Differences are Pareto MoE's minus linear's, so a lower loss is a negative one.
    """
    tasks = list(records[0]["tasks"])
    rng = np.random.default_rng(seed)
    right = {task: _rows(records, "correct", task) for task in tasks}
    losses = {task: _rows(records, "losses", task) for task in tasks}
    weights = {task: _weights(right[task].shape[-1], draws, rng) for task in tasks}
    preferences = [tuple(point["preference"]) for point in records[0]["linear"]]
    middle = min(range(len(preferences)), key=lambda index: max(preferences[index]) - min(preferences[index]))
    # (seeds, kinds, preferences, tasks, draws); draw 0 is the rows themselves.
    drawn = np.stack([right[task] @ weights[task] for task in tasks], axis=3)
    floor = drawn[..., 0].min(axis=(0, 1, 2))
    volumes = _volumes(drawn, floor)
    found = {
        "accuracy": {task: _gain(right[task][:, :, middle], weights[task]) for task in tasks},
        "loss": {task: _gain(losses[task][:, :, middle], weights[task]) for task in tasks},
    }
    picked = [_choose(record, middle) for record in records]
    chosen = {
        name: {task: _gain(_picked(rows[task], middle, picked), weights[task]) for task in tasks}
        for name, rows in (("accuracy", right), ("loss", losses))
    }
    return {
        "tasks": tasks,
        "seeds": [record["seed"] for record in records],
        "test_rows": [right[task].shape[-1] for task in tasks],
        "kept": [record["kept"] for record in records],
        "validation_loss": [[record["loss_before"], record["loss_after"]] for record in records],
        **{kind: _points(records, kind) for kind in KINDS},
        "equal_weights": {name: {task: _as_dict(each) for task, each in by.items()} for name, by in found.items()},
        "dominates_at_equal_weights": _verdict(found),
        "chosen": {name: {task: _as_dict(each) for task, each in by.items()} for name, by in chosen.items()},
        "chosen_preferences": [list(preferences[index]) for index in picked],
        "chosen_dominates": _verdict(chosen),
        "hypervolume": {
            "reference": [round(float(each), 4) for each in floor],
            **{kind: round(float(volumes[at, 0]), 6) for at, kind in enumerate(KINDS)},
            "difference": _as_dict(_interval(volumes[1] - volumes[0]), 6),
        },
        "monotone": {kind: _monotone(records, kind) for kind in KINDS},
    }


def _choose(record: Record, middle: int) -> int:
    """Index of the Pareto point whose largest ratio of validation losses to linear's middle is smallest."""
    reference = np.asarray(record["linear"][middle]["validation"]["loss"])
    ratios = [float((np.asarray(point["validation"]["loss"]) / reference).max()) for point in record["pareto"]]
    return int(np.argmin(ratios))


def _picked(rows: Floats, middle: int, picked: Sequence[int]) -> Floats:
    """`(seeds, kinds, rows)`: linear's middle, and each seed's chosen point of the Pareto front."""
    return np.stack([np.stack([rows[run, 0, middle], rows[run, 1, index]]) for run, index in enumerate(picked)])


def _verdict(found: Mapping[str, Mapping[str, Interval]]) -> dict[str, bool]:
    return {
        "accuracy": _dominates([each.value for each in found["accuracy"].values()]),
        "loss": _dominates([-each.value for each in found["loss"].values()]),
    }


def _rows(records: Sequence[Record], field: str, task: str) -> Floats:
    """`(seeds, kinds, preferences, rows)` of one task."""
    return np.asarray(
        [[[list(point[field][task]) for point in record[kind]] for kind in KINDS] for record in records],
        dtype=np.float64,
    )


def _weights(rows: int, draws: int, rng: np.random.Generator) -> Floats:
    """`(rows, 1 + draws)`: share of each row, all the same in the first column, then as drawn with replacement."""
    drawn = rng.multinomial(rows, np.full(rows, 1 / rows), size=draws).T
    return np.concatenate([np.ones((rows, 1)), drawn], axis=1) / rows


def _gain(rows: Floats, weights: Floats) -> Interval:
    """Of `(seeds, kinds, rows)`: the second kind minus the first, mean over seeds."""
    return _interval((rows[:, 1] - rows[:, 0]).mean(axis=0) @ weights)


def _interval(values: Floats) -> Interval:
    """The first value, between the 2.5th and 97.5th percentile of the others."""
    low, high = np.percentile(values[1:], [2.5, 97.5])
    return Interval(float(values[0]), float(low), float(high))


def _volumes(drawn: Floats, floor: Floats) -> Floats:
    """Mean over seeds, `(kinds, draws)`, of the hypervolumes of `(seeds, kinds, preferences, tasks, draws)`."""
    seeds, kinds, _, _, draws = drawn.shape
    found = [
        [
            [hypervolume(drawn[run, kind, :, :, draw].tolist(), floor.tolist()) for draw in range(draws)]
            for run in range(seeds)
        ]
        for kind in range(kinds)
    ]
    volumes: Floats = np.asarray(found, dtype=np.float64).mean(axis=1)
    return volumes


def _points(records: Sequence[Record], kind: str) -> list[dict[str, Any]]:
    """Accuracy and loss by task of each preference, mean over seeds."""
    return [
        {
            "preference": list(points[0]["preference"]),
            **{
                name: [round(float(each), 4) for each in np.mean([point[name] for point in points], axis=0)]
                for name in ("accuracy", "loss")
            },
        }
        for points in zip(*(record[kind] for record in records), strict=True)
    ]


def _monotone(records: Sequence[Record], kind: str) -> list[float]:
    """Per task: share of the pairs of points whose higher preference has no lower mean accuracy over the seeds."""
    points = [
        Point(tuple(point["preference"]), tuple(point["accuracy"]), tuple(point["loss"]))
        for point in _points(records, kind)
    ]
    return [round(share, 3) for share in monotonicity(points)]


def _dominates(gains: Sequence[float]) -> bool:
    return all(gain >= 0 for gain in gains) and any(gain > 0 for gain in gains)


def _as_dict(interval: Interval, digits: int = 4) -> dict[str, float]:
    return {key: round(value, digits) for key, value in asdict(interval).items()}
