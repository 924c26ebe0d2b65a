"""Own heads: what thousands of outcomes say of one model beyond the directions that all share."""

from __future__ import annotations

import numpy as np
import pytest

from capability_encoder.compact import from_bytes, rounded, to_bytes
from capability_encoder.profile import CapabilityProfile
from capability_encoder.scorer import CapabilityScorer
from capability_encoder.training.own import OwnSettings, fit_own
from tests.support.small_encoder import SmallWorld, small_world


@pytest.fixture(scope="module")
def world() -> SmallWorld:
    return small_world()


@pytest.fixture(scope="module")
def scorer(world: SmallWorld) -> CapabilityScorer:
    return world.scorer(world.fit())


def synthetic(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Closeness, memberships of two topics, leftovers of three models (the first is good at topic 0), measured."""
    rng = np.random.default_rng(seed)
    near = rng.random((2000, 6)).astype(np.float32)
    topic = rng.integers(0, 2, 2000)
    leftover = 0.05 * rng.standard_normal((2000, 3))
    leftover[:, 0] += np.where(topic == 0, 0.2, -0.2)
    measured = np.ones((2000, 3), dtype=bool)
    measured[200:, 2] = False
    leftover[~measured] = 0.0
    return near, np.eye(2, dtype=np.float32)[topic], leftover.astype(np.float32), measured


def test_a_model_that_is_good_at_one_topic_is_seen_to_be() -> None:
    near, topics, leftover, measured = synthetic()
    heads = fit_own(near, np.eye(6, dtype=np.float32), topics, leftover, measured, OwnSettings(penalty=1.0, share=1.0))
    read = heads.read(near, topics)
    lead = read[topics[:, 0] == 1].mean(axis=0) - read[topics[:, 1] == 1].mean(axis=0)
    # A leftover of 0.2 in probability is one logit where p(1 - p) is 0.2.
    assert lead[0] == pytest.approx(2.0, abs=0.1)
    assert abs(lead[1]) < 0.1


def test_a_model_with_few_outcomes_has_no_head_of_its_own() -> None:
    near, topics, leftover, measured = synthetic()
    heads = fit_own(near, np.eye(6, dtype=np.float32), topics, leftover, measured, OwnSettings(fewest=300))
    assert not heads.near[:, 2].any()
    assert not heads.topical[:, 2].any()
    assert heads.bias[2] == 0.0


def test_outcomes_that_were_not_measured_do_not_count_as_agreement() -> None:
    near, topics, leftover, measured = synthetic()
    leftover[:200, 2] += np.where(topics[:200, 0] == 1, 0.2, -0.2)
    settings = OwnSettings(penalty=1.0, share=1.0, fewest=100)
    read = fit_own(near, np.eye(6, dtype=np.float32), topics, leftover, measured, settings).read(near, topics)
    lead = read[topics[:, 0] == 1, 2].mean() - read[topics[:, 1] == 1, 2].mean()
    assert lead > 1.5


def test_a_newcomer_is_scored_by_its_weights_alone(world: SmallWorld, scorer: CapabilityScorer) -> None:
    place = scorer.locate(world.views(scorer.state)[:6])
    name = scorer.known_models[0]
    pool = scorer.prepare([CapabilityProfile("stranger"), CapabilityProfile(name, known_as=name)])
    assert pool.own is not None
    assert pool.own.tolist() == [-1, 0]
    shared = place.design @ pool.means.T
    np.testing.assert_array_equal(place.logit(pool)[:, 0], shared[:, 0])
    np.testing.assert_allclose(place.logit(pool)[:, 1] - shared[:, 1], place.own[:, 0], atol=1e-6)
    assert np.abs(place.own).max() > 0.01


def test_on_a_prompt_of_an_unknown_kind_own_heads_are_silent(world: SmallWorld, scorer: CapabilityScorer) -> None:
    views = world.views(scorer.state)[:2].copy()
    views[:, 16:44] = 30.0
    assert not scorer.locate(views).own.any()


def test_a_table_in_bytes_comes_back_within_half_a_step() -> None:
    table = np.random.default_rng(3).standard_normal((50, 4)).astype(np.float32) * [1.0, 10.0, 0.0, 1e-3]
    values, scale = to_bytes(table.astype(np.float32))
    assert values.dtype == np.int8
    assert scale[2] == 0.0
    assert (np.abs(from_bytes(values, scale) - table) <= 0.5001 * scale + 1e-12).all()
    np.testing.assert_allclose(rounded(rounded(table)), rounded(table), atol=1e-6)
