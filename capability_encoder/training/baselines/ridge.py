"""Ridge regression of each model's outcomes on the embedding, in full and cut to a low rank."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
import numpy.typing as npt

from capability_encoder.training.baselines.columns import Columns, probabilities, read_population
from capability_encoder.training.baselines.registry import baseline
from capability_encoder.training.data import FloatArray, Outcomes


@baseline(
    "ridge",
    summary="ridge regression per model, penalty tuned",
    grid=[{"penalty": p} for p in (10.0, 1.0, 3.0, 20.0, 40.0, 80.0, 160.0)],
)
class Ridge:
    """One linear map from the embedding to all models' scores; gaps are filled from the population.

    The penalty is for unit vectors: 10 here is about 4,000 for coordinates scaled to variance one at D = 384.
    """

    def __init__(self, *, penalty: float = 10.0) -> None:
        self._penalty = penalty

    def fit(self, train: Outcomes, seed: int) -> Self:
        self._columns = Columns(train.models)
        self._centre = train.vectors.mean(axis=0)
        vectors = (train.vectors - self._centre).astype(np.float64)
        targets = read_population(train).filled.astype(np.float64)
        self._mean = targets.mean(axis=0)
        gram = vectors.T @ vectors + self._penalty * np.eye(vectors.shape[1])
        weights = np.linalg.solve(gram, vectors.T @ (targets - self._mean))
        self._weights = self._reduce(vectors, weights).astype(np.float32)
        return self

    def _reduce(self, vectors: npt.NDArray[np.float64], weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return weights

    def predict(self, vectors: FloatArray, models: Sequence[str]) -> FloatArray:
        columns = self._columns.of(models)
        scores = (vectors - self._centre) @ self._weights[:, columns] + self._mean[columns].astype(np.float32)
        return probabilities(scores)


@baseline(
    "low_rank",
    summary="ridge cut to rank r (reduced-rank regression)",
    grid=[{"penalty": p, "rank": r} for p in (10.0, 20.0, 40.0) for r in (2, 3, 4, 6)],
)
class LowRank(Ridge):
    """Keeps the r directions of model space that carry most of the fitted values."""

    def __init__(self, *, penalty: float = 10.0, rank: int = 3) -> None:
        super().__init__(penalty=penalty)
        self._rank = rank

    def _reduce(self, vectors: npt.NDArray[np.float64], weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        fitted = vectors @ weights
        _, directions = np.linalg.eigh(fitted.T @ fitted)
        kept = directions[:, -self._rank :]
        return np.asarray(weights @ (kept @ kept.T), dtype=np.float64)
