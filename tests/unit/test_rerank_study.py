"""The re-rank study: what it adds, where, and how it is compared."""

from __future__ import annotations

import numpy as np

from capability_encoder.training.rerank_study import Scored, compare, re_ranked, weigh_evidence


def scored(seed: int, prompts: int, weight: float) -> Scored:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(prompts, 4)).astype(np.float32)
    evidence = rng.normal(size=(prompts, 4, 2)).astype(np.float32)
    p = 1.0 / (1.0 + np.exp(-(logits + weight * evidence[:, :, 0])))
    return Scored(logits, evidence, (rng.random(p.shape) < p).astype(np.float32))


def test_weights_of_the_evidence_are_recovered() -> None:
    weights = weigh_evidence(scored(0, 4000, 1.5))
    np.testing.assert_allclose(weights, [1.5, 0.0], atol=0.1)  # 16,000 outcomes: standard error about 0.02


def test_the_re_rank_leaves_all_but_the_best_k_alone() -> None:
    case = scored(1, 20, 1.0)
    after = re_ranked(case, np.array([1.0, 0.0]), budget=2)
    changed = after != case.logits
    assert np.array_equal(changed.sum(axis=1), np.full(20, 2))
    assert np.all(
        np.argsort(-case.logits, axis=1)[:, :2] == np.argsort(-np.where(changed, case.logits, -9), axis=1)[:, :2]
    )


def test_evidence_that_matters_raises_routed_accuracy() -> None:
    case = scored(2, 2000, 2.0)
    result = compare(case.logits, re_ranked(case, np.array([2.0, 0.0]), budget=4), case.scores)
    difference = result["difference"]
    assert isinstance(difference, list)
    assert difference[1] > 0  # the interval is above 0


def test_a_pool_keeps_the_prompts_that_all_its_models_answered() -> None:
    case = scored(3, 6, 0.0)
    case.scores[0, 1] = np.nan
    assert len(case.of_pool([0, 1]).scores) == 5
    assert len(case.of_pool([2, 3]).scores) == 6
