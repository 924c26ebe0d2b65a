"""Model-SAT's idea in a bilinear scorer on the aptitude vector, with the published loss and with a cross-model one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from capability_encoder.training.baselines.calibration_line import PlattLine, fit_platt
from capability_encoder.training.baselines.columns import Columns, read_population
from capability_encoder.training.baselines.domain_table import domain_labels
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
from capability_encoder.training.losses import (
    binary_cross_entropy,
    homogeneous_groups,
    model_sat_contrast,
    plackett_luce,
)


def aptitude_vectors(train: Outcomes, *, tasks: int = 50) -> FloatArray:
    """Accuracy of each model on the aptitude tasks `[M, T]`, centred per task; gaps from the population.

    The tasks are those of the aptitude rows among `train`; without such rows, the `tasks` largest of `train`.
    """
    labels = domain_labels(train, "task")
    rows = train.splits == "aptitude"
    rows = rows if rows.any() else np.ones(len(train), dtype=bool)
    names, counts = np.unique(labels[rows], return_counts=True)
    names = names[np.argsort(-counts, kind="stable")][:tasks]
    filled = read_population(train).filled
    accuracy = np.stack([filled[rows & (labels == name)].mean(axis=0) for name in names], axis=1)
    return np.asarray(accuracy - accuracy.mean(axis=0, keepdims=True), dtype=np.float32)


class BilinearModelSat:
    """score = connector(aptitude of m) . (W x) + strength(aptitude of m) + difficulty(x).

    With `published`, only Eq. 5 trains it (contrast of instructions within one model, blind to any per-model offset)
    and a Platt line fitted on train makes probabilities; otherwise cross-entropy plus Plackett-Luce across models.
    """

    def __init__(
        self, *, published: bool, dimensions: int = 32, epochs: int = 10, negatives: int = 3, listwise: float = 0.3
    ) -> None:
        self._published, self._dimensions, self._negatives, self._listwise = published, dimensions, negatives, listwise
        self._schedule = Schedule(epochs=epochs, rate=3e-3, decay=3e-2)

    def fit(self, train: Outcomes, seed: int) -> Self:
        self._columns = Columns(train.models)
        data, generator = Batchable.of(train), seeded(seed)
        self._aptitude = torch.from_numpy(aptitude_vectors(train))
        tasks, width, inner = self._aptitude.shape[1], data.vectors.shape[1], self._dimensions
        self._connect = drawn(generator, tasks, inner, scale=tasks**-0.5)
        self._connect_bias = torch.zeros(inner)
        self._project = drawn(generator, width, inner, scale=width**-0.5)
        self._strength = drawn(generator, tasks, scale=tasks**-0.5)
        self._difficulty = torch.zeros(width)
        self._level = torch.zeros(1)

        def loss(rows: Tensor) -> Tensor:
            logits = self._scores(data.vectors[rows])
            scores, observed = data.scores[rows], data.observed[rows]
            if self._published:
                groups, columns = homogeneous_groups(scores, observed, negatives=self._negatives, generator=generator)
                return model_sat_contrast(logits[groups, columns.unsqueeze(1)]) if len(groups) else logits.sum() * 0.0
            listwise = plackett_luce(logits, scores, observed)
            return binary_cross_entropy(logits, scores, observed) + self._listwise * listwise

        parameters = [self._connect, self._connect_bias, self._project, self._strength, self._difficulty, self._level]
        descend(parameters, loss, rows=len(data), schedule=self._schedule, generator=generator)
        self._line: PlattLine | None = None
        if self._published:
            with one_thread():
                self._line = fit_platt(to_array(self._scores(data.vectors)), train.scores)
        return self

    def _scores(self, vectors: Tensor) -> Tensor:
        capability = functional.gelu(self._aptitude @ self._connect + self._connect_bias)
        strength = self._aptitude @ self._strength + self._level
        difficulty = vectors @ self._difficulty
        return (vectors @ self._project) @ capability.T + strength + difficulty.unsqueeze(1)

    def predict(self, vectors: FloatArray, models: Sequence[str]) -> FloatArray:
        columns = self._columns.of(models)
        with one_thread():
            scores = self._scores(torch.from_numpy(vectors))[:, torch.from_numpy(columns)]
        return to_array(torch.sigmoid(scores)) if self._line is None else self._line(to_array(scores))


_GRID = [{"dimensions": d, "epochs": e} for d in (16, 64) for e in (10, 20, 40)]


@baseline(
    "model_sat_published",
    summary="bilinear scorer on the aptitude vector, the paper's loss (Eq. 5)",
    paper="Model-SAT (AAAI 2025), Eq. 5",
    grid=_GRID,
    seeded=True,
)
def published(dimensions: int = 16, epochs: int = 10) -> BilinearModelSat:
    """Contrast of instructions within one model."""
    return BilinearModelSat(published=True, dimensions=dimensions, epochs=epochs)


@baseline(
    "model_sat_cross_model",
    summary="the same scorer, cross-entropy plus Plackett-Luce across models (our loss)",
    paper="Model-SAT (AAAI 2025), loss changed",
    grid=_GRID,
    seeded=True,
)
def cross_model(dimensions: int = 16, epochs: int = 10) -> BilinearModelSat:
    """Trained with terms that order models."""
    return BilinearModelSat(published=False, dimensions=dimensions, epochs=epochs)
