"""The scorer, fitted on a small world whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from capability_encoder.posterior import sigmoid
from capability_encoder.profile import Answer, CapabilityProfile
from capability_encoder.scorer import CapabilityScorer, Pool
from tests.support.small_encoder import SmallWorld, small_world


@pytest.fixture(scope="module")
def world() -> SmallWorld:
    return small_world()


@pytest.fixture(scope="module")
def scorer(world: SmallWorld) -> CapabilityScorer:
    return world.scorer(world.fit())


def answers_of(world: SmallWorld, column: int, rows: range) -> tuple[Answer, ...]:
    outcomes = world.recorded.outcomes
    return tuple(Answer(outcomes.prompt_ids[row], float(outcomes.scores[row, column])) for row in rows)


def known_pool(scorer: CapabilityScorer) -> Pool:
    return scorer.prepare([CapabilityProfile(name, known_as=name) for name in scorer.known_models])


def test_abilities_of_known_models_come_back_in_order(world: SmallWorld, scorer: CapabilityScorer) -> None:
    found = known_pool(scorer).means[:, 0]
    assert np.corrcoef(found, world.ability)[0, 1] > 0.95


def test_models_differ_by_topic_as_they_do_in_truth(world: SmallWorld, scorer: CapabilityScorer) -> None:
    p = scorer.score_many(world.views(scorer.state), known_pool(scorer)).p
    truth = sigmoid(world.logit)
    lead = p[:, ::2].mean(axis=1) - p[:, 1::2].mean(axis=1)
    assert np.corrcoef(lead, truth[:, ::2].mean(axis=1) - truth[:, 1::2].mean(axis=1))[0, 1] > 0.8


def test_a_model_without_facts_or_answers_gets_the_population(scorer: CapabilityScorer) -> None:
    pool = scorer.prepare([CapabilityProfile("stranger"), CapabilityProfile("other")])
    prior = scorer.state.population.prior(CapabilityProfile("anyone"))
    np.testing.assert_array_equal(pool.means[0], prior.mean)
    np.testing.assert_array_equal(pool.means[0], pool.means[1])


def test_more_answers_move_the_ability_and_narrow_the_interval(world: SmallWorld, scorer: CapabilityScorer) -> None:
    best = world.ability.argmax()
    profiles = [CapabilityProfile(f"n{n}", answers=answers_of(world, int(best), range(n))) for n in (0, 20, 300)]
    pool = scorer.prepare(profiles)
    assert pool.means[0, 0] < pool.means[1, 0] < pool.means[2, 0]
    scores = scorer.score_many(world.views(scorer.state)[:50], pool)
    width = (scores.p_high - scores.p_low).mean(axis=0)
    assert width[0] > width[1] > width[2]


def test_the_order_of_answers_does_not_matter(world: SmallWorld, scorer: CapabilityScorer) -> None:
    answers = answers_of(world, 3, range(40))
    pool = scorer.prepare([CapabilityProfile("a", answers=answers), CapabilityProfile("b", answers=answers[::-1])])
    np.testing.assert_allclose(pool.means[0], pool.means[1], atol=1e-9)


def test_what_the_artefact_was_fitted_on_does_not_count_twice(world: SmallWorld, scorer: CapabilityScorer) -> None:
    name = scorer.known_models[4]
    told = CapabilityProfile("told", known_as=name, answers=answers_of(world, 4, range(100)))
    pool = scorer.prepare([CapabilityProfile("plain", known_as=name), told])
    np.testing.assert_array_equal(pool.means[0], pool.means[1])


def test_a_prompt_of_an_unknown_kind_falls_back_to_the_population(world: SmallWorld, scorer: CapabilityScorer) -> None:
    views = world.views(scorer.state)[:4].copy()
    known = scorer.locate(views)
    views[:, :16] = np.eye(16, dtype=np.float32)[15] * -1.0
    views[:, 16:44] = 30.0
    strange = scorer.locate(views)
    assert strange.novelty.min() == 1.0 > known.novelty.max()
    np.testing.assert_allclose(strange.design[:, 2:], 0.0, atol=1e-9)
    # One known prompt in twenty lies outside the radius of its own kind, so only the middle one is compared.
    assert strange.item_variance.min() > np.median(known.item_variance)


def test_the_intervals_cover_the_rates_of_models_known_by_answers(world: SmallWorld) -> None:
    scores = world.recorded.outcomes.scores.copy()
    scores[:, [2, 5, 8]] = np.nan
    scorer = world.scorer(world.fit(scores))
    pool = scorer.prepare([CapabilityProfile(f"m{c}", answers=answers_of(world, c, range(100))) for c in (2, 5, 8)])
    rows = np.arange(100, 900)
    found = scorer.score_many(world.views(scorer.state)[rows], pool)
    truth = sigmoid(world.logit[rows][:, [2, 5, 8]])
    order = found.p.mean(axis=1).argsort()
    inside = []
    for group in np.array_split(order, 10):
        rate = truth[group].mean(axis=0)
        inside.extend((found.p_low[group].mean(axis=0) <= rate) & (rate <= found.p_high[group].mean(axis=0)))
    assert np.mean(inside) >= 0.8


def test_one_prompt_alone_scores_as_in_a_batch(world: SmallWorld, scorer: CapabilityScorer) -> None:
    views, pool = world.views(scorer.state)[:5], known_pool(scorer)
    alone = scorer.score(views[2], pool)
    np.testing.assert_allclose(alone.p, scorer.score_many(views, pool).p[2], atol=1e-5)
    logit = alone.ability + alone.interaction - alone.difficulty
    np.testing.assert_allclose(logit, scorer.locate(views).logit(pool)[2], atol=1e-4)


def test_a_prompt_that_comes_again_is_scored_for_the_pool_of_that_moment(
    world: SmallWorld, scorer: CapabilityScorer
) -> None:
    vector, pool = world.views(scorer.state)[7], known_pool(scorer)
    fewer = scorer.prepare([CapabilityProfile(name, known_as=name) for name in scorer.known_models[:2]])
    first = scorer.score(vector, pool)
    np.testing.assert_array_equal(scorer.score(vector.copy(), pool).p, first.p)
    np.testing.assert_array_equal(scorer.score(vector, fewer).p, first.p[:2])
    more = scorer.score(vector, pool, neighbours=9)
    assert len(more.neighbours) == 9
    assert more.neighbours[:5] == first.neighbours
