"""The paired bootstrap agrees with a slow loop, keeps near-duplicates together, and pairs what it compares."""

import numpy as np
import pytest

from capability_encoder.training.bootstrap import (
    Resampler,
    cell_mean_interval,
    mean_interval,
    pool_mean_interval,
    two_way_interval,
)


def labels(count: int, prefix: str = "g") -> np.ndarray:
    return np.array([f"{prefix}{i}" for i in range(count)])


def test_the_interval_of_a_mean_agrees_with_a_slow_loop() -> None:
    values = np.random.default_rng(1).normal(2.0, 1.0, 150)
    found = mean_interval(Resampler(labels(150), np.repeat("d", 150), draws=4000, seed=0), values)
    rng = np.random.default_rng(2)
    slow = [values[rng.integers(150, size=150)].mean() for _ in range(4000)]
    assert found.estimate == pytest.approx(values.mean(), abs=1e-4)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(slow, [0.025, 0.975])), abs=0.02)


def test_the_same_seed_gives_the_same_draws_and_another_seed_others() -> None:
    values = np.arange(30.0)
    means = [Resampler(labels(30), np.repeat("d", 30), draws=50, seed=s).means(values) for s in (3, 3, 4)]
    np.testing.assert_array_equal(means[0], means[1])
    assert not np.array_equal(means[0], means[2])


def test_every_draw_of_a_stratum_keeps_its_size() -> None:
    strata = np.array(["a"] * 10 + ["b"] * 30)
    sums = Resampler(labels(40), strata, draws=200).sums((strata == "a").astype(float)[:, None])
    assert set(sums[:, 0]) == {10.0}


def test_near_duplicates_come_and_go_together() -> None:
    groups = np.array(["one", "one", "two", "three"])
    sums = Resampler(groups, np.repeat("d", 4), draws=300).sums(np.array([[1.0, 0.0], [0.0, 1.0], [0, 0], [0, 0]]))
    np.testing.assert_array_equal(sums[:, 0], sums[:, 1])


def test_a_difference_of_paired_methods_is_narrower_than_either() -> None:
    rng = np.random.default_rng(0)
    shared = rng.normal(0.0, 1.0, 200)
    resampler = Resampler(labels(200), np.repeat("d", 200), draws=2000)
    alone = mean_interval(resampler, shared)
    gap = mean_interval(resampler, (shared + 0.1) - shared)
    assert gap.low is not None
    assert gap.high is not None
    assert alone.low is not None
    assert alone.high is not None
    assert gap.high - gap.low < 1e-6 < alone.high - alone.low


def test_cells_that_were_not_measured_are_left_out() -> None:
    columns = np.array([[1.0, np.nan], [1.0, 4.0], [1.0, 4.0]])
    found = pool_mean_interval(Resampler(labels(3), np.repeat("d", 3), draws=100), columns)
    assert found.estimate == 2.5
    assert found.low is not None
    assert found.low >= 0.5


def test_resampling_models_too_widens_a_claim_about_new_models() -> None:
    errors = np.tile(np.linspace(0.1, 0.3, 8), (100, 1)) + np.random.default_rng(0).normal(0, 0.01, (100, 8))
    resampler = Resampler(labels(100), np.repeat("d", 100), draws=2000)
    prompts, both = mean_interval(resampler, errors.mean(axis=1)), two_way_interval(resampler, errors, seed=0)
    assert both.estimate == pytest.approx(prompts.estimate, abs=1e-4)
    assert both.low is not None
    assert both.high is not None
    assert prompts.low is not None
    assert prompts.high is not None
    assert both.high - both.low > 5 * (prompts.high - prompts.low)


def test_a_mean_over_cells_counts_every_cell_once() -> None:
    cells = np.array([[1.0, np.nan, np.nan], [0.0, 0.0, 0.0]])
    resampler = Resampler(np.array(["a", "b"]), np.array(["x", "x"]), draws=4_000, seed=3)
    found = cell_mean_interval(resampler, cells)
    assert found.estimate == 0.25
    assert (found.low, found.high) == (0.0, 1.0)
