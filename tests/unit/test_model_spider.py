"""Model Spider: the first pass is an inner product, the re-rank touches the top k only, evidence excludes oneself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from capability_encoder.memory import TokenIndex
from capability_encoder.training.data import Outcomes
from capability_encoder.training.model_spider import Evidence, ModelSpider

MODELS = ("a", "b", "c", "d", "e")


def outcomes(prompts: int = 120, seed: int = 0) -> Outcomes:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(prompts, 6)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    chance = 1.0 / (1.0 + np.exp(-4.0 * vectors[:, :5]))
    scores = (rng.random((prompts, 5)) < chance).astype(np.float32)
    label = np.full(prompts, "x", dtype="<U5")
    return Outcomes(
        prompt_ids=tuple(map(str, range(prompts))), asks=("",) * prompts, vectors=vectors, models=MODELS,
        scores=scores, costs=np.full_like(scores, np.nan), datasets=label, tasks=label, categories=label,
        splits=np.full(prompts, "train", dtype="<U5"), groups=np.arange(prompts).astype(np.str_),
    )  # fmt: skip


@pytest.fixture(scope="module")
def spider() -> ModelSpider:
    return ModelSpider(dimensions=8, epochs=8, most=4).fit(outcomes(), seed=0)


def test_the_token_index_of_the_run_time_gives_the_order_of_the_first_pass(spider: ModelSpider) -> None:
    matrix, vectors = spider.tokens(), outcomes(20, seed=5).vectors
    index = TokenIndex(matrix.names, matrix.tokens)
    expected = np.argsort(-spider.predict(vectors, matrix.names, budget=0), axis=1)
    for query, order in zip(matrix.query(vectors), expected, strict=True):
        assert [name for name, _ in index.search(query, 3)] == [matrix.names[column] for column in order[:3]]


def test_the_re_rank_changes_the_top_k_and_nothing_else(spider: ModelSpider) -> None:
    vectors = outcomes(30, seed=5).vectors
    first, ranked = (spider.predict(vectors, MODELS, budget=k) for k in (0, 2))
    top = np.argsort(-first, axis=1)
    rows = np.arange(30)[:, None]
    np.testing.assert_array_equal(first[rows, top[:, 2:]], ranked[rows, top[:, 2:]])
    assert not np.allclose(first[rows, top[:, :2]], ranked[rows, top[:, :2]])


def test_the_budget_counts_only_the_models_of_the_pool(spider: ModelSpider) -> None:
    vectors = outcomes(10, seed=6).vectors
    pool = ["d", "e"]
    first, ranked = (spider.predict(vectors, pool, budget=k) for k in (0, 2))
    assert not np.any(np.isclose(first, ranked, atol=1e-9).all(axis=1))


def test_evidence_of_a_known_prompt_leaves_its_own_group_out() -> None:
    train = outcomes()
    twin = replace(train, scores=1.0 - train.scores)
    # only the outcomes of row 0 differ between the two memories
    changed = replace(train, scores=np.vstack([twin.scores[:1], train.scores[1:]]))
    before = Evidence(train).of(train.vectors[:1], train.groups[:1])
    after = Evidence(changed).of(changed.vectors[:1], changed.groups[:1])
    # the population means move a little with the changed row; its own outcomes would move the scale of 10 by 0.07
    np.testing.assert_allclose(before, after, atol=0.02)


def test_evidence_is_positive_where_a_model_does_better_than_usual_nearby() -> None:
    train = outcomes(400)
    query = np.zeros((1, 6), dtype=np.float32)
    query[0, 1] = 1.0  # model b is good where coordinate 1 is large
    residuals = Evidence(train).of(query)[0, :, 1, 0]
    assert residuals.argmax() == 1
    assert residuals[1] > 0.05


def test_learns_which_model_suits_which_prompt() -> None:
    train, test = outcomes(1500), outcomes(400, seed=9)
    method = ModelSpider(dimensions=8, epochs=15, most=4).fit(train, seed=0)
    choice = method.predict(test.vectors, MODELS).argmax(axis=1)
    reached = test.scores[np.arange(400), choice].mean()
    assert reached > test.scores.mean(axis=0).max() + 0.1
