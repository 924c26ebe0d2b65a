"""Tables by hand: gaps, priors, domains that training did not see, and the shrinkage of thin clusters."""

from __future__ import annotations

import numpy as np
import pytest

from capability_encoder.training.baselines.calibration_line import fit_platt
from capability_encoder.training.baselines.cluster_table import ClusterTable, ShrunkenClusterTable, spherical_kmeans
from capability_encoder.training.baselines.columns import read_population
from capability_encoder.training.baselines.domain_table import AccuracyTable
from capability_encoder.training.baselines.neighbours import nearest
from capability_encoder.training.data import Outcomes

NAN = float("nan")


def outcomes(scores: list[list[float]], labels: list[str] | None = None) -> Outcomes:
    table = np.array(scores, dtype=np.float32)
    count = len(table)
    names = np.array(labels or ["x"] * count, dtype=np.str_)
    vectors = np.eye(count, 4, dtype=np.float32) if count <= 4 else np.tile(np.eye(4, dtype=np.float32), (count, 1))
    return Outcomes(
        prompt_ids=tuple(map(str, range(count))), asks=("",) * count, vectors=vectors[:count],
        models=tuple("abcdefgh"[: table.shape[1]]), scores=table, costs=np.full_like(table, np.nan), datasets=names,
        tasks=names, categories=names, splits=names, groups=names,
    )  # fmt: skip


def test_population_explains_an_easy_block_by_the_prompts_not_by_the_model() -> None:
    """b was measured on the easy prompts only; a did worse there and is yet no weaker on the whole."""
    easy, hard = [[0.8, 0.7]] * 40, [[0.2, NAN]] * 40
    population = read_population(outcomes(easy + hard))
    assert population.strength[0] > population.strength[1]
    assert population.filled[60, 1] < 0.2  # a hard prompt, filled with less than the better model reached there


def test_a_cell_is_the_mean_pulled_by_the_prior() -> None:
    train = outcomes([[1.0], [1.0], [0.0], [0.0]], ["law", "law", "math", "math"])
    table = AccuracyTable(train.tasks, train, prior=2.0)
    assert table.of(np.array(["law", "math"]))[:, 0] == pytest.approx([0.75, 0.25])  # strength is one half


def test_an_unknown_domain_gets_the_strength() -> None:
    train = outcomes([[1.0], [0.0]], ["law", "math"])
    assert AccuracyTable(train.tasks, train, prior=0.0).of(np.array(["zoo"]))[0, 0] == pytest.approx(0.5)


def test_a_raw_table_uses_own_answers_only() -> None:
    train = outcomes([[1.0, 0.0], [1.0, NAN], [0.0, NAN], [0.0, 1.0]], ["law", "law", "math", "math"])
    table = AccuracyTable(train.tasks, train, prior=0.0, measured_only=True)
    assert table.of(np.array(["law", "math"])).tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_nearest_are_ordered_and_exact() -> None:
    rng = np.random.default_rng(0)
    memory, queries = (rng.normal(size=(n, 5)).astype(np.float32) for n in (50, 7))
    places, values = nearest(queries, memory, 10)
    expected = np.argsort(-(queries @ memory.T), axis=1)[:, :10]
    assert np.array_equal(places, expected)
    assert np.all(np.diff(values, axis=1) <= 0)


def test_kmeans_finds_separate_directions() -> None:
    rng = np.random.default_rng(0)
    centres = np.eye(3, 6)
    vectors = centres[np.arange(90) % 3] + rng.normal(scale=0.05, size=(90, 6))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    centroids = spherical_kmeans(vectors, 3, seed=0)
    assert np.sort((centroids @ centres.T).max(axis=0)) == pytest.approx([1.0] * 3, abs=0.01)


def test_empirical_bayes_shrinks_noise_and_keeps_signal() -> None:
    rng = np.random.default_rng(0)
    domain = rng.integers(8, size=800)
    vectors = np.eye(8, dtype=np.float32)[domain]
    chance = np.stack([np.full(800, 0.5), np.where(domain < 4, 0.95, 0.05)], axis=1)  # a is flat, b depends
    base = outcomes((rng.random((800, 2)) < chance).astype(np.float32).tolist())
    train = Outcomes(**{name: getattr(base, name) for name in Outcomes.__slots__} | {"vectors": vectors})
    raw, shrunken = (
        c(clusters=8).fit(train, 0).predict(np.eye(8, dtype=np.float32), ["a", "b"])
        for c in (ClusterTable, ShrunkenClusterTable)
    )
    truth = np.stack([np.full(8, 0.5), np.where(np.arange(8) < 4, 0.95, 0.05)], axis=1)
    assert np.abs(shrunken - truth).mean() < np.abs(raw - truth).mean() + 0.01
    assert np.ptp(shrunken[:, 1]) > 0.7


def test_a_platt_line_recovers_the_line_that_made_the_outcomes() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(20_000, 1)).astype(np.float32)
    truth = (rng.random(scores.shape) < 1 / (1 + np.exp(-(2.0 * scores - 0.5)))).astype(np.float32)
    line = fit_platt(scores, truth)
    assert (line.slope, line.intercept) == pytest.approx((2.0, -0.5), abs=0.1)  # standard errors about 0.03


def test_a_platt_line_never_turns_the_order_round() -> None:
    scores = np.array([[0.0], [1.0]], dtype=np.float32)
    assert fit_platt(scores, 1.0 - scores).slope > 0
