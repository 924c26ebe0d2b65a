"""Ease of prompts and slope of suites: recovered where the truth is known."""

from __future__ import annotations

import numpy as np

from capability_encoder.posterior import sigmoid
from capability_encoder.training.ease import EaseSettings, fit_ease
from capability_encoder.training.slopes import suite_slope


def test_ease_that_is_not_linear_in_the_features_is_found() -> None:
    rng = np.random.default_rng(0)
    features = rng.standard_normal((3000, 3)).astype(np.float32)
    ease = np.abs(features[:, 0]) * 2.0
    fold = rng.integers(0, 5, 3000)
    settings = EaseSettings(directions=3, landmarks=200, penalty=1.0)
    found = fit_ease(features, ease, np.ones(3000, dtype=np.float32), fold, settings, seed=0)
    assert np.corrcoef(found.predicted, ease)[0, 1] > 0.95
    fresh = rng.standard_normal((500, 3)).astype(np.float32)
    predicted = found.head.predict(fresh, found.head.surroundings(fresh))
    assert np.corrcoef(predicted, np.abs(fresh[:, 0]))[0, 1] > 0.95


def test_the_ease_of_a_training_prompt_is_told_without_it() -> None:
    rng = np.random.default_rng(1)
    features = rng.standard_normal((400, 20)).astype(np.float32)
    ease = rng.standard_normal(400)
    settings = EaseSettings(directions=10, landmarks=100, penalty=0.1)
    found = fit_ease(features, ease, np.ones(400, dtype=np.float32), rng.integers(0, 5, 400), settings, seed=0)
    assert abs(np.corrcoef(found.predicted, ease)[0, 1]) < 0.2
    seen = found.head.predict(features, found.head.surroundings(features))
    assert np.corrcoef(seen, ease)[0, 1] > 0.3


def test_the_slope_of_a_sharp_suite_is_found_and_that_of_a_tiny_one_is_not_guessed() -> None:
    rng = np.random.default_rng(2)
    strength = np.linspace(-1.5, 1.5, 20)
    level = 1.2 * rng.standard_normal(800)
    scores = (rng.random((800, 20)) < sigmoid(1.6 * strength + level[:, None])).astype(np.float32)
    assert abs(suite_slope(scores, strength, np.zeros(800), 1.2) - 1.6) < 0.15
    assert suite_slope(scores[:10], strength, np.zeros(10), 1.2) == 1.0
