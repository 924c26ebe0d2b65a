"""The study's yardsticks: random pools of like strength, and the gain of choosing over the best single model."""

from __future__ import annotations

import numpy as np

from capability_encoder.training.model_sat_study import pooled_gain, random_pools


def test_random_pools_hold_distinct_neighbours_in_strength_and_repeat_with_the_seed() -> None:
    strength = np.linspace(0.0, 1.0, 30)
    pools = random_pools(strength, 50, seed=3)
    assert all(3 <= len(set(pool.tolist())) == len(pool) <= 11 for pool in pools)
    assert all(np.ptp(pool) < 2.5 * len(pool) for pool in pools)
    assert all(np.array_equal(a, b) for a, b in zip(pools, random_pools(strength, 50, seed=3), strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(pools, random_pools(strength, 50, seed=4), strict=True))


def test_gain_is_the_chosen_score_less_that_of_the_strongest_of_each_pool() -> None:
    logits = np.array([[2.0, 1.0, 0.0], [0.0, 1.0, 2.0]])
    truth = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]], dtype=np.float32)
    pools = [np.array([0, 1]), np.array([1, 2])]
    strength = np.array([0.1, 0.9, 0.5])
    # Pool one picks 0 then 1 against 1 (1, 0); pool two picks 1 then 2 against 1 (0, -1).
    assert pooled_gain(logits, truth, pools, strength).tolist() == [0.5, -0.5]
