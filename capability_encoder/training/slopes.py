"""How sharply a suite's items tell models apart, against ordinary prompts (discrimination of item response theory).

Aptitude items were chosen because strong and weak models differ on them. Read as ordinary prompts, they make strong
models look stronger and weak ones weaker than they are on everything else.
"""

from __future__ import annotations

import numpy as np

from capability_encoder.posterior import Float64Array, sigmoid
from capability_encoder.training.data import FloatArray

GRID = np.round(np.arange(0.6, 2.65, 0.1), 2)
_STEPS = 15
#: Fewer items tell nothing of a suite's slope.
FEWEST_ITEMS = 50


def suite_slope(scores: FloatArray, strength: Float64Array, centre: Float64Array, deviation: float) -> float:
    """Slope `a` of a group of items that makes their outcomes likeliest.

    `logit P = a strength[m] + b[n]`, with `b ~ N(centre[n], deviation^2)` integrated out (Laplace): estimated together
    with the slope, the items' own levels would inflate it.

    Args:
        scores: `[n, M]` with NaN.  strength: `[M]`.  centre: `[n]`.
    Returns:
        The best slope of `GRID`, refined by a parabola; 1 for fewer than `FEWEST_ITEMS` items.
    """
    if len(scores) < FEWEST_ITEMS:
        return 1.0
    likelihood = np.array([_log_evidence(scores, slope * strength, centre, deviation) for slope in GRID])
    best = int(likelihood.argmax())
    if best in (0, len(GRID) - 1):
        return float(GRID[best])
    left, middle, right = likelihood[best - 1 : best + 2]
    return float(GRID[best] + 0.05 * (left - right) / min(left - 2.0 * middle + right, -1e-12))


def _log_evidence(scores: FloatArray, shift: Float64Array, centre: Float64Array, deviation: float) -> float:
    measured = ~np.isnan(scores)
    known = np.where(measured, scores, 0.0).astype(np.float64)
    precision = 1.0 / deviation**2
    level = centre.astype(np.float64).copy()
    for _ in range(_STEPS):
        p = sigmoid(level[:, None] + shift[None, :])
        slope = np.where(measured, known - p, 0.0).sum(axis=1) - (level - centre) * precision
        level += np.clip(slope / (np.where(measured, p * (1.0 - p), 0.0).sum(axis=1) + precision), -1.0, 1.0)
    p = np.clip(sigmoid(level[:, None] + shift[None, :]), 1e-9, 1.0 - 1e-9)
    fit = np.where(measured, known * np.log(p) + (1.0 - known) * np.log(1.0 - p), 0.0).sum()
    curvature = np.where(measured, p * (1.0 - p), 0.0).sum(axis=1) + precision
    prior = 0.5 * precision * ((level - centre) ** 2).sum()
    return float(fit - prior - 0.5 * np.log(curvature / precision).sum())
