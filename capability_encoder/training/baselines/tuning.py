"""Choosing a baseline's setting on dev, and only there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from capability_encoder.training.baselines.registry import Baseline, BaselineEntry, Value, predictions
from capability_encoder.training.data import FloatArray, Outcomes

#: Predictions `[N, M]` and true scores `[N, M]` (NaN where not measured) to a number; higher is better.
Objective = Callable[[FloatArray, FloatArray], float]


@dataclass(frozen=True, slots=True)
class Tuned:
    """A fitted method, the setting that won on dev, and what each setting reached there."""

    method: Baseline
    params: Mapping[str, Value]
    dev_scores: tuple[float, ...]


def routed_score(predicted: FloatArray, scores: FloatArray) -> float:
    """Mean true score of the model with the highest prediction; prompts where it was not measured are left out."""
    choice = predicted.argmax(axis=1)
    reached = scores[np.arange(len(scores)), choice]
    return float(np.nanmean(reached)) if np.isfinite(reached).any() else 0.0


def negative_brier(predicted: FloatArray, scores: FloatArray) -> float:
    """Minus the mean squared error over the measured outcomes."""
    measured = ~np.isnan(scores)
    return -float(np.mean((predicted[measured] - scores[measured]) ** 2)) if measured.any() else 0.0


def balanced(predicted: FloatArray, scores: FloatArray) -> float:
    """Routed score minus Brier score: tuning for either alone gives away the other."""
    return routed_score(predicted, scores) + negative_brier(predicted, scores)


def tune(
    chosen: BaselineEntry,
    train: Outcomes,
    dev: Outcomes,
    *,
    pools: Sequence[Sequence[str]] = (),
    objective: Objective = balanced,
    seed: int = 0,
) -> Tuned:
    """Fit every setting of the grid on `train` and keep the one with the best mean objective on `dev`.

    Args:
        pools: model names to average the objective over; all models of `train` together where empty.
    """
    groups = [list(pool) for pool in pools] or [list(train.models)]
    best: tuple[float, Baseline, Mapping[str, Value]] | None = None
    reached: list[float] = []
    for params in chosen.grid:
        method = chosen.make(**params).fit(train, seed)
        value = float(np.mean([objective(predictions(method, dev, g), dev.of_models(g).scores) for g in groups]))
        reached.append(value)
        if best is None or value > best[0]:
            best = (value, method, params)
    assert best is not None, "a grid holds at least the default setting"
    return Tuned(method=best[1], params=best[2], dev_scores=tuple(reached))
