"""A candidate's own answers near the prompt: they count where they predict its other answers, and nowhere else."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from capability_encoder.near_answers import NearAnswers, NearFit, blend, fit_near, near_weights
from capability_encoder.scorer import ScoreBatch

FloatArray = npt.NDArray[np.float32]
GROUPS, PER_GROUP, WIDTH = 4, 30, 16


def grouped_items(seed: int = 0) -> tuple[FloatArray, npt.NDArray[np.int64]]:
    """Unit vectors of items in well separated groups, and each one's group."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(GROUPS), PER_GROUP)
    vectors = np.eye(WIDTH)[groups] + 0.1 * rng.standard_normal((len(groups), WIDTH))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), groups


def fitted(scores: FloatArray, vectors: FloatArray, p: float) -> NearFit:
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -1.0)
    return fit_near(cosines, np.full(scores.shape, p, dtype=np.float32), scores, np.ones_like(scores))


def test_a_specialists_answers_near_by_count_and_those_of_a_uniform_model_do_not() -> None:
    vectors, groups = grouped_items()
    specialist = (groups == 1).astype(np.float32)
    uniform = (np.random.default_rng(1).random(len(groups)) < 0.25).astype(np.float32)
    fit = fitted(np.stack([specialist, uniform]), vectors, 0.25)
    assert fit.strength[0] <= 1.0
    assert np.isinf(fit.strength[1])


def test_a_prompt_of_the_specialty_gains_and_one_of_another_kind_loses() -> None:
    vectors, groups = grouped_items()
    specialist = (groups == 1).astype(np.float32)[None]
    near = NearAnswers(vectors, specialist, np.ones_like(specialist), fitted(specialist, vectors, 0.25))
    of_its_own, of_others = (
        near.refine(batch_of(0.25), np.eye(WIDTH, dtype=np.float32)[group], WIDTH) for group in (1, 2)
    )
    assert of_its_own.p[0] > 0.9
    assert of_others.p[0] < 0.05
    assert of_its_own.p_low[0] <= of_its_own.p[0] <= of_its_own.p_high[0]


def test_a_prompt_unlike_every_item_keeps_the_tokens_prediction() -> None:
    vectors, groups = grouped_items()
    specialist = (groups == 1).astype(np.float32)[None]
    near = NearAnswers(vectors, specialist, np.ones_like(specialist), fitted(specialist, vectors, 0.25))
    far = np.eye(WIDTH, dtype=np.float32)[WIDTH - 1]
    assert near.refine(batch_of(0.25), far, WIDTH).p[0] == pytest.approx(0.25, abs=0.02)


def test_a_candidate_without_answers_keeps_its_p_and_its_interval() -> None:
    vectors, groups = grouped_items()
    scores = np.stack([(groups == 1).astype(np.float32), np.zeros(len(groups), dtype=np.float32)])
    answered = np.stack([np.ones(len(groups)), np.zeros(len(groups))]).astype(np.float32)
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -1.0)
    fit = fit_near(cosines, np.full(scores.shape, 0.25, dtype=np.float32), scores, answered)
    after = NearAnswers(vectors, scores, answered, fit).refine(batch_of(0.25, 0.6), vectors[0], WIDTH)
    assert (after.p[1], after.p_low[1], after.p_high[1]) == pytest.approx((0.6, 0.5, 0.7))


def test_blending_is_the_mean_of_a_beta_distribution() -> None:
    p, evidence = blend(
        np.array([0.5], dtype=np.float32),
        np.array([2.0], dtype=np.float32),
        np.array([[1.0, 1.0]], dtype=np.float32),
        np.array([[1.0, 1.0]], dtype=np.float32),
    )
    assert (p[0], evidence[0]) == pytest.approx((0.75, 2.0))


def test_the_nearest_of_related_answers_weighs_one() -> None:
    weights = near_weights(np.array([0.9, 0.8], dtype=np.float32), 10.0)
    assert weights == pytest.approx([1.0, np.exp(-1.0)], rel=1e-5)


def batch_of(*p: float) -> ScoreBatch:
    values = np.array(p, dtype=np.float32)
    return ScoreBatch(
        names=tuple(f"m{index}" for index in range(len(p))),
        p=values,
        p_low=values - 0.1,
        p_high=values + 0.1,
        ability=values,
        interaction=values,
        difficulty=0.0,
        novelty=0.0,
        neighbours=(),
        clusters=(),
    )
