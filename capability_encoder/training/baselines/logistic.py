"""Logistic regression per model on the embedding, penalty tuned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch

from capability_encoder.training.baselines.columns import Columns
from capability_encoder.training.baselines.gradient import Batchable, mean_logits, one_thread, to_array
from capability_encoder.training.baselines.registry import baseline
from capability_encoder.training.data import FloatArray, Outcomes


@baseline(
    "logistic",
    summary="logistic regression per model, penalty tuned",
    grid=[{"penalty": p} for p in (10.0, 3.0, 30.0, 100.0)],
)
class Logistic:
    """All models at once by L-BFGS on `sum of cross-entropies + penalty / 2 * |W|^2`; the intercept is free."""

    def __init__(self, *, penalty: float = 10.0, iterations: int = 40) -> None:
        self._penalty, self._iterations = penalty, iterations

    def fit(self, train: Outcomes, seed: int) -> Self:
        self._columns = Columns(train.models)
        data = Batchable.of(train)
        self._centre = data.vectors.mean(dim=0)
        vectors = data.vectors - self._centre
        weight = torch.zeros(vectors.shape[1], len(train.models), requires_grad=True)
        bias = mean_logits(train).requires_grad_(True)
        observed = data.observed.to(torch.float32)
        optimizer = torch.optim.LBFGS([weight, bias], max_iter=self._iterations, line_search_fn="strong_wolfe")

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            logits = vectors @ weight + bias
            pointwise = torch.nn.functional.softplus(logits) - data.scores * logits
            loss = ((pointwise * observed).sum() + 0.5 * self._penalty * weight.square().sum()) / len(data)
            loss.backward()
            return loss

        with one_thread():
            optimizer.step(closure)
        self._weight, self._bias = weight.detach(), bias.detach()
        return self

    def predict(self, vectors: FloatArray, models: Sequence[str]) -> FloatArray:
        columns = torch.from_numpy(self._columns.of(models))
        with one_thread():
            logits = (torch.from_numpy(vectors) - self._centre) @ self._weight[:, columns] + self._bias[columns]
        return to_array(torch.sigmoid(logits))
