"""k nearest prompts: the mean score of each model over the prompts most like this one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np

from capability_encoder.training.baselines.columns import Columns, probabilities, read_population
from capability_encoder.training.baselines.registry import baseline
from capability_encoder.training.data import FloatArray, IntArray, Outcomes

#: Rows of queries at a time: 1024 x 30,000 similarities are 120 MB.
_BLOCK = 1024


def nearest(queries: FloatArray, memory: FloatArray, count: int) -> tuple[IntArray, FloatArray]:
    """The `count` most similar rows of `memory` for each query, most similar first, with their inner products."""
    count = min(count, len(memory))
    places = np.empty((len(queries), count), dtype=np.int64)
    values = np.empty((len(queries), count), dtype=np.float32)
    for start in range(0, len(queries), _BLOCK):
        similarity = queries[start : start + _BLOCK] @ memory.T
        top = np.argpartition(-similarity, count - 1, axis=1)[:, :count]
        found = np.take_along_axis(similarity, top, axis=1)
        order = np.argsort(-found, axis=1, kind="stable")
        places[start : start + _BLOCK] = np.take_along_axis(top, order, axis=1)
        values[start : start + _BLOCK] = np.take_along_axis(found, order, axis=1)
    return places, values


@baseline(
    "knn",
    summary="mean score over the k most similar training prompts",
    paper="Simple kNN routing, arXiv:2505.12601",
    grid=[{"k": k} for k in (20, 40, 60, 100, 150, 250, 400)],
)
class Neighbours:
    """Uniform weights over the k nearest by cosine; gaps in the outcomes are filled from the population."""

    def __init__(self, *, k: int = 20) -> None:
        self._k = k

    def fit(self, train: Outcomes, seed: int) -> Self:
        self._columns = Columns(train.models)
        self._memory = train.vectors
        self._outcomes = read_population(train).filled
        return self

    def predict(self, vectors: FloatArray, models: Sequence[str]) -> FloatArray:
        columns = self._columns.of(models)
        outcomes = np.ascontiguousarray(self._outcomes[:, columns])
        places, _ = nearest(np.asarray(vectors, dtype=np.float32), self._memory, self._k)
        total = np.zeros((len(vectors), len(columns)), dtype=np.float32)
        for place in places.T:
            total += outcomes[place]
        return probabilities(total / places.shape[1])
