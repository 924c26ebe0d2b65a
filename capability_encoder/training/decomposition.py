"""Outcomes -> difficulty of prompts, ability of models, and the directions along which models differ.

Three steps: an additive logistic model reads difficulties off the outcomes; a ridge regression predicts them from the
features; what the additive model leaves over goes to the interaction (interaction.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from capability_encoder.features import FeatureMap, Heads
from capability_encoder.posterior import sigmoid
from capability_encoder.training.data import FloatArray, IntArray, TextArray
from capability_encoder.training.ease import EaseSettings, fit_ease
from capability_encoder.training.interaction import InteractionSettings, fit_interaction
from capability_encoder.training.own import OwnSettings, fit_own
from capability_encoder.training.slopes import suite_slope
from capability_encoder.training.topics import topic_numbers

Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class FitSettings:
    """Knobs of the decomposition; the defaults were chosen on dev (docs/experiments.md).

    Attributes:
        gram_weight, wave_weight: variance of the wording and form blocks, against 2 for the embedding.
        waves, wave_width: how many random Fourier features of the form, and their inverse squared width.
        item_deviation: prior deviation of a prompt's difficulty around its data set's mean, logits.
        text_deviation: how much of it the text cannot tell, logits; weighs prompts with few outcomes down.
        folds: for the out-of-fold coordinates.
    """

    gram_weight: float = 0.5
    wave_weight: float = 1.5
    waves: int = 384
    wave_width: float = 0.5
    item_deviation: float = 1.8
    text_deviation: float = 1.3
    folds: int = 5
    ease: EaseSettings = field(default_factory=EaseSettings)
    interaction: InteractionSettings = field(default_factory=InteractionSettings)
    own: OwnSettings = field(default_factory=OwnSettings)


class Additive(NamedTuple):
    """The additive logistic reading: `logit P = slope[n] (ease[n] + strength[m])`.

    Attributes:
        strength: `[M]`.  ease: `[N]` higher is easier.  variance: `[N]` of `ease`.
        slope: `[N]` how sharply an item tells models apart; 1 for ordinary prompts.
    """

    strength: Float64Array
    ease: Float64Array
    variance: Float64Array
    slope: Float64Array

    def expected(self) -> Float64Array:
        """P `[N, M]` of every pair."""
        return sigmoid(self.slope[:, None] * (self.ease[:, None] + self.strength[None, :]))


@dataclass(frozen=True, slots=True)
class Decomposition:
    """The fitted parts, with out-of-fold coordinates of the training prompts.

    Attributes:
        additive: read again with ease shrunk towards what the text tells.
        difficulty: `[N]` and `directions` `[N, R]`, predicted from features by heads that did not see the prompt.
        item_variance: variance of what the text cannot tell of a prompt's ease.
    """

    heads: Heads
    additive: Additive
    difficulty: Float64Array
    directions: Float64Array
    item_variance: float


def fit_feature_map(views: FloatArray, structure: tuple[int, int], settings: FitSettings, *, seed: int) -> FeatureMap:
    """Standardise the views of the training prompts and draw the random waves."""
    first, last = structure
    mean = views.mean(axis=0)
    centred = views - mean
    scale = np.ones(views.shape[1], dtype=np.float32)
    scale[:first] = _block_scale(centred[:, :first], 2.0)
    scale[first:last] = centred[:, first:last].std(axis=0) + 1e-6
    scale[last:] = _block_scale(centred[:, last:], settings.gram_weight)
    rng = np.random.default_rng(seed)
    width = np.sqrt(2.0 * settings.wave_width / (last - first))
    waves = (rng.standard_normal((last - first, settings.waves)) * width).astype(np.float32)
    phases = rng.uniform(0.0, 2.0 * np.pi, settings.waves).astype(np.float32)
    form = np.clip(centred[:, first:last] / scale[first:last], -3.0, 3.0)
    raw = np.sqrt(2.0 / settings.waves) * np.cos(form @ waves + phases)
    spread = float(np.sqrt(((raw - raw.mean(axis=0)) ** 2).sum(axis=1).mean()))
    return FeatureMap(
        mean=mean.astype(np.float32),
        scale=scale,
        structure=structure,
        waves=waves,
        phases=phases,
        wave_mean=raw.mean(axis=0).astype(np.float32),
        wave_weight=float(np.sqrt(settings.wave_weight)) / max(spread, 1e-9),
    )


def fit_additive(
    scores: FloatArray,
    datasets: TextArray,
    *,
    deviation: float,
    centre: Float64Array | None = None,
    slope: Float64Array | None = None,
    sweeps: int = 40,
) -> Additive:
    """Ease of prompts and strength of models by alternating Newton steps, over whatever was measured.

    Models were measured on different blocks of prompts; reading both effects at once keeps the block apart from the
    model. Ease is shrunk towards `centre` `[N]`, its data set's mean by default; strength towards 0 with deviation 2.
    `slope` is `[N]`, 1 by default.
    """
    measured = ~np.isnan(scores)
    known = np.where(measured, scores, 0.0).astype(np.float64)
    strength = np.zeros(scores.shape[1])
    ease = np.zeros(scores.shape[0])
    _, dataset = np.unique(datasets, return_inverse=True)
    counts = np.maximum(np.bincount(dataset), 1)
    given = centre
    centre = np.zeros(scores.shape[0]) if given is None else given
    precision = 1.0 / deviation**2
    information = np.zeros_like(known)
    sharp = np.ones(scores.shape[0]) if slope is None else slope
    for _ in range(sweeps):
        for _ in range(2):
            gradient, information = _logistic_slope(ease, strength, sharp, known, measured)
            ease += np.clip(
                (gradient.sum(axis=1) - (ease - centre) * precision) / (information.sum(axis=1) + precision), -1.0, 1.0
            )
        gradient, information = _logistic_slope(ease, strength, sharp, known, measured)
        strength += np.clip((gradient.sum(axis=0) - strength / 4.0) / (information.sum(axis=0) + 0.25), -1.0, 1.0)
        if given is None:
            centre = (np.bincount(dataset, ease) / counts)[dataset]
    return Additive(strength, ease, 1.0 / (information.sum(axis=1) + precision), sharp)


def fit_slopes(scores: FloatArray, datasets: TextArray, suites: TextArray, settings: FitSettings) -> Float64Array:
    """Slope `[N]` of each prompt: that of its aptitude suite, 1 where `suites` is empty."""
    slope = np.ones(len(scores))
    named = [name for name in np.unique(suites) if name]
    if not named:
        return slope
    additive = fit_additive(scores, datasets, deviation=settings.item_deviation)
    for name in named:
        rows = np.flatnonzero(suites == name)
        centre = np.full(len(rows), additive.ease[rows].mean())
        slope[rows] = suite_slope(scores[rows], additive.strength, centre, settings.item_deviation)
    return slope


def decompose(
    features: FloatArray,
    scores: FloatArray,
    datasets: TextArray,
    categories: TextArray,
    groups: TextArray,
    suites: TextArray,
    embedding_width: int,
    settings: FitSettings,
    *,
    seed: int,
) -> Decomposition:
    """Fit heads on all rows, and the same out of fold for every row.

    Args:
        features: `[N, P]`, the first `embedding_width` of them the sentence embedding.
        scores: `[N, M]` with NaN.  groups: near-duplicates stay in one fold.
        suites: aptitude suite of each prompt, empty for ordinary ones.
    """
    slope = fit_slopes(scores, datasets, suites, settings)
    additive = fit_additive(scores, datasets, deviation=settings.item_deviation, slope=slope)
    weights = 1.0 / (settings.text_deviation**2 + additive.variance)
    weights = (weights / weights.mean()).astype(np.float32)
    measured = ~np.isnan(scores)
    leftover = np.where(measured, scores - additive.expected(), 0.0).astype(np.float32)
    rich = measured.sum(axis=0) >= 100
    fold = assign_folds(groups, settings.folds, seed=seed)
    ease = fit_ease(features, additive.ease, weights, fold, settings.ease, seed=seed)
    missed = float(np.average((additive.ease - ease.predicted) ** 2, weights=weights))
    item_variance = max(missed - float(np.average(additive.variance, weights=weights)), 0.3)
    found = fit_interaction(
        features,
        leftover[:, rich],
        measured[:, rich],
        topic_numbers(categories),
        fold,
        embedding_width,
        settings.interaction,
        seed=seed,
    )
    own = fit_own(ease.near, ease.whiten, found.memberships, leftover, measured, settings.own)
    fitted = Heads(ease=ease.head, own=own, **found.head_parts)
    informed = fit_additive(
        scores, datasets, deviation=float(np.sqrt(item_variance)), centre=ease.predicted, slope=slope
    )
    return Decomposition(fitted, informed, ease.predicted, found.directions, item_variance)


def assign_folds(groups: TextArray, folds: int, *, seed: int) -> IntArray:
    """Fold of each row; rows of one group share it."""
    names, member = np.unique(groups, return_inverse=True)
    return np.asarray(np.random.default_rng(seed).integers(0, folds, len(names))[member], dtype=np.int64)


def _logistic_slope(
    ease: Float64Array,
    strength: Float64Array,
    sharp: Float64Array,
    known: Float64Array,
    measured: npt.NDArray[np.bool_],
) -> tuple[Float64Array, Float64Array]:
    p = sigmoid(sharp[:, None] * (ease[:, None] + strength[None, :]))
    return (
        np.where(measured, sharp[:, None] * (known - p), 0.0),
        np.where(measured, sharp[:, None] ** 2 * p * (1.0 - p), 0.0),
    )


def _block_scale(centred: FloatArray, variance: float) -> float:
    """Divisor that gives a block of columns the total variance wanted."""
    total = float((centred**2).sum(axis=1).mean())
    return float(np.sqrt(max(total, 1e-12) / variance))
