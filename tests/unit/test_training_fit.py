"""The fit: same bits for the same data, each part recovers what was put in."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from capability_encoder.posterior import Gaussian, sigmoid, update
from capability_encoder.state import from_arrays, to_arrays
from capability_encoder.training.decomposition import fit_additive
from capability_encoder.training.interaction import _ridge
from capability_encoder.training.topics import fit_topics, topic_numbers
from tests.support.small_encoder import small_world


def test_two_fits_of_the_same_data_are_the_same_bit_for_bit() -> None:
    first, second = (to_arrays(small_world().fit()) for _ in range(2))
    assert first[1] == second[1]
    for group, arrays in first[0].items():
        for name, array in arrays.items():
            assert array.tobytes() == second[0][group][name].tobytes(), f"{group}.{name}"


def test_a_state_scores_the_same_after_being_written_and_read() -> None:
    world = small_world()
    state = world.fit()
    again = from_arrays(*_written(to_arrays(state)))
    views = world.views(state)[:20]
    before, after = world.scorer(state).locate(views), world.scorer(again).locate(views)
    np.testing.assert_allclose(before.design, after.design, atol=1e-5)


def test_a_prompt_of_an_unknown_kind_is_expected_to_be_as_easy_as_the_aptitude_items() -> None:
    world = small_world()
    hard = world.logit.mean(axis=1) < -0.5
    world.recorded.outcomes = replace(world.recorded.outcomes, splits=np.where(hard, "aptitude", "train"))
    state = world.fit()
    unread = np.zeros_like(world.views(state)[:1])
    found = world.scorer(state).locate(unread).design[0, 1]
    ease = state.items.coordinates[:, 0]
    assert found == pytest.approx(ease[hard].mean(), abs=1e-5)
    assert found < ease.mean() - 0.1  # which the mean over all prompts would be


def test_a_posterior_recovers_the_weights_behind_the_answers() -> None:
    rng = np.random.default_rng(1)
    truth = np.array([0.7, 1.0, -0.8])
    design = np.column_stack([np.ones(4000), rng.standard_normal((4000, 2))])
    scores = (rng.random(4000) < sigmoid(design @ truth)).astype(float)
    found = update(Gaussian(np.zeros(3), np.eye(3)), design, np.zeros(4000), scores)
    assert (np.abs(found.mean - truth) < 4.0 * np.sqrt(np.diag(found.covariance))).all()


def test_models_measured_on_an_easy_block_do_not_look_stronger() -> None:
    rng = np.random.default_rng(2)
    ease = np.concatenate([rng.normal(1.5, 1.0, 400), rng.normal(-1.5, 1.0, 400)])
    scores = (rng.random((800, 6)) < sigmoid(np.tile(ease[:, None], 6))).astype(np.float32)
    scores[400:, :2], scores[:400, 2:4] = np.nan, np.nan
    found = fit_additive(scores, np.repeat(["easy", "hard"], 400), deviation=1.8)
    assert np.ptp(found.strength) < 0.6


def test_prompts_a_model_was_not_measured_on_do_not_pull_its_direction_to_zero() -> None:
    design = np.random.default_rng(3).standard_normal((400, 3)).astype(np.float32)
    measured = np.ones((400, 2), dtype=bool)
    measured[100:, 1] = False
    leftover = np.where(measured, design[:, :1], 0.0).astype(np.float32)
    heads = _ridge(design, leftover, measured, 1.0)
    np.testing.assert_allclose(heads[0], 1.0, atol=0.05)


def test_topics_are_told_and_small_ones_are_left_out() -> None:
    rng = np.random.default_rng(4)
    categories = np.array(["astronomy"] * 70 + ["physics"] * 30 + ["law"] * 80 + ["rare"] * 5)
    topics = topic_numbers(categories)
    assert topics[0] == topics[80] != topics[120]
    assert (topics[180:] == -1).all()
    features = (rng.standard_normal((185, 4)) + 4.0 * topics[:, None]).astype(np.float32)
    weights, bias = fit_topics(features, topics, 2)
    told = (features @ weights + bias).argmax(axis=1)
    assert (told == topics)[topics >= 0].mean() > 0.95


def _written(parts: tuple) -> tuple:  # type: ignore[type-arg]
    groups, records = parts
    return groups, records["scorer"]
