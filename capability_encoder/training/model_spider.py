"""Model Spider for prompts: model tokens, task tokens, a first pass by inner product and a re-rank of the top k.

The first pass is one inner product per model, so its tokens go into a FAISS index as they are (`TokenMatrix`). The
re-rank lets each of the k best models read evidence of its own: how it did on the known prompts nearest to this one.
k is drawn at random in training, so one scorer serves any budget. Ref: Model Spider (NeurIPS 2023), arXiv:2306.03900.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from capability_encoder.training.baselines.cluster_table import spherical_kmeans
from capability_encoder.training.baselines.columns import Columns, read_population
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
from capability_encoder.training.baselines.neighbours import nearest
from capability_encoder.training.data import FloatArray, Outcomes, TextArray
from capability_encoder.training.losses import binary_cross_entropy, plackett_luce

#: Neighbourhood sizes whose summaries become a model's evidence tokens.
_SCALES = (10, 40, 160)
#: Nearest prototypes that join the task token.
_PROTOTYPES = 4
_BLOCK = 256


@dataclass(frozen=True, slots=True)
class TokenMatrix:
    """The first pass as arrays: `tokens @ query(x)` orders the models.

    Attributes:
        names: M models. tokens: `[M, d + 1]`, the model token and its bias.
        task_map: `[D, d]`. task_bias: `[d]`.
    """

    names: tuple[str, ...]
    tokens: FloatArray
    task_map: FloatArray
    task_bias: FloatArray

    def query(self, vectors: FloatArray) -> FloatArray:
        """Task tokens `[B, d + 1]` for an inner-product index over `tokens`."""
        task = vectors @ self.task_map + self.task_bias
        return np.hstack([task, np.ones((len(task), 1), dtype=np.float32)]).astype(np.float32)


class Evidence:
    """What each model did near a prompt: outcomes of known prompts, less what prompt and model explain."""

    def __init__(self, train: Outcomes) -> None:
        population = read_population(train)
        explained = np.clip(population.prompt[:, None] + population.model[None, :], 0.0, 1.0)
        self._residual = np.where(train.measured, train.scores - explained, 0.0).astype(np.float32)
        self._measured = train.measured.astype(np.float32)
        self._memory, self._groups = train.vectors, train.groups

    def of(self, vectors: FloatArray, own_groups: TextArray | None = None) -> FloatArray:
        """Evidence `[B, M, scales, 3]`: mean residual, mean similarity, share of neighbours that were measured.

        Args:
            own_groups: near-duplicate group of each prompt; its members are left out (for prompts of the memory).
        """
        count = min(_SCALES[-1], len(self._memory))
        found = np.empty((len(vectors), self._residual.shape[1], len(_SCALES), 3), dtype=np.float32)
        for start in range(0, len(vectors), _BLOCK):
            rows = slice(start, min(start + _BLOCK, len(vectors)))
            places, similarity = nearest(np.asarray(vectors[rows], dtype=np.float32), self._memory, count)
            usable = np.ones(places.shape, dtype=np.float32)
            if own_groups is not None:
                usable = (self._groups[places] != own_groups[rows, None]).astype(np.float32)
            found[rows] = self._summaries(places, similarity, usable)
        return found

    def _summaries(self, places: np.typing.NDArray[np.int64], similarity: FloatArray, usable: FloatArray) -> FloatArray:
        models = self._residual.shape[1]
        residual = np.zeros((len(places), models), dtype=np.float32)
        measured = np.zeros_like(residual)
        near, taken = np.zeros((len(places), 1), dtype=np.float32), np.zeros((len(places), 1), dtype=np.float32)
        summaries = np.zeros((len(places), models, len(_SCALES), 3), dtype=np.float32)
        done = 0
        for place, scale in enumerate(_SCALES):
            for column in range(done, min(scale, places.shape[1])):
                weight = usable[:, [column]]
                residual += weight * self._residual[places[:, column]]
                measured += weight * self._measured[places[:, column]]
                near += weight * similarity[:, [column]]
                taken += weight
            done = scale
            summaries[:, :, place, 0] = residual / (
                measured + 5.0
            )  # five silent neighbours: a thin mean is not trusted
            summaries[:, :, place, 1] = near / np.maximum(taken, 1.0)
            summaries[:, :, place, 2] = measured / np.maximum(taken, 1.0)
        return summaries


class ModelSpider:
    """logit = token(m) . task(x) + bias(m) + difficulty(x), plus an attention correction for the top k models.

    The correction is one single-head self-attention block over [model token; task token; prototypes; evidence of
    this model], read at the model token's place (so only that row is computed), then LayerNorm and a linear head. The
    paper scores with the block alone; adding it to the inner product keeps scores with and without it comparable.

    Args:
        budget: k at prediction. most: k is uniform in 0..most during training. listwise: weight of Plackett-Luce.
    """

    def __init__(
        self, *, budget: int = 3, dimensions: int = 32, epochs: int = 10, most: int = 10, listwise: float = 0.3
    ) -> None:
        self.budget = budget
        self._dimensions, self._most, self._listwise = dimensions, most, listwise
        self._schedule = Schedule(epochs=epochs, rate=3e-3, decay=5e-2)

    def fit(self, train: Outcomes, seed: int) -> Self:
        self._columns = Columns(train.models)
        data, generator = Batchable.of(train), seeded(seed)
        self._initialise(train, generator, seed)
        self._evidence = Evidence(train)
        evidence = torch.from_numpy(self._evidence.of(train.vectors, train.groups))

        def loss(rows: Tensor) -> Tensor:
            budget = int(torch.randint(0, self._most + 1, (1,), generator=generator))
            scores, observed = data.scores[rows], data.observed[rows]
            logits = self._logits(data.vectors[rows], evidence[rows], budget, observed)
            listwise = plackett_luce(logits, scores, observed)
            return binary_cross_entropy(logits, scores, observed) + self._listwise * listwise

        descend(list(self._weights.values()), loss, rows=len(data), schedule=self._schedule, generator=generator)
        return self

    def _initialise(self, train: Outcomes, generator: torch.Generator, seed: int) -> None:
        width, inner = train.vectors.shape[1], self._dimensions
        self._prototypes = torch.from_numpy(spherical_kmeans(train.vectors, 64, seed=seed))
        scale = inner**-0.5
        self._weights: dict[str, Tensor] = {
            "tokens": drawn(generator, len(train.models), inner, scale=0.1),
            "bias": mean_logits(train),
            "task_map": drawn(generator, width, inner, scale=width**-0.5),
            "task_bias": torch.zeros(inner),
            "difficulty": torch.zeros(width),
            "read": drawn(generator, inner, inner, scale=scale),
            "key": drawn(generator, inner, inner, scale=scale),
            "value": drawn(generator, inner, inner, scale=scale),
            "out": drawn(generator, inner, inner, scale=scale),
            "evidence_map": drawn(generator, 3, inner, scale=1.0),
            "evidence_place": drawn(generator, len(_SCALES), inner, scale=0.1),
            "norm_scale": torch.ones(inner),
            "norm_shift": torch.zeros(inner),
            "head": torch.zeros(inner),  # the correction starts at nothing
            "head_bias": torch.zeros(1),
        }

    def _first_pass(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        weights = self._weights
        task = vectors @ weights["task_map"] + weights["task_bias"]
        logits = task @ weights["tokens"].T + weights["bias"] + (vectors @ weights["difficulty"]).unsqueeze(1)
        return task, logits

    def _logits(self, vectors: Tensor, evidence: Tensor, budget: int, present: Tensor) -> Tensor:
        """Logits `[B, M]`; the `budget` best of the first pass among the `present` models are re-ranked."""
        task, logits = self._first_pass(vectors)
        if budget == 0:
            return logits
        order = torch.where(present, logits.detach(), torch.full_like(logits, -torch.inf))
        top = torch.topk(order, min(budget, logits.shape[1]), dim=1).indices
        correction = self._correction(vectors, task, evidence, top)
        return logits.scatter_add(1, top, correction)

    def _correction(self, vectors: Tensor, task: Tensor, evidence: Tensor, top: Tensor) -> Tensor:
        """Attention correction `[B, k]` for the models in `top [B, k]`."""
        weights, inner = self._weights, self._dimensions
        membership, place = torch.topk(vectors @ self._prototypes.T, min(_PROTOTYPES, len(self._prototypes)), dim=1)
        prototypes = (self._prototypes @ weights["task_map"])[place] * membership.unsqueeze(2)
        shared = torch.cat([task.unsqueeze(1), prototypes], dim=1)  # [B, 1 + P, d]
        tokens = weights["tokens"][top]  # [B, k, d]
        index = top[:, :, None, None].expand(-1, -1, evidence.shape[2], evidence.shape[3])
        own = torch.gather(evidence, 1, index) @ weights["evidence_map"] + weights["evidence_place"]
        everyone = shared.unsqueeze(1).expand(-1, top.shape[1], -1, -1)
        sequence = torch.cat([tokens.unsqueeze(2), everyone, own], dim=2)  # [B, k, L, d]
        question = (tokens @ weights["read"]).unsqueeze(3)
        attention = torch.softmax((sequence @ weights["key"] @ question).squeeze(3) / inner**0.5, dim=2)
        mixed = (attention.unsqueeze(2) @ (sequence @ weights["value"])).squeeze(2) @ weights["out"]
        state = functional.layer_norm(tokens + mixed, (inner,), weights["norm_scale"], weights["norm_shift"])
        return state @ weights["head"] + weights["head_bias"]

    def predict(self, vectors: FloatArray, models: Sequence[str], *, budget: int | None = None) -> FloatArray:
        """P(correct) `[B, M]`; the re-rank looks at the best `budget` of `models` only."""
        columns = torch.from_numpy(self._columns.of(models))
        chosen = self.budget if budget is None else budget
        present = torch.zeros(len(self._columns.names), dtype=torch.bool)
        present[columns] = True
        chosen = min(chosen, int(present.sum()))
        with one_thread():
            evidence = torch.from_numpy(self._evidence.of(vectors)) if chosen else torch.zeros(0)
            logits = self._logits(torch.from_numpy(vectors), evidence, chosen, present.expand(len(vectors), -1))
            return to_array(torch.sigmoid(logits[:, columns]))

    def tokens(self) -> TokenMatrix:
        """The first pass, ready for an inner-product index."""
        weights = self._weights
        rows = torch.cat([weights["tokens"], weights["bias"].unsqueeze(1)], dim=1)
        return TokenMatrix(
            names=self._columns.names,
            tokens=to_array(rows),
            task_map=to_array(weights["task_map"]),
            task_bias=to_array(weights["task_bias"]),
        )
