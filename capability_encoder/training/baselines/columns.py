"""What most baselines share: named columns, and outcomes that were not measured filled in from the population."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from capability_encoder.training.baselines.registry import UnknownModelError
from capability_encoder.training.data import FloatArray, IntArray, Outcomes


class Columns:
    """Names of the fitted models; turns names into column indices."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._place = {name: column for column, name in enumerate(self.names)}

    def of(self, models: Sequence[str]) -> IntArray:
        """Column of each name.

        Raises:
            UnknownModelError: a name that was not in the training outcomes.
        """
        unknown = [name for name in models if name not in self._place]
        if unknown:
            raise UnknownModelError(f"no training outcomes for {unknown!r}: fit the baseline with them first")
        return np.array([self._place[name] for name in models], dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Population:
    """A two-way reading of the outcomes: score = prompt + model.

    Attributes:
        prompt: `[N]` mean of each prompt over an average population of models.
        model: `[M]` how much better than that average each model is, shrunk.
        strength: `[M]` the model's expected score on an average prompt, 0..1.
        filled: `[N, M]` the outcomes, with `prompt + model` where none was measured.
    """

    prompt: FloatArray
    model: FloatArray
    strength: FloatArray
    filled: FloatArray


def read_population(train: Outcomes, *, prior: float = 2.0, sweeps: int = 100) -> Population:
    """Fit prompt and model effects by alternating means.

    Models were measured on different blocks of prompts. A plain mean would reward the model that saw the easy block,
    and a table that skips the gaps would compare unlike with unlike, so gaps are filled from the population.

    Args:
        prior: pseudo-outcomes that pull a model's effect to 0. Prompts are hardly pulled: what a prompt does not take
            of an easy block, the models measured there would.
    """
    measured = train.measured
    scores = np.where(measured, train.scores, 0.0).astype(np.float64)
    weight = measured.astype(np.float64)
    per_prompt, per_model = weight.sum(axis=1), weight.sum(axis=0)
    total = per_model.sum()
    level = scores.sum() / total if total else 0.5
    model = np.zeros(scores.shape[1])
    prompt = np.zeros(scores.shape[0])
    sums_by_prompt, sums_by_model = scores.sum(axis=1), scores.sum(axis=0)
    for _ in range(sweeps):
        prompt = (sums_by_prompt - per_prompt * level - weight @ model) / (per_prompt + 0.1)
        model = (sums_by_model - per_model * level - weight.T @ prompt) / (per_model + prior)
    prompt_mean = (level + prompt).astype(np.float32)
    filled = np.where(measured, train.scores, np.clip(prompt_mean[:, None] + model[None, :], 0.0, 1.0))
    strength = np.clip(prompt_mean.mean() + model, 0.0, 1.0) if len(prompt_mean) else np.full(len(model), level)
    return Population(
        prompt=prompt_mean,
        model=model.astype(np.float32),
        strength=strength.astype(np.float32),
        filled=filled.astype(np.float32),
    )


def probabilities(values: FloatArray) -> FloatArray:
    """Clip linear predictions into 0..1."""
    return np.clip(values, 0.0, 1.0).astype(np.float32)
