"""MAL on four shapes: assignments by hand, permuted copies found again, other widths and depths, and acceptance."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
import torch
from torch import Tensor

from merge_backends.calibration import CalibrationData, TaskData
from merge_backends.errors import IncompatibleError, MergeError, RecipeError
from merge_backends.mal.blend import blend
from merge_backends.mal.layout import HEADS, INNER, STREAM, Space, layout_of
from merge_backends.mal.matching import Aligner, Alignment, Side, assign, proportional_depths
from merge_backends.mal.method import Network, side_of, validation_on
from merge_backends.mal.search import Reading, SearchSettings, choose, loss_barrier
from merge_backends.mal.surgery import keep_layers, narrowed, shuffled
from merge_backends.methods import entry, parse_parameters
from tests.support.merge_models import SHAPES, nearby, tiny_model, token_batches, weights_of

NARROW = {STREAM: 8, HEADS: 1, INNER: 10}


def network(shape: str, **sizes: Any) -> Network:
    model = tiny_model(shape, **sizes)
    return Network(weights_of(model), model.config.to_dict())


def narrow(shape: str, whole: Network) -> Network:
    """Half as wide a student of the network."""
    kept = 2 if shape in ("bert", "gpt2") else 1
    return narrowed(whole, {**NARROW, HEADS: kept}, seed=0)[0]


def logits(shape: str, weights: Any, **sizes: Any) -> Tensor:
    model = tiny_model(shape, **sizes)
    model.load_state_dict(dict(weights))
    return model(**token_batches()[0]).logits


def everything(base: Network, donor: Network, alpha: float, fold: bool = False) -> tuple[dict[str, Tensor], Alignment]:
    aligner = Aligner(side_of(base), side_of(donor), fold=fold)
    alignment = aligner.align("proportional")
    return blend(side_of(base), side_of(donor), alignment, aligner.pairs(alignment), alpha), alignment


def run(base: Network, donors: list[Network], validate: Any, **given: Any) -> tuple[dict[str, Tensor], list[Any]]:
    mal: Any = entry("mal")
    return mal.merge_with_steps(base, donors, parse_parameters(mal.parameters, given, owner="mal"), validate)


def distance_to(target: dict[str, Tensor]) -> Any:
    """A validation whose loss is the squared distance to given weights."""

    def validate(weights: Any) -> Reading:
        loss = sum(float((weights[name] - target[name]).square().sum()) for name in target)
        return Reading(loss, -loss)

    return validate


def test_assignment_is_the_best_of_all_partial_permutations() -> None:
    similarity = torch.randn(3, 5, generator=torch.Generator().manual_seed(1))
    match = assign(similarity)
    # Slow reference: every way of giving the base units distinct donor units, pairs below 0 counted as no pair.
    best = max(
        sum(max(float(similarity[row, column]), 0) for row, column in enumerate(columns))
        for columns in permutations(range(5), 3)
    )
    assert float(similarity[match.base, match.donor].sum()) == pytest.approx(best, abs=1e-6)
    assert bool((similarity[match.base, match.donor] > 0).all())


def test_assignment_by_hand_leaves_unlike_units_alone_and_folds_like_ones() -> None:
    similarity = torch.tensor([[3.0, 2.0, -1.0], [1.0, -2.0, -1.0]])
    match = assign(similarity, fold=True)
    # 0-0 alone is worth 3, but 0-1 with 1-0 is worth no more (2 + 1): either is best; donor 2 is like nobody.
    assert float(similarity[match.base, match.donor].sum()) == 3.0
    assert 2 not in match.donor.tolist() + match.folded_donor.tolist()


@pytest.mark.parametrize("shape", SHAPES)
class TestOnEveryShape:
    def test_shuffling_all_units_keeps_the_function(self, shape: str) -> None:
        base = network(shape)
        moved, _ = shuffled(base, seed=1)
        assert torch.allclose(logits(shape, base), logits(shape, moved), atol=1e-4)

    def test_a_shuffled_copy_is_laid_back_on_the_base_bit_by_bit(self, shape: str) -> None:
        base = network(shape)
        aligned, _ = everything(base, shuffled(base, seed=1)[0], alpha=1.0)
        assert set(aligned) == set(base)
        assert all(torch.equal(aligned[name], base[name]) for name in base)

    def test_a_shuffled_expert_is_laid_on_the_base_as_if_it_had_not_been_shuffled(self, shape: str) -> None:
        base = network(shape)
        expert = Network(nearby(dict(base), seed=5), base.config)
        aligned, _ = everything(base, shuffled(expert, seed=2)[0], alpha=1.0)
        assert all(torch.equal(aligned[name], expert[name]) for name in base)

    def test_share_zero_is_the_base_bit_by_bit(self, shape: str) -> None:
        base, donor = network(shape), network(shape, seed=7)
        blended, _ = everything(base, donor, alpha=0.0)
        assert all(torch.equal(blended[name], base[name]) for name in blended)

    def test_a_narrower_student_finds_its_place_and_other_units_stay(self, shape: str) -> None:
        base = network(shape)
        student = narrow(shape, base)
        moved, _ = shuffled(student, seed=3)
        changed = Network({name: value + 1.0 for name, value in moved.weights.items()}, moved.config)
        _, alignment = everything(base, moved, alpha=1.0)
        assert len(alignment.matches[Space(STREAM)].base) == 8
        side = side_of(base)
        pairs = Aligner(side, side_of(changed)).pairs(alignment)
        blended = blend(side, side_of(changed), alignment, pairs, 1.0)
        for name, value in blended.items():
            difference = value - base[name]
            # A matched entry moves by one, every other entry not at all.
            assert bool(((difference - 1).abs().lt(1e-5) | (difference == 0)).all()), name
            assert int((difference != 0).sum()) == changed[name].numel()

    def test_a_wider_donor_is_cut_to_the_bases_units(self, shape: str) -> None:
        whole = network(shape)
        student = narrow(shape, whole)
        aligned, _ = everything(student, shuffled(whole, seed=4)[0], alpha=1.0)
        assert all(torch.equal(aligned[name], student[name]) for name in student)

    def test_layers_of_a_deeper_donor_are_found_by_their_likeness(self, shape: str) -> None:
        deep = network(shape, layers=4)
        base = keep_layers(deep, (1, 3))
        aligner = Aligner(side_of(base), side_of(shuffled(deep, seed=5)[0]))
        alignment = aligner.align("similar")
        assert alignment.depths == (1, 3)
        aligned = blend(aligner.base, aligner.donor, alignment, aligner.pairs(alignment), 1.0)
        assert all(torch.equal(aligned[name], base[name]) for name in base)

    def test_alternating_never_lowers_the_objective(self, shape: str) -> None:
        _, alignment = everything(network(shape), network(shape, seed=11, layers=3, inner=30), alpha=0.5)
        rises = [after - before for before, after in zip(alignment.objective, alignment.objective[1:], strict=False)]
        assert all(rise >= -1e-5 for rise in rises)

    @pytest.mark.parametrize("sizes", [{"layers": 3}, {"hidden": 32, "heads": 8, "inner": 40, "kv_heads": 4}])
    def test_rejected_donors_of_other_depth_and_width_leave_the_function_intact(
        self, shape: str, sizes: dict[str, int]
    ) -> None:
        base, donor = network(shape), network(shape, seed=3, **sizes)
        merged, steps = run(base, [donor], distance_to(dict(base)), granularity="sublayer")
        assert len(steps) == 5
        assert not any(step.accepted for step in steps)
        assert all(merged[name] is base.weights[name] for name in base)
        assert torch.equal(logits(shape, merged), logits(shape, base))


def test_folded_units_are_averaged_where_made_and_summed_where_read() -> None:
    base = network("bert", layers=1)
    doubled = dict(base.weights)
    made, bias, read = (f"bert.encoder.layer.0.{part}" for part in
                        ("intermediate.dense.weight", "intermediate.dense.bias", "output.dense.weight"))  # fmt: skip
    # Inner unit 0 split in two halves: the same maker twice, its reader's weight shared out 1:3.
    doubled[made] = torch.cat([base[made], base[made][:1]])
    doubled[bias] = torch.cat([base[bias], base[bias][:1]])
    first = base[read][:, :1]
    doubled[read] = torch.cat([first * 0.25, base[read][:, 1:], first * 0.75], 1)
    donor = Network(doubled, {**base.config, "intermediate_size": 25})
    folded, alignment = everything(base, donor, alpha=1.0, fold=True)
    assert len(alignment.matches[Space(INNER, 0)].folded_base) == 1
    assert all(torch.allclose(folded[name], base[name], atol=1e-6) for name in base)
    dropped, _ = everything(base, donor, alpha=1.0)
    assert not torch.allclose(dropped[read], base[read], atol=1e-3)


def test_heads_move_as_whole_blocks() -> None:
    base = network("bert")
    moved, orders = shuffled(base, seed=8)
    name = "bert.encoder.layer.1.attention.self.query.bias"
    assert torch.equal(moved[name].reshape(4, 4), base[name].reshape(4, 4)[orders[Space(HEADS, 1)]])


def test_donors_are_taken_step_by_step_where_they_help() -> None:
    base = network("bert")
    expert = Network(nearby(dict(base), seed=5), base.config, "expert")
    stranger = Network(nearby(dict(base), seed=6, scale=1.0), base.config, "stranger")
    target = {name: value for name, value in expert.weights.items() if ".layer.0." in name or ".layer.1." in name}
    donors = [stranger, shuffled(expert, seed=2)[0]]
    merged, steps = run(base, donors, distance_to(target), alphas=(0.5, 1.0), granularity="layer")
    assert {(step.group, step.accepted) for step in steps if step.accepted} == {("layer 0", 1.0), ("layer 1", 1.0)}
    assert not any(step.accepted for step in steps if step.donor == "model 1" or step.donor == "stranger")
    assert all(torch.equal(merged[name], target[name]) for name in target)


def test_accepted_steps_never_lower_the_score_even_where_the_loss_falls() -> None:
    settings = SearchSettings(alphas=(0.1, 0.5, 1.0))
    readings = [Reading(0.9, 0.7), Reading(0.5, 0.6), Reading(0.8, 0.8)]
    assert choose(Reading(1.0, 0.7), settings.alphas, readings, settings)[0] == 2


def test_a_step_behind_a_barrier_is_rejected() -> None:
    # From 1 to .8 at share 1 the line is at .9 halfway; 1.5 there is a barrier of .6.
    assert loss_barrier(1.0, (0.5, 1.0), (1.5, 0.8), 1) == pytest.approx(0.6)
    readings = [Reading(1.5, 0.9), Reading(0.8, 0.9)]
    assert choose(Reading(1.0, 0.5), (0.5, 1.0), readings, SearchSettings(max_barrier=0.5))[0] is None
    assert choose(Reading(1.0, 0.5), (0.5, 1.0), readings, SearchSettings(max_barrier=0.7))[0] == 1


def test_min_gain_refuses_small_gains() -> None:
    reading = [Reading(0.95, 1.0)]
    assert choose(Reading(1.0, 0.5), (0.5,), reading, SearchSettings(min_gain=0.1))[0] is None


def test_depths_are_spread_over_the_donor() -> None:
    assert proportional_depths(6, 4) == (0, 1, 1, 2, 2, 3)
    assert proportional_depths(4, 6) == (0, 2, 3, 5)
    assert proportional_depths(1, 3) == (2,)


def test_heads_of_another_size_stay_the_bases() -> None:
    base, donor = network("bert"), network("bert", heads=2)
    blended, alignment = everything(base, donor, alpha=0.5)
    assert Space(HEADS, 0) not in alignment.matches
    assert not any("attention.self" in name for name in blended)
    assert any("intermediate" in name for name in blended)


def test_validation_reads_loss_and_accuracy_by_hand() -> None:
    model = tiny_model("bert")
    batches = token_batches()
    answers = [model(**batch).logits.argmax(-1) for batch in batches]
    wrong = [answers[0], (answers[1] + 1) % 3]
    reading = validation_on(CalibrationData(model, [TaskData("t", batches, wrong)]))(weights_of(model))
    loss = torch.cat([torch.nn.functional.cross_entropy(model(**batch).logits, labels, reduction="none")
                      for batch, labels in zip(batches, wrong, strict=True)])  # fmt: skip
    assert reading.score == 0.5
    assert reading.loss == pytest.approx(loss.mean().item(), abs=1e-5)


def test_merges_through_the_registry_with_labelled_texts() -> None:
    base = network("llama")
    donor = Network(nearby(dict(base), seed=4), base.config)
    model = tiny_model("llama")
    mal = entry("mal")
    data = CalibrationData(model, [TaskData("texts", token_batches())])
    merged = dict(mal.merge(base, [donor], parse_parameters(mal.parameters, {"rounds": 2}, owner="mal"), data=data))
    assert list(merged) == list(base)
    before, after = (validation_on(data)(weights) for weights in (base, merged))
    assert after.loss <= before.loss
    assert after.score >= before.score


def test_what_cannot_be_laid_on_the_base_is_refused() -> None:
    bert, llama = network("bert"), network("llama")
    with pytest.raises(IncompatibleError, match="cannot be laid"):
        run(bert, [llama], distance_to(dict(bert)))
    with pytest.raises(IncompatibleError, match="configuration"):
        run(bert, [bert.weights], distance_to(dict(bert)))  # type: ignore[list-item]
    with pytest.raises(IncompatibleError, match="model_type 't5'"):
        layout_of(bert, {"model_type": "t5"})
    with pytest.raises(IncompatibleError, match="axes of 'odd'"):
        layout_of({**bert, "odd": torch.ones(1)}, bert.config)
    words = "bert.embeddings.word_embeddings.weight"
    with pytest.raises(IncompatibleError, match="vocabulary"):
        run(bert, [Network({**bert, words: bert[words][:-1]}, bert.config)], distance_to(dict(bert)))
    with pytest.raises(IncompatibleError, match="do not name a layer"):
        Aligner(side_of(bert), side_of(bert)).align((0, 7))


def test_refused_settings_and_missing_data() -> None:
    bert = network("bert")
    for alphas in ((0.0, 0.5), (0.5, 0.1), (0.5, 1.5)):
        with pytest.raises(RecipeError, match="alphas"):
            run(bert, [bert], distance_to(dict(bert)), alphas=alphas)
    with pytest.raises(RecipeError, match="needs data"):
        run(bert, [bert], None)
    with pytest.raises(MergeError):
        run(bert, [bert], distance_to(dict(bert)), no_such_setting=1)


def test_dtype_of_the_base_is_kept() -> None:
    base = network("llama")
    low = Network({name: value.bfloat16() for name, value in base.weights.items()}, base.config)
    blended, _ = everything(low, network("llama", seed=2), alpha=0.5)
    assert {value.dtype for value in blended.values()} == {torch.bfloat16}


def test_a_side_knows_its_units() -> None:
    side: Side = side_of(network("qwen2"))
    assert dict(side.layout.units) == {HEADS: 2, STREAM: 16, INNER: 24}
