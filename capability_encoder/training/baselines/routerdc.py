"""RouterDC's dual contrastive losses over a frozen prompt encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from capability_encoder.training.baselines.calibration_line import fit_platt
from capability_encoder.training.baselines.cluster_table import spherical_kmeans
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
from capability_encoder.training.losses import sample_model_contrast, sample_sample_contrast


@baseline(
    "routerdc",
    summary="cosine of prompt and model embedding, dual contrastive loss, encoder frozen",
    paper="RouterDC (NeurIPS 2024), arXiv:2409.19886",
    grid=[{"cluster_weight": w, "temperature": t} for w in (0.0, 1.0) for t in (1.0, 0.2)],
    seeded=True,
)
class RouterDC:
    """A linear map of the frozen embedding and one embedding per model, compared by cosine.

    The paper trains mDeBERTa end to end; here the map stands for it, at the rate of a small head. Among tied models the
    positives are whichever come first, as in the authors' code. Scores only order the models of a prompt, so a Platt
    line fitted on train makes probabilities of them.
    """

    def __init__(
        self,
        *,
        cluster_weight: float = 0.0,
        temperature: float = 1.0,
        epochs: int = 12,
        clusters: int = 5,
        top: int = 3,
    ) -> None:
        self._cluster_weight, self._clusters, self._top = cluster_weight, clusters, top
        self._temperature = temperature
        self._schedule = Schedule(epochs=epochs, batch=64, rate=1e-2, decay=1e-2)

    def fit(self, train: Outcomes, seed: int) -> Self:
        self._columns = Columns(train.models)
        data, generator = Batchable.of(train), seeded(seed)
        width = data.vectors.shape[1]
        self._map = torch.eye(width)
        self._models = drawn(generator, len(train.models), width, scale=0.78)  # the authors' initial spread
        centroids = spherical_kmeans(train.vectors, self._clusters, seed=seed)
        owner = torch.from_numpy((train.vectors @ centroids.T).argmax(axis=1))

        def loss(rows: Tensor) -> Tensor:
            hidden = data.vectors[rows] @ self._map
            similarity = self._similarity(hidden)
            value = sample_model_contrast(
                similarity, data.scores[rows], data.observed[rows], top=self._top, last=self._top
            )
            if self._cluster_weight:
                value = value + self._cluster_weight * sample_sample_contrast(hidden, owner[rows], generator=generator)
            return value

        descend([self._map, self._models], loss, rows=len(data), schedule=self._schedule, generator=generator)
        with one_thread():
            self._line = fit_platt(to_array(self._similarity(data.vectors @ self._map)), train.scores)
        return self

    def _similarity(self, hidden: Tensor) -> Tensor:
        return functional.normalize(hidden, dim=1) @ functional.normalize(self._models, dim=1).T / self._temperature

    def predict(self, vectors: FloatArray, models: Sequence[str]) -> FloatArray:
        columns = self._columns.of(models)
        with one_thread():
            scores = self._similarity(torch.from_numpy(vectors) @ self._map)
        return self._line(to_array(scores)[:, columns])
