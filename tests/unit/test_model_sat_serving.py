"""Model-SAT's serving form: numpy says what torch says, answers are a set, and their content matters."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from capability_encoder.encoder_head import EncoderHead, Instruction, ItemBank
from capability_encoder.state import Items
from capability_encoder.training.data import Outcomes
from capability_encoder.training.model_sat import (
    Material,
    SatSettings,
    expected_scores,
    material_of,
    model_vectors,
    prompt_logits,
    train_head,
)

MODELS = tuple("abcdefgh")
QUICK = SatSettings(width=16, queries=4, values=4, connector=16, directions=4, steps=200, batch=64, drawn_items=64)


def outcomes(prompts: int = 300, seed: int = 0) -> Outcomes:
    """Models of rising strength; the first coordinate of a prompt favours even models, the second makes it easy."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(prompts, 5)).astype(np.float32)
    strength = np.linspace(-1.5, 1.5, len(MODELS))
    side = np.where(np.arange(len(MODELS)) % 2 == 0, 1.5, -1.5)
    logits = strength + vectors[:, [0]] * side + vectors[:, [1]]
    scores = (rng.random(logits.shape) < 1.0 / (1.0 + np.exp(-logits))).astype(np.float32)
    label = np.where(vectors[:, 0] > 0, "left", "right")
    return Outcomes(
        prompt_ids=tuple(map(str, range(prompts))), asks=("",) * prompts, vectors=vectors, models=MODELS,
        scores=scores, costs=np.full_like(scores, np.nan), datasets=np.full(prompts, "d"), tasks=label,
        categories=label, splits=np.where(np.arange(prompts) < 80, "aptitude", "train"),
        groups=np.arange(prompts).astype(np.str_),
    )  # fmt: skip


def material(prompts: int = 300, seed: int = 0) -> Material:
    train = outcomes(prompts, seed)
    return material_of(train, train.vectors, np.ones((len(MODELS), 1), dtype=np.float32), ("left", "right"))


@pytest.fixture(scope="module")
def head() -> EncoderHead:
    return train_head(material(), QUICK, seed=0)


def test_numpy_gives_the_vectors_and_logits_of_torch(head: EncoderHead) -> None:
    known, rows = material(), np.arange(80)
    weights = {name: torch.from_numpy(array) for name, array in head.arrays().items()}
    items = torch.from_numpy((known.features - head.mean) / head.scale)
    scores = torch.from_numpy(known.scores[rows].T.copy())
    chosen = torch.rand(scores.shape, generator=torch.Generator().manual_seed(1)) < 0.4
    chosen[0] = False  # nothing known of the first model
    expected = torch.from_numpy(known.expected[rows].T.copy())
    categories = torch.from_numpy(np.where(rows % 7 == 0, -1, known.categories[rows]))
    slow = model_vectors(weights, items[:80], categories, expected, scores, chosen, torch.from_numpy(known.facts))
    named = known._replace(categories=np.where(np.arange(300) % 7 == 0, -1, known.categories))
    quick = head.model_vectors([named.instruction(m, rows[chosen[m].numpy()]) for m in range(len(MODELS))])
    # Sums over eighty answers in single precision.
    np.testing.assert_allclose(quick, slow.numpy(), atol=2e-5)
    logits = prompt_logits(weights, items, slow)
    np.testing.assert_allclose(head.logits(known.features, quick), logits.numpy(), atol=1e-4)


def test_the_order_of_the_answers_does_not_matter(head: EncoderHead) -> None:
    known = material()
    forward, backward = (known.instruction(3, rows) for rows in (np.arange(80), np.arange(80)[::-1]))
    np.testing.assert_allclose(head.model_vector(forward), head.model_vector(backward), atol=1e-5)


def test_a_model_never_met_is_placed_by_its_answers(head: EncoderHead) -> None:
    """New models that answer one side only are preferred on that side."""
    items = material(200, seed=9)
    left = (items.features[:, 0] > 0).astype(np.float32)
    half = np.full(200, 0.5, dtype=np.float32)
    vectors = head.model_vectors(
        [Instruction(items.features, items.categories, half, score, items.facts[0]) for score in (left, 1.0 - left)]
    )
    ahead = np.diff(head.logits(material(100, seed=4).features, vectors), axis=1)[:, 0] < 0
    assert np.mean(ahead == (material(100, seed=4).features[:, 0] > 0)) > 0.75  # guessing gives half


def test_few_answers_move_a_model_less_than_many(head: EncoderHead) -> None:
    known = material()
    nothing, few, many = (
        head.logits(known.features, head.model_vectors([known.instruction(7, np.arange(count))])).mean()
        for count in (0, 6, 80)
    )
    assert nothing < few < many  # the strongest model


def test_the_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    short = replace(QUICK, steps=5)
    first, again, other = (train_head(material(), short, seed=seed) for seed in (3, 3, 4))
    assert all(np.array_equal(array, again.arrays()[name]) for name, array in first.arrays().items())
    assert not np.array_equal(first.item_map, other.item_map)


def test_a_head_survives_storage_in_half_precision(head: EncoderHead) -> None:
    stored = EncoderHead.from_arrays({name: array.astype(np.float16) for name, array in head.arrays().items()})
    known = material()
    one = known.instruction(2, np.arange(80))
    before, after = (h.logits(known.features, h.model_vectors([one])) for h in (head, stored))
    np.testing.assert_allclose(after, before, atol=0.02)


def test_the_expected_score_leaves_the_models_own_outcome_out() -> None:
    train = outcomes()
    turned = train.scores.copy()
    turned[5, 2] = 1.0 - turned[5, 2]
    before, after = expected_scores(train), expected_scores(replace(train, scores=turned))
    # Its own cell hardly moves (through the model's mean only); the cells of the others do.
    assert abs(after[5, 2] - before[5, 2]) < 0.02 < abs(after[5, 3] - before[5, 3])


def test_the_scorers_items_become_instructions_with_its_ease_as_expectation() -> None:
    items = Items(
        ids=("p", "q", "r"), categories=("law", "art", "law"),
        coordinates=np.array([[1.0, 0.5], [-1.0, 0.0], [0.0, 2.0]], dtype=np.float32),
        offset=np.array([-1.0, 0.0, 2.0], dtype=np.float32), variance=np.ones(3, dtype=np.float32),
        slope=np.ones(3, dtype=np.float32),
        answered=np.zeros((3, 1), dtype=np.uint8),
    )  # fmt: skip
    told = ItemBank.of(items).instruction(np.array([0, 2]), np.array([1.0, 0.0]), np.zeros(1, dtype=np.float32))
    assert told.categories.tolist() == [1, 1]
    np.testing.assert_allclose(told.expected, [0.5, 1.0 / (1.0 + np.exp(-2.0))], rtol=1e-6)
    np.testing.assert_array_equal(told.items, items.coordinates[[0, 2]])
