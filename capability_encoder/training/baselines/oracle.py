"""The oracle: the recorded outcomes themselves, the ceiling of any router."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np

from capability_encoder.training.baselines.columns import Columns
from capability_encoder.training.baselines.registry import baseline
from capability_encoder.training.data import FloatArray, Outcomes


@baseline("oracle", summary="the best model of each prompt, read from its outcomes", sees="outcomes")
class Oracle:
    """Predicts the outcome; where none was measured, 0: the oracle never bets on the unknown."""

    def fit(self, train: Outcomes, seed: int) -> Self:
        self._columns = Columns(train.models)
        return self

    def predict(self, vectors: FloatArray, models: Sequence[str]) -> FloatArray:
        self._columns.of(models)
        raise ValueError("the oracle needs the outcomes of the prompts: call predict_informed")

    def predict_informed(self, prompts: Outcomes, models: Sequence[str]) -> FloatArray:
        self._columns.of(models)
        return np.nan_to_num(prompts.of_models(models).scores, nan=0.0)
