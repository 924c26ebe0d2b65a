"""What the additive model leaves over -> directions along which models differ, from topics and known surroundings.

Each model's leftover is regressed on soft topic memberships and on closeness to landmark prompts (Nystroem features of
a Gaussian kernel), over the prompts it was measured on; the fitted heads are cut to low rank.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from capability_encoder.features import closeness, softmax
from capability_encoder.training.data import FloatArray, IntArray
from capability_encoder.training.topics import fit_topics

Float64Array = npt.NDArray[np.float64]
LAYER_WIDTH = 384


@dataclass(frozen=True, slots=True)
class InteractionSettings:
    """Knobs; the defaults were chosen by cross-validation on train and dev (docs/experiments.md).

    Attributes:
        landmarks: how many known prompts closeness is measured to.
        near_weight, topic_weight: variance of the two blocks.
        penalty: of the ridge regressions.  rank: directions kept.
    """

    landmarks: int = 512
    near_weight: float = 3.0
    topic_weight: float = 6.0
    penalty: float = 100.0
    rank: int = 20


class Interaction(NamedTuple):
    """Serving parts (fields of `Heads`), and what heads that did not see a training prompt say of it.

    Attributes:
        directions: `[N, R]`.  memberships: `[N, C]` of topics.
    """

    head_parts: dict[str, Any]
    directions: Float64Array
    memberships: FloatArray


def fit_interaction(
    features: FloatArray,
    leftover: FloatArray,
    measured: npt.NDArray[np.bool_],
    topics: IntArray,
    fold: IntArray,
    embedding_width: int,
    settings: InteractionSettings,
    *,
    seed: int,
) -> Interaction:
    """Fit on all rows, and out of fold for each.

    Args:
        features: `[N, P]`.  leftover: `[N, M]`, 0 where not measured.  topics: `[N]`, -1 for none.  fold: `[N]`.
    """
    count = int(topics.max()) + 1
    memberships = np.zeros((len(features), count), dtype=np.float32)
    for number in np.unique(fold):
        held = fold == number
        weights, bias = fit_topics(features[~held], topics[~held], count)
        memberships[held] = softmax(features[held] @ weights + bias)
    topics_head, topics_bias = fit_topics(features, topics, count)
    # The first layer kept tells form best, the last one tells topic best.
    half = min(LAYER_WIDTH, embedding_width // 2)
    columns = np.concatenate([np.arange(half), np.arange(embedding_width - half, embedding_width)])
    width = 1.0 / max(float(np.sqrt((features[:, columns] ** 2).sum(axis=1).mean())), 1e-9)
    points = features[:, columns] * np.float32(width)
    chosen = np.random.default_rng(seed).choice(len(points), min(settings.landmarks, len(points)), replace=False)
    # Stored in half precision, so the fit sees what the run time will see.
    landmarks = points[np.sort(chosen)].astype(np.float16).astype(np.float32)
    values, vectors = np.linalg.eigh(closeness(landmarks, landmarks).astype(np.float64))
    whiten = (vectors / np.sqrt(np.maximum(values, 1e-4))) @ vectors.T * np.sqrt(settings.near_weight)
    near = closeness(points, landmarks) @ whiten.astype(np.float32)
    spread = max(float(np.sqrt(((memberships - memberships.mean(axis=0)) ** 2).sum(axis=1).mean())), 1e-6)
    topic_scale = np.sqrt(settings.topic_weight) / spread
    stacked = np.concatenate([near, memberships * np.float32(topic_scale)], axis=1)
    centre = stacked.mean(axis=0)
    design = stacked - centre
    heads = _ridge(design, leftover, measured, settings.penalty)
    rank = min(settings.rank, heads.shape[1])
    rotation = np.linalg.svd(design @ heads, full_matrices=False)[2][:rank].T
    # A sign is arbitrary; fix it so that the same data give the same bits.
    rotation = rotation * np.sign(rotation[np.abs(rotation).argmax(axis=0), np.arange(rank)])
    rotation = rotation / np.maximum((design @ (heads @ rotation)).std(axis=0), 1e-9)
    directions = np.zeros((len(features), rank))
    for number in np.unique(fold):
        held = fold == number
        without = _ridge(design[~held], leftover[~held], measured[~held], settings.penalty)
        directions[held] = design[held] @ (without @ rotation)
    final = heads @ rotation
    parts = {
        "topics": topics_head,
        "topics_bias": topics_bias,
        "columns": columns,
        "width": width,
        "landmarks": landmarks,
        "near": (whiten @ final[: len(landmarks)]).astype(np.float32),
        "topical": (topic_scale * final[len(landmarks) :]).astype(np.float32),
        "direction_bias": -(centre @ final).astype(np.float32),
    }
    return Interaction(parts, directions, memberships)


def _ridge(design: FloatArray, leftover: FloatArray, measured: npt.NDArray[np.bool_], penalty: float) -> Float64Array:
    """Heads `[Q, M]`, each over the rows on which its model was measured.

    A model's unmeasured rows must stay out: with a leftover of 0 they would say that it differs in nothing there.
    """
    heads = np.zeros((design.shape[1], leftover.shape[1]))
    alike: dict[bytes, list[int]] = {}
    for column in range(leftover.shape[1]):
        alike.setdefault(measured[:, column].tobytes(), []).append(column)
    for columns in alike.values():
        rows = measured[:, columns[0]]
        known = design[rows]
        moments = (known.T @ known).astype(np.float64) + penalty * np.eye(design.shape[1])
        targets = leftover[rows][:, columns]
        heads[:, columns] = np.linalg.solve(moments, (known.T @ targets).astype(np.float64))
    return heads
