"""Gates through a request's life: prompt, generated tokens, batches that change, threads, failures."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from merge_backends import moe
from merge_backends.errors import IncompatibleError, MergeError
from merge_backends.moe.gates import Gates, gating, masked_mean
from merge_backends.moe.mixed import MixedLinear, computed_factored
from merge_backends.moe.structure import layer_stack, linear_sites
from merge_backends.moe.wemoe import make_static, routers_of
from tests.support.tiny_models import SHAPES, family, inputs, run, tiny_model

CLOSE = {"atol": 1e-5, "rtol": 1e-5}
decoders = pytest.mark.parametrize("shape", ["gpt2", "llama", "qwen2"])


def lively(shape: str = "llama", method: str = "wemoe", **settings: object) -> nn.Module:
    base, experts = family(shape, scale=0.2)
    mixture = moe.build(method, tiny_model(shape), base, experts, settings)
    for router in routers_of(mixture):
        for weight in router.weights:
            weight.data.normal_(0, 0.3, generator=torch.Generator().manual_seed(3))
    return mixture


def generated(mixture: nn.Module, given: dict[str, Tensor], count: int = 6) -> Tensor:
    tokens: Tensor = mixture.generate(**given, max_new_tokens=count, do_sample=False)
    return tokens[:, -count:]


@decoders
@pytest.mark.parametrize("method", ["wemoe", "e_wemoe", "smile"])
def test_prompts_padded_on_the_left_generate_what_they_do_alone(shape: str, method: str) -> None:
    mixture, alone = lively(shape, method), inputs(batch=1, length=5)
    tokens = torch.cat([torch.zeros(1, 3, dtype=torch.long), alone["input_ids"]], dim=1)
    longer = inputs(batch=1, length=8, seed=6)["input_ids"]
    mask = torch.cat([(tokens != 0).long(), torch.ones(1, 8, dtype=torch.long)])
    both = {"input_ids": torch.cat([tokens, longer]), "attention_mask": mask}
    assert torch.equal(generated(mixture, both)[:1], generated(mixture, alone))


@decoders
def test_a_long_answer_to_one_prompt_merges_on_the_way_and_stays_the_same(shape: str) -> None:
    """Weights are merged once their prompt and answer have been long enough, and kept; the text does not change."""
    switching, factored = lively(shape, merge_above_tokens=10), lively(shape, merge_above_tokens=10_000)
    given = inputs(batch=1, length=6)
    with gating() as gates:
        text = generated(switching, given, 12)
    assert len(gates.merged) == len(linear_sites(tiny_model(shape), parts=("mlp",)))
    assert torch.equal(text, generated(factored, given, 12))


def test_a_prompt_alone_keeps_no_merged_weights() -> None:
    mixture = lively(merge_above_tokens=0)
    with gating() as gates:
        run(mixture, inputs(batch=1))
    assert not gates.merged


def test_a_cache_of_unknown_origin_goes_on_with_the_static_merge() -> None:
    mixture, static = lively(), lively()
    make_static(static)
    prompt, more = inputs(batch=2)["input_ids"], inputs(batch=2, length=1, seed=9)["input_ids"]
    steps = []
    for model in (mixture, static):
        with torch.no_grad():
            cache = static(input_ids=prompt, use_cache=True).past_key_values
            del cache._mixture_gates
            steps.append(model(input_ids=more, past_key_values=cache).logits)
    torch.testing.assert_close(*steps, **CLOSE)


def test_sequences_that_leave_a_batch_take_their_gates_along() -> None:
    """What a server with a batch of its own does: fill, drop the first row, go on with the others."""
    mixture, given = lively(), inputs(batch=3)
    with gating() as gates:
        run(mixture, given)
    rest = {name: value[1:] for name, value in inputs(batch=3, seed=8).items()}
    with gating(gates.select([1, 2])):
        left = run(mixture, rest)
    with gating(gates):
        whole = run(mixture, inputs(batch=3, seed=8))
    torch.testing.assert_close(left, whole[1:], **CLOSE)


def test_gates_of_other_sequences_are_refused() -> None:
    mixture = lively()
    with gating() as gates:
        run(mixture, inputs(batch=3))
    with pytest.raises(IncompatibleError, match="3 sequences were kept, and 2 go on"), gating(gates):
        run(mixture, inputs(batch=2))


def test_a_mask_of_another_shape_is_refused() -> None:
    with pytest.raises(IncompatibleError, match=r"\(3, 4\)"), gating(mask=torch.ones(3, 4)):
        run(lively(), inputs(batch=3, length=7))


def test_a_failed_pass_does_not_touch_the_next_one() -> None:
    mixture, given = lively(), inputs()
    before = run(mixture, given)
    with pytest.raises(IndexError):
        run(mixture, {"input_ids": torch.tensor([[10_000]])})
    assert torch.equal(run(mixture, given), before)


def test_threads_do_not_see_each_others_gates() -> None:
    mixture = lively()
    texts = [inputs(seed=seed, length=5 + seed) for seed in range(8)]
    alone = [run(mixture, text) for text in texts]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda text: run(mixture, text), texts * 3))
    assert all(torch.equal(*pair) for pair in zip(together, alone * 3, strict=True))


def test_a_layer_by_itself_is_refused() -> None:
    mixture = lively("bert")
    layer = next(module for module in mixture.modules() if isinstance(module, MixedLinear))
    with pytest.raises(MergeError, match="called by itself"):
        layer(torch.zeros(1, 2, 32))


def test_one_merge_per_batch_uses_the_mean_of_its_gates() -> None:
    mixture, given = lively(), inputs()
    with gating() as single:
        run(mixture, given)
    with gating(batch_reduce=True) as batch:
        run(mixture, given)
    torch.testing.assert_close(batch.coefficients[0], single.coefficients[0].mean(0, keepdim=True), **CLOSE)


def test_positions_that_are_masked_do_not_count_in_the_mean() -> None:
    values = torch.tensor([[[2.0], [4.0], [90.0]], [[1.0], [3.0], [5.0]]])
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    assert masked_mean(values, mask).tolist() == [[3.0], [3.0]]
    assert masked_mean(values, None).tolist() == [[32.0], [3.0]]


@pytest.mark.parametrize(
    ("shape", "attention", "mlp"), [("bert", 4, 2), ("gpt2", 2, 2), ("llama", 4, 3), ("qwen2", 4, 3)]
)
def test_the_linear_maps_of_each_shape_are_found(shape: str, attention: int, mlp: int) -> None:
    sites = linear_sites(tiny_model(shape, layers=3))
    for layer in range(3):
        here = [site.part for site in sites if site.layer == layer]
        assert (here.count("attention"), here.count("mlp")) == (attention, mlp)


@pytest.mark.parametrize("shape", SHAPES)
def test_heads_and_embeddings_are_no_part_of_the_layers(shape: str) -> None:
    names = [site.name for site in linear_sites(tiny_model(shape))]
    assert not any("lm_head" in name or "pooler" in name or "embed" in name for name in names)


def test_a_model_without_layers_is_refused() -> None:
    with pytest.raises(IncompatibleError, match="no stack"):
        layer_stack(nn.Sequential(nn.Linear(3, 3)))


def test_new_gates_know_nothing() -> None:
    gates = Gates()
    assert (gates.coefficients, gates.out_of_domain, gates.passes) == ({}, None, 0)


@pytest.mark.parametrize("method", ["wemoe", "e_wemoe"])
def test_factors_for_training_compute_the_same_and_leave_the_mixture_as_it_was(method: str) -> None:
    mixture, given = lively("bert", method, merge_above_tokens=0), inputs(batch=3, length=5)
    before, kept = run(mixture, given), dict(mixture.named_buffers())
    with computed_factored(mixture, torch.float32):
        torch.testing.assert_close(run(mixture, given), before, **CLOSE)
        layer = next(module for module in mixture.modules() if isinstance(module, MixedLinear))
        assert layer.deltas.dense().layout == torch.strided
    after = dict(mixture.named_buffers())
    assert after.keys() == kept.keys()
    assert all(after[name] is kept[name] for name in kept)
    assert layer.merge_above == 0
