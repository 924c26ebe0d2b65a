"""Which items a budget is spent on: all domains, tasks and difficulties first, then what tells most of the model.

Model-SAT draws the most discriminating items; on recorded models that gained nothing over a random draw, so the spread
comes first here and information (D-optimality) only decides inside a task.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aptitude_tests.item import DIFFICULTIES, Item, Suite

Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Information:
    """What answers would tell, before any is known.

    Attributes:
        design: `[N, W]` rows of the items, in the order of the suite.
        weight: `[N]` p(1-p) expected.
        covariance: `[W, W]` of the model's weights before the test.
    """

    design: Float64Array
    weight: Float64Array
    covariance: Float64Array


def choose_items(suite: Suite, budget: int, *, seed: int = 0, information: Information | None = None) -> list[Item]:
    """`budget` items in the order in which they should be asked; every prefix is spread as well as it can be.

    Returns:
        all items, in such an order, where the budget covers them.
    """
    stream = random.Random(f"orbweaver|choose|{suite.hash}|{seed}")
    place = {item.id: number for number, item in enumerate(suite.items)}
    left: dict[str, list[Item]] = defaultdict(list)
    for item in suite.items:
        left[item.task].append(item)
    for items in left.values():
        stream.shuffle(items)
    tasks = _interleaved(suite, [task for task in left if left[task]], stream)
    covariance = None if information is None else information.covariance.copy()
    chosen: list[Item] = []
    turn = 0
    while len(chosen) < budget and any(left.values()):
        for number, task in enumerate(tasks):
            if not left[task] or len(chosen) == budget:
                continue
            wanted = DIFFICULTIES[(number + turn) % len(DIFFICULTIES)]
            fitting = [item for item in left[task] if item.difficulty == wanted] or left[task]
            item = fitting[0]
            if information is not None and covariance is not None:
                gains = [_gain(information, covariance, place[one.id]) for one in fitting]
                item = fitting[gains.index(max(gains))]
                covariance = _after(information, covariance, place[item.id])
            left[task].remove(item)
            chosen.append(item)
        turn += 1
    return chosen


def _interleaved(suite: Suite, tasks: Sequence[str], stream: random.Random) -> list[str]:
    """Tasks in random order, but one of each domain before the second of any."""
    domain_of = {task.name: task.domain for task in suite.tasks}
    groups: dict[str, list[str]] = defaultdict(list)
    for task in stream.sample(list(tasks), len(tasks)):
        groups[domain_of.get(task, "")].append(task)
    domains = stream.sample(list(groups), len(groups))
    ordered = []
    while any(groups.values()):
        ordered += [groups[domain].pop() for domain in domains if groups[domain]]
    return ordered


def _gain(information: Information, covariance: Float64Array, row: int) -> float:
    """How much one answer shrinks the volume of the posterior (log determinant, up to a monotone map)."""
    design = information.design[row]
    return float(information.weight[row] * (design @ covariance @ design))


def _after(information: Information, covariance: Float64Array, row: int) -> Float64Array:
    """The covariance after one answer (rank-one update)."""
    design, weight = information.design[row], information.weight[row]
    along = covariance @ design
    return np.asarray(covariance - np.outer(along, along) * (weight / (1.0 + weight * float(design @ along))))
