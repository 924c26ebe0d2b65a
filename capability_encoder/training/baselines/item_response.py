"""Multidimensional item response theory with item parameters read from the prompt (IRT-Router, 2PL)."""

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
    "item_response",
    summary="multidimensional 2PL item response theory, items amortised from the prompt",
    paper="IRT-Router (ACL 2025), arXiv:2506.01048",
    grid=[{"dimensions": d, "epochs": e} for d in (4, 16) for e in (10, 20, 40)],
    seeded=True,
)
class ItemResponse:
    """p = sigmoid(a(x) . theta_m - b(x)); discriminations a(x) = softplus(W x + c) stay positive, as a 2PL wants."""

    def __init__(self, *, dimensions: int = 4, epochs: int = 10, decay: float = 3e-2) -> None:
        self._dimensions = dimensions
        self._schedule = Schedule(epochs=epochs, rate=5e-3, decay=decay)

    def fit(self, train: Outcomes, seed: int) -> Self:
        self._columns = Columns(train.models)
        data, generator = Batchable.of(train), seeded(seed)
        width, count = data.vectors.shape[1], self._dimensions
        self._discriminate = drawn(generator, width, count, scale=0.1)
        self._discriminate_bias = torch.zeros(count)
        self._difficulty = torch.zeros(width)
        self._difficulty_bias = torch.zeros(1)
        # Every dimension starts at the model's overall strength: softplus(0) * count * theta = logit of the mean.
        strength = mean_logits(train).unsqueeze(1) / (count * functional.softplus(torch.zeros(1)))
        self._ability = strength + drawn(generator, len(train.models), count, scale=0.1)

        def loss(rows: Tensor) -> Tensor:
            logits = self._logits(data.vectors[rows])
            return binary_cross_entropy(logits, data.scores[rows], data.observed[rows])

        parameters = [
            self._discriminate,
            self._discriminate_bias,
            self._difficulty,
            self._difficulty_bias,
            self._ability,
        ]
        descend(parameters, loss, rows=len(data), schedule=self._schedule, generator=generator)
        return self

    def _logits(self, vectors: Tensor) -> Tensor:
        discrimination = functional.softplus(vectors @ self._discriminate + self._discriminate_bias)
        difficulty = vectors @ self._difficulty + self._difficulty_bias
        return discrimination @ self._ability.T - difficulty.unsqueeze(1)

    def predict(self, vectors: FloatArray, models: Sequence[str]) -> FloatArray:
        columns = self._columns.of(models)
        with one_thread():
            return to_array(torch.sigmoid(self._logits(torch.from_numpy(vectors))))[:, columns]
