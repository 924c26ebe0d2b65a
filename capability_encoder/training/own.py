"""What the additive model leaves over, model by model -> `OwnHeads`: ridge on closeness to landmarks and on topics."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from capability_encoder.own_heads import OwnHeads
from capability_encoder.training.data import FloatArray

Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class OwnSettings:
    """Knobs; the defaults were chosen by cross-validation on train and dev (docs/experiments.md).

    Attributes:
        near_weight, topic_weight: variance of the two blocks.
        penalty: of the ridge regressions.
        share: of the correction that is used; the shared directions keep `Calibration.known_share` of theirs.
        information: p(1 - p) at which a leftover of P is read as logits.
        fewest: models with fewer outcomes have no head of their own.
    """

    near_weight: float = 3.0
    topic_weight: float = 6.0
    penalty: float = 200.0
    share: float = 0.5
    information: float = 0.2
    fewest: int = 300


def fit_own(
    near: FloatArray,
    whiten: FloatArray,
    topics: FloatArray,
    leftover: FloatArray,
    measured: npt.NDArray[np.bool_],
    settings: OwnSettings,
) -> OwnHeads:
    """One head per model over the prompts on which it was measured; zero for models with few.

    Args:
        near: `[N, L]` closeness to landmarks times `whiten` `[L, L]`.  topics: `[N, C]` memberships.
        leftover: `[N, M]`, 0 where not measured.
    """
    count = near.shape[1]
    centre = np.concatenate([near.mean(axis=0), topics.mean(axis=0)])
    design = np.concatenate([near, topics], axis=1) - centre
    scale = np.empty(design.shape[1], dtype=np.float32)
    scale[:count] = _scale_to(design[:, :count], settings.near_weight)
    scale[count:] = _scale_to(design[:, count:], settings.topic_weight)
    design *= scale
    rich = np.flatnonzero(measured.sum(axis=0) >= settings.fewest)
    heads = np.zeros((design.shape[1], leftover.shape[1]))
    heads[:, rich] = _ridges(design, leftover[:, rich], measured[:, rich], settings.penalty)
    heads *= (scale * settings.share / settings.information)[:, None]
    return OwnHeads(
        near=(whiten @ heads[:count]).astype(np.float32),
        topical=heads[count:].astype(np.float32),
        bias=-(centre @ heads).astype(np.float32),
    )


def _ridges(design: FloatArray, leftover: FloatArray, measured: npt.NDArray[np.bool_], penalty: float) -> Float64Array:
    """Heads `[Q, M]`. Moments are summed over groups of prompts that the same models answered."""
    patterns, group = np.unique(np.packbits(measured, axis=1), axis=0, return_inverse=True)
    member = np.unpackbits(patterns, axis=1, count=measured.shape[1]).astype(bool)
    moments = []
    for number in range(len(patterns)):
        rows = design[group.ravel() == number]
        moments.append(rows.T @ rows)
    products = (design.T @ leftover).astype(np.float64)
    heads = np.zeros(products.shape)
    alike: dict[bytes, list[int]] = {}
    for column in range(member.shape[1]):
        alike.setdefault(member[:, column].tobytes(), []).append(column)
    for columns in alike.values():
        total = penalty * np.eye(design.shape[1])
        for place in np.flatnonzero(member[:, columns[0]]):
            total += moments[place]
        heads[:, columns] = np.linalg.solve(total, products[:, columns])
    return heads


def _scale_to(centred: FloatArray, variance: float) -> float:
    """Factor that gives a block of columns the total variance wanted."""
    return float(np.sqrt(variance / max(float((centred**2).sum(axis=1).mean()), 1e-9)))
