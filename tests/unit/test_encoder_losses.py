"""Losses: hand-computed numbers, slow references written from the papers, laws, gradients."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from capability_encoder.training import losses

# float64 against a reference in the same precision: only the order of additions differs.
EXACT = 1e-9


def tensor(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def everything(scores: Tensor) -> Tensor:
    return torch.ones_like(scores, dtype=torch.bool)


def random_case(seed: int, prompts: int = 5, models: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(prompts, models, generator=generator, dtype=torch.float64)
    scores = torch.randint(0, 3, (prompts, models), generator=generator).to(torch.float64) / 2
    observed = torch.rand(prompts, models, generator=generator) > 0.2
    return logits, scores, observed


def slow_plackett_luce(logits: Tensor, scores: Tensor, observed: Tensor, ties: str) -> float:
    """Written from the definition, one model at a time."""
    total, comparisons = 0.0, 0
    for row, score_row, mask in zip(logits.tolist(), scores.tolist(), observed.tolist(), strict=True):
        present = [m for m in range(len(row)) if mask[m]]
        seen_in_tie: dict[float, int] = {}
        for m in present:
            worse = sum(math.exp(row[o]) for o in present if score_row[o] < score_row[m])
            tied = [o for o in present if score_row[o] == score_row[m]]
            tied_mass = sum(math.exp(row[o]) for o in tied)
            if ties == "strict":
                rivals, mass = worse > 0, worse + math.exp(row[m])
            elif ties == "breslow":
                rivals, mass = worse > 0 or len(tied) > 1, worse + tied_mass
            else:
                place = seen_in_tie.setdefault(score_row[m], 0)
                seen_in_tie[score_row[m]] += 1
                rivals = worse > 0 or len(tied) > 1
                mass = worse + tied_mass * (len(tied) - place) / len(tied)
            if rivals:
                total += math.log(mass) - row[m]
                comparisons += 1
    return total / max(comparisons, 1)


def test_binary_cross_entropy_of_an_even_bet_is_log_two() -> None:
    scores = tensor([[1.0, 0.0]])
    loss = losses.binary_cross_entropy(torch.zeros_like(scores), scores, everything(scores))
    assert loss.item() == pytest.approx(math.log(2), abs=EXACT)


def test_binary_cross_entropy_ignores_what_was_not_observed() -> None:
    logits, scores = tensor([[0.0, 50.0]]), tensor([[1.0, float("nan")]])
    loss = losses.binary_cross_entropy(logits, scores, torch.tensor([[True, False]]))
    assert loss.item() == pytest.approx(math.log(2), abs=EXACT)


def test_plackett_luce_of_two_models_is_a_logistic_comparison() -> None:
    logits, scores = tensor([[2.0, 0.5]]), tensor([[0.0, 1.0]])
    loss = losses.plackett_luce(logits, scores, everything(scores))
    # the winner against the loser; the loser has no rival left and states nothing
    assert loss.item() == pytest.approx(math.log(1 + math.exp(1.5)), abs=EXACT)


def test_plackett_luce_without_ties_is_the_product_over_places() -> None:
    logits, scores = tensor([[0.3, -0.2, 1.0]]), tensor([[0.9, 0.5, 0.1]])
    a, b, c = (math.exp(x) for x in (0.3, -0.2, 1.0))
    expected = -(math.log(a / (a + b + c)) + math.log(b / (b + c))) / 2
    for ties in ("strict", "breslow", "efron"):
        loss = losses.plackett_luce(logits, scores, everything(scores), ties=ties)
        assert loss.item() == pytest.approx(expected, abs=EXACT)


@pytest.mark.parametrize("ties", ["strict", "breslow", "efron"])
@pytest.mark.parametrize("seed", range(5))
def test_plackett_luce_equals_the_slow_reference(ties: losses.Ties, seed: int) -> None:
    logits, scores, observed = random_case(seed)
    loss = losses.plackett_luce(logits, scores, observed, ties=ties)
    assert loss.item() == pytest.approx(slow_plackett_luce(logits, scores, observed, ties), abs=EXACT)


def test_efron_is_exact_where_the_tied_models_score_alike() -> None:
    """With equal tied scores every order within the tie is equally likely, so the average is exact."""
    row = [0.7, 0.7, 0.7, -0.4]
    logits, scores = tensor([row]), tensor([[1.0, 1.0, 1.0, 0.0]])
    orders = []
    for order in itertools.permutations(range(3)):
        race, likelihood = [*order, 3], 1.0
        for place in range(3):
            likelihood *= math.exp(row[race[place]]) / sum(math.exp(row[m]) for m in race[place:])
        orders.append(likelihood)
    mean = sum(orders) / len(orders)
    loss = losses.plackett_luce(logits, scores, everything(scores), ties="efron")
    assert loss.item() * 3 == pytest.approx(-math.log(mean), abs=EXACT)


def test_a_prompt_that_everyone_solves_states_nothing_under_strict_ties() -> None:
    logits = tensor([[3.0, -1.0, 0.0]]).requires_grad_()
    scores = torch.ones_like(logits)
    loss = losses.plackett_luce(logits, scores, everything(scores))
    loss.backward()
    assert loss.item() == 0.0
    assert logits.grad is not None
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("ties", ["strict", "breslow", "efron"])
def test_plackett_luce_does_not_change_when_a_prompt_gets_an_offset(ties: losses.Ties) -> None:
    logits, scores, observed = random_case(11)
    offset = torch.arange(5, dtype=torch.float64).unsqueeze(1) * 7
    before = losses.plackett_luce(logits, scores, observed, ties=ties)
    after = losses.plackett_luce(logits + offset, scores, observed, ties=ties)
    assert after.item() == pytest.approx(before.item(), abs=1e-8)  # offsets of 28 cost a digit


@pytest.mark.parametrize("ties", ["strict", "breslow"])
def test_plackett_luce_does_not_depend_on_the_order_of_models(ties: losses.Ties) -> None:
    logits, scores, observed = random_case(12)
    order = torch.tensor([4, 1, 5, 0, 3, 2])
    before = losses.plackett_luce(logits, scores, observed, ties=ties)
    after = losses.plackett_luce(logits[:, order], scores[:, order], observed[:, order], ties=ties)
    assert after.item() == pytest.approx(before.item(), abs=EXACT)


@pytest.mark.parametrize("ties", ["strict", "breslow", "efron"])
def test_plackett_luce_gradients_agree_with_finite_differences(ties: losses.Ties) -> None:
    logits, scores, observed = random_case(13, prompts=2, models=4)
    assert torch.autograd.gradcheck(
        lambda x: losses.plackett_luce(x, scores, observed, ties=ties), (logits.requires_grad_(),)
    )


def test_plackett_luce_stays_finite_for_huge_logits() -> None:
    logits = torch.tensor([[800.0, -800.0, 0.0]], requires_grad=True)
    scores = torch.tensor([[0.0, 1.0, 1.0]])
    loss = losses.plackett_luce(logits, scores, everything(scores))
    loss.backward()
    assert loss.item() == pytest.approx((1600 + 800) / 2)
    assert logits.grad is not None
    assert bool(torch.isfinite(logits.grad).all())


def test_model_sat_contrast_of_equal_scores_is_log_k() -> None:
    assert losses.model_sat_contrast(torch.zeros(3, 4)).item() == pytest.approx(math.log(4), abs=1e-6)


def test_model_sat_contrast_cannot_see_an_offset_of_a_model() -> None:
    """The reason why the published loss cannot order models: g(model) cancels."""
    scores = tensor([[0.4, -1.0, 0.2], [1.0, 0.0, 2.0]])
    offsets = tensor([[5.0], [-3.0]])
    before, after = losses.model_sat_contrast(scores), losses.model_sat_contrast(scores + offsets)
    assert after.item() == pytest.approx(before.item(), abs=EXACT)


def test_homogeneous_groups_hold_one_right_and_otherwise_wrong_answers_of_one_model() -> None:
    _, scores, observed = random_case(3, prompts=30)
    rows, columns = losses.homogeneous_groups(scores, observed, negatives=3, generator=torch.Generator().manual_seed(0))
    assert len(rows) > 0
    picked = scores[rows, columns.unsqueeze(1)]
    assert bool((picked[:, 0] > 0.5).all())
    assert bool((picked[:, 1:] <= 0.5).all())
    assert bool(observed[rows, columns.unsqueeze(1)].all())


def test_homogeneous_groups_are_empty_when_a_model_never_fails() -> None:
    scores = torch.ones(4, 2)
    rows, columns = losses.homogeneous_groups(
        scores, everything(scores), negatives=3, generator=torch.Generator().manual_seed(0)
    )
    assert rows.shape == (0, 4)
    assert columns.shape == (0,)


def test_sample_model_contrast_by_hand() -> None:
    similarities, scores = tensor([[0.5, 0.1, -0.3, 0.2]]), tensor([[1.0, 1.0, 0.0, 0.3]])
    negative = math.exp(-0.3) + math.exp(0.2)
    expected = sum(math.log((math.exp(s) + negative) / math.exp(s)) for s in (0.5, 0.1))
    loss = losses.sample_model_contrast(similarities, scores, everything(scores), top=2, last=2)
    assert loss.item() == pytest.approx(expected, abs=EXACT)


def test_sample_model_contrast_skips_right_negatives_and_failed_positives() -> None:
    similarities = tensor([[0.5, 0.1], [0.9, -0.9]])
    scores = tensor([[1.0, 0.8], [0.0, 0.0]])
    loss = losses.sample_model_contrast(similarities, scores, everything(scores), top=2, last=2)
    assert loss.item() == pytest.approx(0.0, abs=EXACT)


def test_sample_sample_contrast_prefers_tight_clusters() -> None:
    clusters = torch.tensor([0, 0, 1, 1])
    tight = tensor([[1.0, 0.0], [1.0, 0.1], [-1.0, 0.0], [-1.0, 0.1]])
    mixed = tight[[0, 2, 1, 3]]

    def value(embeddings: Tensor) -> float:
        generator = torch.Generator().manual_seed(0)
        return losses.sample_sample_contrast(embeddings, clusters, generator=generator).item()

    assert value(tight) < value(mixed)


def test_sample_sample_contrast_of_one_cluster_is_zero() -> None:
    generator = torch.Generator().manual_seed(0)
    loss = losses.sample_sample_contrast(torch.randn(3, 2), torch.zeros(3, dtype=torch.long), generator=generator)
    assert loss.item() == 0.0


def test_drawn_pairs_are_indifferent_to_ties_and_gaps() -> None:
    from capability_encoder.training.baselines.matrix_factorisation import pairwise_wins

    logits = tensor([[0.0, 2.0, 9.0, -9.0]])
    scores = tensor([[1.0, 0.0, 0.0, 1.0]])
    observed = torch.tensor([[True, True, False, False]])
    loss = pairwise_wins(logits, scores, observed, pairs=50, generator=torch.Generator().manual_seed(0))
    # every decisive pair is (first beats second): softplus(2)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(2.0)), abs=EXACT)
