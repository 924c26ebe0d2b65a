"""What answers say about a model: the posterior of its weights, a Gaussian with its covariance kept (Laplace)."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Float64Array = npt.NDArray[np.float64]

_STEPS = 25
_TOLERANCE = 1e-6


class Gaussian(NamedTuple):
    """Mean `[W]` and covariance `[W, W]` of a model's weights."""

    mean: Float64Array
    covariance: Float64Array


def sigmoid(x: Float64Array) -> Float64Array:
    """Logistic function, without overflow."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * x)), dtype=np.float64)


def attenuation(variance: Float64Array) -> Float64Array:
    """Factor on a logit whose Gaussian error is averaged out (MacKay 1992, probit approximation)."""
    return np.asarray(1.0 / np.sqrt(1.0 + np.pi / 8.0 * variance), dtype=np.float64)


def pack_symmetric(matrices: Float64Array) -> npt.NDArray[np.float32]:
    """Upper triangles of symmetric `[M, W, W]` as `[M, W (W + 1) / 2]`, elements off the diagonal doubled.

    x' S x is then one inner product of a row with `outer_triangle(x)`, over half of the elements.
    """
    above, beside = _triangle(matrices.shape[-1])
    packed = matrices[..., above, beside].astype(np.float32)
    packed[..., above != beside] *= 2.0
    return packed


def outer_triangle(rows: Float64Array) -> npt.NDArray[np.float32]:
    """Upper triangles `[B, W (W + 1) / 2]` of `x x'` for rows `[B, W]`, in the order of `pack_symmetric`."""
    above, beside = _triangle(rows.shape[-1])
    return (rows[:, above] * rows[:, beside]).astype(np.float32)


@lru_cache(maxsize=8)
def _triangle(width: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    above, beside = np.triu_indices(width)
    return above, beside


def update(
    prior: Gaussian,
    design: Float64Array,
    offsets: Float64Array,
    scores: Float64Array,
    weights: Float64Array | None = None,
) -> Gaussian:
    """Posterior of the weights after answers, by Newton steps on the logistic likelihood.

    Args:
        design: `[n, W]` one row per answered item.
        offsets: `[n]` what is known of the item beside its coordinates (its calibrated difficulty).
        scores: `[n]` in 0..1; fractional scores count as that share of a right answer.
        weights: `[n]` how much each answer counts; 1 by default.
    Returns:
        Mode and inverse Hessian; the prior itself where there is no answer.
    """
    if len(scores) == 0:
        return prior
    counts = np.ones(len(scores)) if weights is None else weights
    precision = np.linalg.inv(prior.covariance)
    mean = prior.mean.copy()
    hessian = precision
    for _ in range(_STEPS):
        p = sigmoid(design @ mean + offsets)
        gradient = design.T @ (counts * (scores - p)) - precision @ (mean - prior.mean)
        hessian = precision + (design * (counts * np.maximum(p * (1.0 - p), 1e-4))[:, None]).T @ design
        step = np.linalg.solve(hessian, gradient)
        # A long first step can overshoot where the likelihood is flat; two logits at a time is always safe.
        step *= min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-12))
        mean += step
        if float(np.abs(step).max()) < _TOLERANCE:
            break
    return Gaussian(mean, np.linalg.inv(hessian))


def update_with_common_error(
    prior: Gaussian,
    design: Float64Array,
    offsets: Float64Array,
    scores: Float64Array,
    shared: Float64Array,
    variance: float,
) -> Gaussian:
    """As `update`, where some items may all be harder or easier than thought, by one unknown amount.

    Without it many answers to a suite that nobody else has answered would make a model's ability look certain, although
    the suite's own level is not known.

    Args:
        shared: `[n]` how strongly the common error bears on each item; 0 for calibrated ones.
        variance: of the common error, in squared logits.
    """
    width = len(prior.mean)
    mean = np.concatenate([prior.mean, [0.0]])
    covariance = np.zeros((width + 1, width + 1))
    covariance[:width, :width] = prior.covariance
    covariance[width, width] = variance
    joint = update(Gaussian(mean, covariance), np.column_stack([design, shared]), offsets, scores)
    return Gaussian(joint.mean[:width], joint.covariance[:width, :width])
