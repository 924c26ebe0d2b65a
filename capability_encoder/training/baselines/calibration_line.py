"""A Platt line for methods whose scores only order: p = sigmoid(slope * score + intercept), order untouched."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from capability_encoder.training.data import FloatArray


@dataclass(frozen=True, slots=True)
class PlattLine:
    """Slope (kept positive, so the order stays) and intercept."""

    slope: float
    intercept: float

    def __call__(self, scores: FloatArray) -> FloatArray:
        raw = np.clip(self.slope * scores + self.intercept, -30.0, 30.0)
        return np.asarray(1.0 / (1.0 + np.exp(-raw)), dtype=np.float32)


def fit_platt(scores: FloatArray, outcomes: FloatArray, *, steps: int = 50) -> PlattLine:
    """Newton's method on the cross-entropy over measured outcomes (NaN elsewhere), pairs pooled over models."""
    measured = ~np.isnan(outcomes)
    x, y = scores[measured].astype(np.float64), outcomes[measured].astype(np.float64)
    if len(x) == 0:
        return PlattLine(1.0, 0.0)
    centre, scale = x.mean(), max(x.std(), 1e-9)
    design = np.stack([(x - centre) / scale, np.ones_like(x)], axis=1)
    beta = np.array([0.1, 0.0])
    for _ in range(steps):
        p = 1.0 / (1.0 + np.exp(-np.clip(design @ beta, -30, 30)))
        gradient = design.T @ (p - y) + 1e-3 * beta
        curvature = design.T @ (design * (p * (1 - p))[:, None]) + 1e-3 * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        beta -= step
        if np.abs(step).max() < 1e-8:
            break
    slope = max(float(beta[0]), 1e-3)
    return PlattLine(slope / scale, float(beta[1]) - slope * centre / scale)
