"""Ease of prompts from their features: a linear part, and closeness to known prompts for what is not linear.

One ridge regression on both. Closeness is measured in the principal directions of all features together, so that two
prompts are close only if topic, wording and form agree; landmarks stand for all known prompts (Nystroem).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from capability_encoder.compact import rounded
from capability_encoder.features import EaseHead, closeness
from capability_encoder.posterior import Float64Array
from capability_encoder.training.data import FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class EaseSettings:
    """Knobs; the defaults were chosen on dev (docs/experiments.md).

    Attributes:
        directions, landmarks: size of the kernel part.
        sharpness: inverse width of the kernel, in root mean square distances from the centre.
        near_weight: variance of the kernel part against 4 of the features.
        penalty: of the ridge regression.
    """

    directions: int = 192
    landmarks: int = 2000
    sharpness: float = 2.0
    near_weight: float = 6.0
    penalty: float = 25.0


class Ease(NamedTuple):
    """The fitted head with what else it stands on.

    Attributes:
        predicted: `[N]` ease of each training prompt by heads that did not see it.
        near: `[N, L]` closeness of the training prompts to the landmarks times `whiten` `[L, L]`.
    """

    head: EaseHead
    predicted: Float64Array
    near: FloatArray
    whiten: FloatArray


def fit_ease(
    features: FloatArray, ease: Float64Array, weights: FloatArray, fold: IntArray, settings: EaseSettings, *, seed: int
) -> Ease:
    """Fit on all rows, and out of fold for each.

    Args:
        features: `[N, P]`, centred.  ease: `[N]`.  weights: `[N]`, mean 1.  fold: `[N]`.
    """
    base = float(np.average(ease, weights=weights))
    projection, landmarks, whiten = _surroundings(features, settings, seed=seed)
    near = closeness(features @ projection, landmarks) @ whiten
    centre = near.mean(axis=0)
    design = np.concatenate([features, near - centre], axis=1)
    target = (ease - base).astype(np.float32)
    numbers = np.unique(fold)
    parts = [_moments(design[fold == f], target[fold == f], weights[fold == f]) for f in numbers]
    squares = np.sum([part[0] for part in parts], axis=0)
    products = np.sum([part[1] for part in parts], axis=0)
    predicted = np.zeros(len(features))
    for number, (square, product) in zip(numbers, parts, strict=True):
        held = fold == number
        predicted[held] = design[held] @ _solve(squares - square, products - product, settings.penalty) + base
    solved = _solve(squares, products, settings.penalty)
    width = features.shape[1]
    return Ease(
        EaseHead(
            linear=solved[:width].astype(np.float32),
            projection=projection,
            landmarks=landmarks,
            near=(whiten @ solved[width:]).astype(np.float32),
            bias=base - float(centre @ solved[width:]),
        ),
        predicted,
        near,
        whiten,
    )


def _surroundings(
    features: FloatArray, settings: EaseSettings, *, seed: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Projection `[P, K]` to the kernel's space, landmarks `[L, K]` there, and what whitens their kernel `[L, L]`."""
    values, vectors = np.linalg.eigh((features.T @ features).astype(np.float64) / len(features))
    top = vectors[:, np.argsort(-values)[: settings.directions]]
    top = top * np.sign(top[np.abs(top).argmax(axis=0), np.arange(top.shape[1])])
    spread = float(np.sqrt(((features @ top.astype(np.float32)) ** 2).sum(axis=1).mean()))
    projection = rounded((top * settings.sharpness / max(spread, 1e-9)).astype(np.float32))
    points = features @ projection
    count = min(settings.landmarks, len(points))
    chosen = np.sort(np.random.default_rng(seed).choice(len(points), count, replace=False))
    landmarks = rounded(points[chosen])
    values, vectors = np.linalg.eigh(closeness(landmarks, landmarks).astype(np.float64))
    whiten = ((vectors / np.sqrt(np.maximum(values, 1e-4))) @ vectors.T).astype(np.float32)
    near = closeness(points, landmarks) @ whiten
    total = float(((near - near.mean(axis=0)) ** 2).sum(axis=1).mean())
    return projection, landmarks, whiten * np.float32(np.sqrt(settings.near_weight / max(total, 1e-9)))


def _moments(design: FloatArray, target: FloatArray, weights: FloatArray) -> tuple[Float64Array, Float64Array]:
    weighted = design * weights[:, None]
    return (weighted.T @ design).astype(np.float64), (weighted.T @ target).astype(np.float64)


def _solve(squares: Float64Array, products: Float64Array, penalty: float) -> Float64Array:
    return np.asarray(np.linalg.solve(squares + penalty * np.eye(len(products)), products))
