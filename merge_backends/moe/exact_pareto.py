"""Exact Pareto Optimal search (Mahapatra and Rajan, ICML 2020): task weights whose step moves to a preference's ray."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

Floats = NDArray[np.float64]

# Non-uniformity of preference times loss below which a point counts as lying on its ray.
ON_THE_RAY = 1e-4
# Losses of 0 have no direction; this stands in for them.
LEAST = 1e-12


def exact_pareto_weights(losses: Floats, gradients: Floats, preference: Floats) -> tuple[Floats, bool]:
    """Weights `(tasks,)` of the simplex to sum the losses with, and whether the linear program had a solution.

    A point is exact where `preference * losses` is the same for all tasks. Off that ray the step turns towards it and
    must not raise the loss of the task that is worst off; on the ray all losses must fall. Where nothing satisfies
    this, the preference itself is given (linear scalarisation).

    Args:
        losses: `(tasks,)`, at least 0.
        gradients: `(tasks, parameters)` of the losses.
        preference: `(tasks,)` on the simplex.

    Ref: Mahapatra and Rajan, "Multi-Task Learning with User Preferences", equations 20 to 25.
    """
    preference = np.maximum(preference, LEAST)
    scaled = preference * np.maximum(losses, LEAST)
    share = scaled / scaled.sum()
    logs = np.log(np.maximum(share, LEAST) * len(share))
    uneven = float(share @ logs)
    products = gradients @ gradients.T
    towards = products @ (preference * (logs - uneven))
    if uneven > ON_THE_RAY:
        floor = np.zeros_like(towards)
        falls = towards > 0
        if falls.any():
            floor = np.where(falls, -np.inf, towards)
            floor[scaled == scaled.max()] = 0.0
        found = _solve(towards, products, floor)
    else:
        found = _solve(products.sum(axis=0), products, np.zeros_like(towards))
    return (preference / preference.sum(), False) if found is None else (found, True)


def _solve(gain: Floats, products: Floats, floor: Floats) -> Floats | None:
    """Simplex weights of largest `gain` with `products @ weights >= floor`; None where there are none."""
    # The program does not care about the scale of the gradients; the solver's tolerances do.
    scale = max(float(np.abs(products).max()), LEAST)
    bound = np.isfinite(floor)
    result = linprog(
        -gain / scale,
        A_ub=-products[bound] / scale if bound.any() else None,
        b_ub=-floor[bound] / scale if bound.any() else None,
        A_eq=np.ones((1, len(gain))),
        b_eq=[1.0],
        bounds=(0, 1),
    )
    return np.asarray(result.x, dtype=np.float64) if result.success else None
