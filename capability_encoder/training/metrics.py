"""Figures of merit of predicted probabilities `[N, M]` against scores `[N, M]`; NaN scores are not measured."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from capability_encoder.training.data import FloatArray, IntArray
from capability_encoder.training.report_schema import ReliabilityBin

Float64Array = npt.NDArray[np.float64]
_SMALLEST = 1e-6
_NORMAL_90 = 1.6449


def brier(predicted: FloatArray, scores: FloatArray) -> float:
    """Mean squared error over measured pairs."""
    return float(np.nanmean((predicted - scores) ** 2))


def log_loss(predicted: FloatArray, scores: FloatArray) -> float:
    """Mean cross-entropy in nats over measured pairs; fractional scores count as that share of a right answer."""
    p = np.clip(predicted.astype(np.float64), _SMALLEST, 1.0 - _SMALLEST)
    return float(np.nanmean(-(scores * np.log(p) + (1.0 - scores) * np.log(1.0 - p))))


def auc_within_prompt(predicted: FloatArray, scores: FloatArray) -> float:
    """Mean over prompts of the chance that a right model is scored above a wrong one; ties count half."""
    right, wrong = scores >= 0.5, scores < 0.5
    won = np.zeros(len(scores))
    for model in range(scores.shape[1]):
        gap = predicted[:, [model]] - predicted
        won += right[:, model] * (wrong * ((gap > 0) + 0.5 * (gap == 0))).sum(axis=1)
    pairs = right.sum(axis=1) * wrong.sum(axis=1)
    decided = pairs > 0
    return float((won[decided] / pairs[decided]).mean()) if decided.any() else 0.5


def auc_within_model(predicted: FloatArray, scores: FloatArray) -> float:
    """Mean over models of the chance that a prompt it gets right is scored above one it gets wrong."""
    from scipy.stats import rankdata

    found = []
    for p, truth in zip(predicted.T, scores.T, strict=True):
        p, truth = p[~np.isnan(truth)], truth[~np.isnan(truth)] >= 0.5
        right = int(truth.sum())
        if 0 < right < len(truth):
            ranks = rankdata(p)[truth].sum()
            found.append((ranks - right * (right + 1) / 2) / (right * (len(truth) - right)))
    return float(np.mean(found)) if found else 0.5


def choice_entropy(choice: IntArray) -> float:
    """Entropy in nats of how often each model is chosen; 0 when one model takes all."""
    share = np.bincount(choice) / max(len(choice), 1)
    share = share[share > 0]
    return float(-(share * np.log(share)).sum())


def reliability_bins(predicted: FloatArray, scores: FloatArray, *, bins: int = 15) -> tuple[ReliabilityBin, ...]:
    """Equal-mass bins of all measured pairs, from the lowest prediction to the highest."""
    measured = ~np.isnan(scores)
    p, truth = predicted[measured].astype(np.float64), scores[measured].astype(np.float64)
    order = np.argsort(p, kind="stable")
    return tuple(
        ReliabilityBin(predicted=float(p[part].mean()), observed=float(truth[part].mean()), count=len(part))
        for part in np.array_split(order, min(bins, len(order)))
    )


def calibration_error(bins: tuple[ReliabilityBin, ...]) -> float:
    """Expected calibration error: mean distance of predicted and observed, weighted by the bins' mass."""
    total = sum(each.count for each in bins)
    return sum(each.count * abs(each.predicted - each.observed) for each in bins) / total


class IntervalCheck(NamedTuple):
    """Share of groups covered, how many groups, and the mean width of the intervals."""

    coverage: float
    groups: int
    width: float


def interval_coverage(
    p: FloatArray, low: FloatArray, high: FloatArray, scores: FloatArray, *, group_size: int = 100
) -> IntervalCheck:
    """How often a 90 % interval of the rate among prompts like this one holds the rate.

    Each model's prompts are cut into groups of like prediction. A group's observed rate differs from the true one by
    chance, so it counts as covered when it lies within 1.645 deviations of the group's mean prediction, the variance
    being the interval's own plus the binomial one of the group. Intervals of the right width cover 90 %.
    """
    covered, widths = [], []
    for model in range(scores.shape[1]):
        rows = np.flatnonzero(~np.isnan(scores[:, model]))
        if len(rows) < group_size // 2:
            continue
        rows = rows[np.argsort(p[rows, model], kind="stable")]
        for part in np.array_split(rows, max(len(rows) // group_size, 1)):
            expected = p[part, model].astype(np.float64)
            width = float((high[part, model] - low[part, model]).mean())
            chance = float((expected * (1.0 - expected)).sum()) / len(part) ** 2
            spread = np.sqrt((width / (2.0 * _NORMAL_90)) ** 2 + chance)
            covered.append(abs(float(scores[part, model].mean()) - float(expected.mean())) <= _NORMAL_90 * spread)
            widths.append(width)
    return IntervalCheck(float(np.mean(covered)), len(covered), float(np.mean(widths)))


def upper_hull_area(costs: Float64Array, quality: Float64Array, low: float, high: float) -> float:
    """Average quality over costs `low..high` of the non-decreasing upper hull of operating points (RouterBench's AIQ).

    Mixing two neighbours at random reaches every point between them, hence the hull; dearer than the best point one
    simply uses the best point; cheaper than the cheapest point its quality stands, for all methods alike.
    """
    order = np.lexsort((-quality, costs))
    hull: list[tuple[float, float]] = []
    for cost, value in zip(costs[order].tolist(), quality[order].tolist(), strict=True):
        if hull and value <= hull[-1][1]:
            continue
        while len(hull) >= 2 and _is_below(hull[-2], hull[-1], (cost, value)):
            hull.pop()
        hull.append((cost, value))
    at, heights = (np.array(part) for part in zip(*hull, strict=True))
    grid = np.unique(np.concatenate([[low, high], at[(at > low) & (at < high)]]))
    return float(np.trapezoid(np.interp(grid, at, heights), grid) / max(high - low, 1e-12))


def _is_below(left: tuple[float, float], middle: tuple[float, float], right: tuple[float, float]) -> bool:
    """Whether `middle` lies on or under the line from `left` to `right`."""
    return (middle[1] - left[1]) * (right[0] - left[0]) <= (right[1] - left[1]) * (middle[0] - left[0])
