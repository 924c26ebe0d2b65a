"""Covariances packed as triangles: the quick quadratic form of the scorer's head equals the plain one."""

from __future__ import annotations

import numpy as np
import pytest

from capability_encoder.features import closeness
from capability_encoder.posterior import outer_triangle, pack_symmetric
from capability_encoder.scorer import Pool


def test_off_diagonal_elements_are_doubled() -> None:
    packed = pack_symmetric(np.array([[[1.0, 2.0], [2.0, 5.0]]]))
    assert packed.tolist() == [[1.0, 4.0, 5.0]]
    assert outer_triangle(np.array([[3.0, 10.0]])).tolist() == [[9.0, 30.0, 100.0]]


@pytest.mark.parametrize("width", [1, 2, 22])
def test_variance_of_a_pool_equals_the_quadratic_form(width: int) -> None:
    rng = np.random.default_rng(width)
    roots = rng.standard_normal((7, width, width))
    covariances = roots @ roots.transpose(0, 2, 1)
    rows = rng.standard_normal((5, width))
    pool = Pool(tuple("abcdefg"), np.zeros((7, width)), covariances)
    slow = np.einsum("bv,mvw,bw->bm", rows, covariances, rows)
    # Single precision over a few hundred terms.
    np.testing.assert_allclose(pool.variance(rows), slow, rtol=1e-5, atol=1e-4)


def test_a_pool_without_candidates_has_no_variances() -> None:
    pool = Pool((), np.zeros((0, 3)), np.zeros((0, 3, 3)))
    assert pool.variance(np.ones((2, 3))).shape == (2, 0)


def test_closeness_is_the_same_with_known_squares() -> None:
    rng = np.random.default_rng(3)
    points, landmarks = rng.standard_normal((4, 6)).astype(np.float32), rng.standard_normal((5, 6)).astype(np.float32)
    given = closeness(points, landmarks, (landmarks**2).sum(axis=1))
    np.testing.assert_array_equal(given, closeness(points, landmarks))
