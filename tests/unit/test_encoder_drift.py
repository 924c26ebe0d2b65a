"""Drift figures: hand-computed values, windows, and silence where there is too little."""

import numpy as np
import pytest

from capability_encoder.drift import PSI_LARGE, DriftMonitor, expected_calibration_error, stability_index


def test_the_same_mix_is_stable_and_another_is_not() -> None:
    assert stability_index([0.5, 0.5], [5_000, 5_000]) == pytest.approx(0.0, abs=1e-6)
    # (0.9 - 0.5) ln(0.9 / 0.5) + (0.1 - 0.5) ln(0.1 / 0.5) = 0.879, less a little for the half counts.
    assert stability_index([0.5, 0.5], [9_000, 1_000]) == pytest.approx(0.879, abs=0.002)


def test_a_cluster_never_seen_does_not_give_infinity() -> None:
    assert np.isfinite(stability_index([0.0, 1.0], [10, 0]))


def test_calibration_error_by_hand() -> None:
    # Two bins of two: |0.2 - 0.5| and |0.8 - 1.0|, equal weights.
    assert expected_calibration_error([0.2, 0.2, 0.8, 0.8], [0, 1, 1, 1], bins=2) == pytest.approx(0.25)
    assert expected_calibration_error([0.0, 1.0], [0, 1]) == pytest.approx(0.0)


def test_no_figure_is_given_for_little_traffic() -> None:
    monitor = DriftMonitor([0.5, 0.5], fewest=10)
    monitor.see_prompt(0)
    monitor.see_grade(0.5, 1.0)
    report = monitor.report()
    assert (report.psi, report.brier, report.calibration_error) == (None, None, None)
    assert (report.prompts, report.graded) == (1, 1)


def test_old_traffic_leaves_the_window() -> None:
    monitor = DriftMonitor([0.5, 0.5], window=100, fewest=50)
    for cluster in [0] * 100 + [0, 1] * 50:
        monitor.see_prompt(cluster)
    assert monitor.report().psi == pytest.approx(0.0, abs=1e-6)


def test_a_changed_mix_and_a_broken_model_show() -> None:
    monitor = DriftMonitor([0.5, 0.5], fewest=50)
    for _ in range(100):
        monitor.see_prompt(1)
        monitor.see_grade(0.9, 0.0)
    report = monitor.report()
    assert report.psi is not None
    assert report.psi > PSI_LARGE
    assert report.brier == pytest.approx(0.81)
    assert report.calibration_error == pytest.approx(0.9)
