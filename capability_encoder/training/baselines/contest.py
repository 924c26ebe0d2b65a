"""Every baseline on the same folds: tuned on dev, fitted on train, one prediction matrix for test each."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from capability_encoder.training.baselines.registry import BaselineEntry, Value, entries, predictions
from capability_encoder.training.baselines.tuning import Objective, balanced, tune
from capability_encoder.training.data import FloatArray, Outcomes


@dataclass(frozen=True, slots=True)
class Contestant:
    """One method after tuning: its entry, chosen setting, seconds per fit, and P(correct) `[N, M]` on test."""

    entry: BaselineEntry
    params: Mapping[str, Value]
    fit_seconds: float
    predicted: FloatArray


def contest(
    train: Outcomes,
    dev: Outcomes,
    test: Outcomes,
    *,
    pools: Sequence[Sequence[str]] = (),
    chosen: Sequence[BaselineEntry] = (),
    objective: Objective = balanced,
    seed: int = 0,
) -> Iterator[Contestant]:
    """Run the `chosen` methods (all of the registry where empty), one after the other.

    Args:
        train, dev, test: the same models in the same columns; the columns of `predicted` are theirs.
        pools: model names over which the dev objective is averaged.
    Raises:
        ValueError: the three do not have the same models.
    """
    if not train.models == dev.models == test.models:
        raise ValueError("train, dev and test must hold the same models in the same order: use of_models() on each")
    for candidate in chosen or entries():
        began = time.perf_counter()
        tuned = tune(candidate, train, dev, pools=pools, objective=objective, seed=seed)
        seconds = (time.perf_counter() - began) / len(candidate.grid)
        predicted = predictions(tuned.method, test, test.models)
        yield Contestant(entry=candidate, params=tuned.params, fit_seconds=seconds, predicted=predicted)
