"""Matrix factorisation of outcomes with a text projection: EmbedLLM's pointwise and RouteLLM's pairwise form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

import torch
from torch import Tensor
from torch.nn import functional

from capability_encoder.training.baselines.calibration_line import PlattLine, fit_platt
from capability_encoder.training.baselines.columns import Columns
from capability_encoder.training.baselines.gradient import (
    Batchable,
    Schedule,
    descend,
    drawn,
    one_thread,
    seeded,
    to_array,
)
from capability_encoder.training.baselines.registry import baseline
from capability_encoder.training.data import FloatArray, Outcomes
from capability_encoder.training.losses import binary_cross_entropy

Form = Literal["embedllm", "routellm"]
#: Pairs of models drawn per prompt and step; all pairs of 146 models would cost 300 times more than they add.
_PAIRS = 32


def pairwise_wins(
    logits: Tensor, scores: Tensor, observed: Tensor, *, pairs: int, generator: torch.Generator
) -> Tensor:
    """Bradley-Terry loss over `pairs` drawn pairs of models per prompt; ties are left out, as RouteLLM does."""
    weights = observed.to(torch.float32) + 1e-12  # a prompt without outcomes still draws; its pairs are dropped below
    drawn_models = torch.multinomial(weights, 2 * pairs, replacement=True, generator=generator)
    left, right = drawn_models[:, :pairs], drawn_models[:, pairs:]
    both = torch.gather(observed, 1, left) & torch.gather(observed, 1, right)
    sign = torch.sign(torch.gather(scores, 1, left) - torch.gather(scores, 1, right)) * both
    margins = torch.gather(logits, 1, left) - torch.gather(logits, 1, right)
    return (functional.softplus(-sign * margins) * sign.abs()).sum() / sign.abs().sum().clamp(min=1)


class MatrixFactorisation:
    """score(m, x) = w . (P_m * (W x + noise)) + b.

    `embedllm` fits P(correct) by cross-entropy. `routellm` normalises the rows P_m, has no bias and learns from
    pairs, so its scores only order the models of one prompt; a Platt line fitted on train makes probabilities of them.
    """

    def __init__(self, *, form: Form, rank: int = 64, epochs: int = 20, noise: float = 0.05, decay: float = 1e-2):
        self._form, self._rank, self._noise = form, rank, noise
        self._schedule = Schedule(epochs=epochs, rate=3e-3, decay=decay)

    def fit(self, train: Outcomes, seed: int) -> Self:
        self._columns = Columns(train.models)
        data, generator = Batchable.of(train), seeded(seed)
        width = data.vectors.shape[1]
        self._rows = drawn(generator, len(train.models), self._rank, scale=1.0)
        self._project = drawn(generator, width, self._rank, scale=width**-0.5)
        self._project_bias = torch.zeros(self._rank)
        self._mix = drawn(generator, self._rank, scale=self._rank**-0.5)
        self._bias = torch.zeros(1)
        parameters = [self._rows, self._project, self._mix]
        if self._form == "embedllm":
            parameters += [self._project_bias, self._bias]

        def loss(rows: Tensor) -> Tensor:
            vectors = data.vectors[rows]
            vectors = vectors + self._noise * torch.randn(vectors.shape, generator=generator)
            logits, scores, observed = self._scores(vectors), data.scores[rows], data.observed[rows]
            if self._form == "embedllm":
                return binary_cross_entropy(logits, scores, observed)
            return pairwise_wins(logits, scores, observed, pairs=_PAIRS, generator=generator)

        descend(parameters, loss, rows=len(data), schedule=self._schedule, generator=generator)
        self._line: PlattLine | None = None
        if self._form == "routellm":
            with one_thread():
                self._line = fit_platt(to_array(self._scores(data.vectors)), train.scores)
        return self

    def _scores(self, vectors: Tensor) -> Tensor:
        rows = functional.normalize(self._rows, dim=1) if self._form == "routellm" else self._rows
        return (vectors @ self._project + self._project_bias) @ (rows * self._mix).T + self._bias

    def predict(self, vectors: FloatArray, models: Sequence[str]) -> FloatArray:
        columns = self._columns.of(models)
        with one_thread():
            scores = self._scores(torch.from_numpy(vectors))[:, torch.from_numpy(columns)]
        return to_array(torch.sigmoid(scores)) if self._line is None else self._line(to_array(scores))


_GRID = [{"rank": r, "epochs": e} for r in (16, 64) for e in (10, 20, 40)]


@baseline(
    "matrix_factorisation",
    summary="matrix factorisation with a text projection (EmbedLLM form)",
    paper="EmbedLLM (ICLR 2025), arXiv:2410.02223",
    grid=_GRID,
    seeded=True,
)
def embedllm(rank: int = 16, epochs: int = 10) -> MatrixFactorisation:
    """Pointwise cross-entropy."""
    return MatrixFactorisation(form="embedllm", rank=rank, epochs=epochs)


@baseline(
    "matrix_factorisation_pairs",
    summary="the same learned from pairs of models (RouteLLM form)",
    paper="RouteLLM (ICLR 2025), arXiv:2406.18665",
    grid=_GRID,
    seeded=True,
)
def routellm(rank: int = 16, epochs: int = 10) -> MatrixFactorisation:
    """Bradley-Terry over pairs."""
    return MatrixFactorisation(form="routellm", rank=rank, epochs=epochs)
