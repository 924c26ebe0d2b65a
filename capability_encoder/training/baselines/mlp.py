"""A multi-output perceptron: one hidden layer shared by all models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from capability_encoder.training.baselines.columns import Columns
from capability_encoder.training.baselines.gradient import (
    Batchable,
    Schedule,
    descend,
    drawn,
    mean_logits,
    one_thread,
    seeded,
    to_array,
)
from capability_encoder.training.baselines.registry import baseline
from capability_encoder.training.data import FloatArray, Outcomes
from capability_encoder.training.losses import binary_cross_entropy


@baseline(
    "mlp",
    summary="one hidden layer, one output per model",
    grid=[{"hidden": h, "epochs": e} for h in (64, 256) for e in (5, 10, 20)],
    seeded=True,
)
class Perceptron:
    """ReLU hidden layer with dropout, cross-entropy over the measured outcomes."""

    def __init__(self, *, hidden: int = 64, epochs: int = 10, dropout: float = 0.3, decay: float = 0.1) -> None:
        self._hidden, self._dropout = hidden, dropout
        self._schedule = Schedule(epochs=epochs, rate=2e-3, decay=decay)

    def fit(self, train: Outcomes, seed: int) -> Self:
        self._columns = Columns(train.models)
        data, generator = Batchable.of(train), seeded(seed)
        width = data.vectors.shape[1]
        self._first = drawn(generator, width, self._hidden, scale=1.0)  # unit vectors: each unit starts with spread 1
        self._first_bias = torch.zeros(self._hidden)
        self._second = drawn(generator, self._hidden, len(train.models), scale=0.01)
        self._second_bias = mean_logits(train)

        def loss(rows: Tensor) -> Tensor:
            keep = torch.rand(len(rows), self._hidden, generator=generator) >= self._dropout
            logits = self._logits(data.vectors[rows], keep / (1.0 - self._dropout))
            return binary_cross_entropy(logits, data.scores[rows], data.observed[rows])

        parameters = [self._first, self._first_bias, self._second, self._second_bias]
        descend(parameters, loss, rows=len(data), schedule=self._schedule, generator=generator)
        return self

    def _logits(self, vectors: Tensor, keep: Tensor | None = None) -> Tensor:
        hidden = functional.relu(vectors @ self._first + self._first_bias)
        return (hidden if keep is None else hidden * keep) @ self._second + self._second_bias

    def predict(self, vectors: FloatArray, models: Sequence[str]) -> FloatArray:
        columns = self._columns.of(models)
        with one_thread():
            return to_array(torch.sigmoid(self._logits(torch.from_numpy(vectors))))[:, columns]
