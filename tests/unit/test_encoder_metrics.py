"""Figures of merit on cases worked out by hand."""

import numpy as np
import pytest

from capability_encoder.training.metrics import (
    auc_within_model,
    auc_within_prompt,
    brier,
    calibration_error,
    choice_entropy,
    interval_coverage,
    reliability_bins,
    upper_hull_area,
)


def column(values: list[float]) -> np.ndarray:
    return np.array(values, dtype=np.float32)[:, None]


def test_calibration_error_by_hand() -> None:
    bins = reliability_bins(column([0.9, 0.1, 0.7, 0.3]), column([1.0, 0.0, 0.0, 1.0]), bins=2)
    assert [(round(b.predicted, 6), b.observed, b.count) for b in bins] == [(0.2, 0.5, 2), (0.8, 0.5, 2)]
    assert calibration_error(bins) == pytest.approx(0.3)


def test_bins_hold_equal_mass_and_only_measured_pairs() -> None:
    scores = np.zeros((40, 2), dtype=np.float32)
    scores[:10, 1] = np.nan
    bins = reliability_bins(np.random.default_rng(0).random((40, 2)).astype(np.float32), scores, bins=7)
    assert [b.count for b in bins] == [10] * 7


def test_brier_skips_what_was_not_measured() -> None:
    scores = np.array([[1.0, np.nan]], dtype=np.float32)
    assert brier(np.array([[0.5, 0.9]], dtype=np.float32), scores) == 0.25


def test_auc_within_a_prompt_by_hand() -> None:
    predicted = np.array([[0.9, 0.5, 0.1], [0.2, 0.2, 0.8], [0.3, 0.4, 0.5]], dtype=np.float32)
    scores = np.array([[1.0, 0.0, 1.0], [1.0, 0.0, 0.0], [1.0, 1.0, 1.0]], dtype=np.float32)
    # (1 of 2 pairs), (half a tie and a loss of 2), and a prompt that decides nothing.
    assert auc_within_prompt(predicted, scores) == pytest.approx((0.5 + 0.25) / 2)


def test_auc_within_a_model_by_hand() -> None:
    assert auc_within_model(column([0.1, 0.4, 0.35, 0.8]), column([0, 0, 1, 1])) == pytest.approx(0.75)


def test_area_under_the_upper_hull_by_hand() -> None:
    # (2, 40) lies under the line from (1, 50) to (3, 90); (4, 80) is dearer and worse. Up from 1 to 3, then level.
    area = upper_hull_area(np.array([1.0, 2.0, 3.0, 4.0]), np.array([50.0, 40.0, 90.0, 80.0]), 1.0, 4.0)
    assert area == pytest.approx((70.0 * 2 + 90.0) / 3)


def test_the_hull_keeps_a_point_above_the_line() -> None:
    area = upper_hull_area(np.array([0.0, 1.0, 2.0]), np.array([0.0, 80.0, 100.0]), 0.0, 2.0)
    assert area == pytest.approx((40.0 + 90.0) / 2)


def test_entropy_of_choices() -> None:
    assert choice_entropy(np.array([2, 2, 2])) == pytest.approx(0.0)
    assert choice_entropy(np.array([0, 1, 0, 1])) == pytest.approx(np.log(2))


@pytest.mark.parametrize(("error", "scale", "low", "high"), [(0.4, 1.0, 0.85, 0.95), (0.4, 0.2, 0.0, 0.8)])
def test_intervals_of_the_right_width_cover_and_narrow_ones_do_not(
    error: float, scale: float, low: float, high: float
) -> None:
    rng = np.random.default_rng(0)
    models, prompts = 300, 400
    logit = np.sort(rng.normal(0.0, 0.05, (prompts, models)), axis=0)
    # Each model's predictions are off by one error of its own, as a posterior mean is.
    truth = 1.0 / (1.0 + np.exp(-(logit + rng.normal(0.0, error, models))))
    scores = (rng.random((prompts, models)) < truth).astype(np.float32)
    half = 1.6449 * error * scale
    p, down, up = ((1.0 / (1.0 + np.exp(-(logit + shift)))).astype(np.float32) for shift in (0.0, -half, half))
    found = interval_coverage(p, down, up, scores, group_size=400)
    assert found.groups == models
    assert low <= found.coverage <= high
