"""Best single model: every prompt goes to the strongest model of the training outcomes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np

from capability_encoder.training.baselines.columns import Columns, read_population
from capability_encoder.training.baselines.registry import baseline
from capability_encoder.training.data import FloatArray, Outcomes


@baseline("best_single", summary="the strongest model of the training outcomes, for every prompt")
class BestSingle:
    """Predicts each model's mean score (over the population's prompts, so blocks of data do not favour anyone)."""

    def fit(self, train: Outcomes, seed: int) -> Self:
        self._columns = Columns(train.models)
        self._strength = read_population(train).strength
        return self

    def predict(self, vectors: FloatArray, models: Sequence[str]) -> FloatArray:
        row = self._strength[self._columns.of(models)]
        return np.repeat(row[None, :], len(vectors), axis=0)
