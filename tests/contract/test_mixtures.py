"""What every mixture method keeps to, over BERT-, GPT-2-, Llama- and Qwen-shaped random models."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from merge_backends import moe
from merge_backends.errors import IncompatibleError, MergeError, RecipeError, UnknownNameError
from merge_backends.moe.gates import gating
from merge_backends.moe.mixture import mixture_of
from merge_backends.moe.wemoe import make_static, routers_of
from tests.support.tiny_models import SHAPES, dense, family, inputs, run, task_arithmetic, tiny_model

# float32 through two layers of width 32: sums in another order differ by a few units in the last place.
CLOSE = {"atol": 1e-5, "rtol": 1e-5}
METHODS = ("wemoe", "e_wemoe", "smile", "pareto")

shapes = pytest.mark.parametrize("shape", SHAPES)
methods = pytest.mark.parametrize("method", METHODS)


def built(method: str, shape: str, base: Any, experts: Any, **parameters: Any) -> torch.nn.Module:
    mixture = moe.build(method, tiny_model(shape), base, experts, parameters)
    stir(mixture)
    return mixture


def stir(mixture: torch.nn.Module) -> None:
    """New routers hardly look at their input; make them as lively as trained ones, each in its own way."""
    generator = torch.Generator().manual_seed(3)
    for router in routers_of(mixture):
        for weight in router.weights:
            weight.data.normal_(0, 0.3, generator=generator)


def in_layers(name: str) -> bool:
    """Weights and biases of linear maps inside layers, for all four shapes."""
    return any(part in name for part in ("dense.", "query.", "key.", "value.", "c_", "_proj"))


@shapes
def test_wemoe_with_routers_turned_off_is_task_arithmetic(shape: str) -> None:
    base, experts = family(shape)
    mixture = built("wemoe", shape, base, experts, init_lambda=0.3)
    make_static(mixture)
    expected = run(dense(shape, task_arithmetic(base, experts, 0.3)), inputs())
    torch.testing.assert_close(run(mixture, inputs()), expected, **CLOSE)


@shapes
@pytest.mark.parametrize("method", ["wemoe", "e_wemoe"])
def test_factored_and_materialised_weights_give_the_same(shape: str, method: str) -> None:
    base, experts = family(shape)
    factored = built(method, shape, base, experts, merge_above_tokens=1000)
    merged = built(method, shape, base, experts, merge_above_tokens=0)
    given = inputs(padding=2)
    torch.testing.assert_close(run(factored, given), run(merged, given), **CLOSE)


@shapes
def test_e_wemoe_that_prunes_nothing_is_wemoe_with_a_shared_router(shape: str) -> None:
    base, experts = family(shape)
    pruned = built("e_wemoe", shape, base, experts, tv_prune_ratio=0.0)
    shared = built("wemoe", shape, base, experts, shared_gate=True)
    assert torch.equal(run(pruned, inputs()), run(shared, inputs()))


@shapes
def test_smile_of_full_rank_with_one_expert_is_that_expert(shape: str) -> None:
    base, experts = family(shape, experts=1, only=in_layers)
    mixture = built("smile", shape, base, experts, k=128, gate_k=1)
    torch.testing.assert_close(run(mixture, inputs()), run(dense(shape, experts[0]), inputs()), **CLOSE)


@shapes
def test_smile_of_dense_experts_with_one_expert_is_that_expert(shape: str) -> None:
    base, experts = family(shape, experts=1, only=in_layers)
    mixture = built("smile", shape, base, experts, k=-1)
    torch.testing.assert_close(run(mixture, inputs()), run(dense(shape, experts[0]), inputs()), **CLOSE)


@shapes
@methods
def test_experts_equal_to_the_base_give_the_base(shape: str, method: str) -> None:
    base, _ = family(shape)
    mixture = built(method, shape, base, [base, base])
    torch.testing.assert_close(run(mixture, inputs()), run(dense(shape, base), inputs()), **CLOSE)


@shapes
@methods
def test_padding_changes_nothing_of_the_other_positions(shape: str, method: str) -> None:
    base, experts = family(shape, scale=0.2)
    mixture = built(method, shape, base, experts)
    short = {name: value[1:2, :5] for name, value in inputs(padding=2).items()}
    padded = run(mixture, inputs(padding=2))[1:2, :5]
    torch.testing.assert_close(padded, run(mixture, short), **CLOSE)


@shapes
@methods
def test_inputs_of_a_batch_do_not_touch_each_other(shape: str, method: str) -> None:
    base, experts = family(shape, scale=0.2)
    mixture = built(method, shape, base, experts)
    whole = run(mixture, inputs())
    alone = run(mixture, {name: value[2:] for name, value in inputs().items()})
    torch.testing.assert_close(whole[2:], alone, **CLOSE)


@pytest.mark.parametrize("shape", ["gpt2", "llama", "qwen2"])
@methods
def test_generating_with_a_cache_keeps_the_gate_of_the_prompt(shape: str, method: str) -> None:
    """Step by step with the cache gives what one pass gives whose gate looks at the prompt alone."""
    base, experts = family(shape, scale=0.2)
    mixture = built(method, shape, base, experts)
    prompt = inputs(batch=2)
    with torch.no_grad():
        tokens = mixture.generate(**prompt, max_new_tokens=6, do_sample=False)  # type: ignore[operator]
    counted = torch.zeros_like(tokens)
    counted[:, :7] = 1
    with gating(mask=counted):
        logits = run(mixture, {"input_ids": tokens})
    assert torch.equal(logits[:, 6:-1].argmax(-1), tokens[:, 7:])


@shapes
@methods
def test_the_same_seed_builds_the_same_mixture(shape: str, method: str) -> None:
    base, experts = family(shape)
    first, second = (built(method, shape, base, experts) for _ in range(2))
    assert torch.equal(run(first, inputs()), run(second, inputs()))


@shapes
@methods
def test_weights_that_are_given_are_not_changed(shape: str, method: str) -> None:
    base, experts = family(shape)
    copies = [{name: tensor.clone() for name, tensor in weights.items()} for weights in (base, *experts)]
    run(built(method, shape, base, experts), inputs())
    for weights, copy in zip((base, *experts), copies, strict=True):
        assert all(torch.equal(weights[name], tensor) for name, tensor in copy.items())


@methods
def test_half_precision_stays_near_float32(method: str) -> None:
    """bfloat16 has 8 bits of mantissa; through two layers the hidden state of size 1 is off by a few hundredths."""
    base, experts = family("llama")
    exact = run(moe.build(method, tiny_model("llama"), base, experts), inputs())
    half = moe.build(method, tiny_model("llama").to(torch.bfloat16), base, experts)
    assert run(half, inputs()).dtype == torch.bfloat16
    torch.testing.assert_close(run(half, inputs()).float(), exact, atol=0.05, rtol=0.05)


@methods
def test_a_missing_tensor_is_refused_by_name(method: str) -> None:
    base, experts = family("llama")
    del experts[1]["model.layers.1.mlp.up_proj.weight"]
    with pytest.raises(IncompatibleError, match=r"layers\.1\.mlp\.up_proj"):
        built(method, "llama", base, experts)


@methods
def test_a_tensor_without_a_place_is_refused_by_name(method: str) -> None:
    base, experts = family("bert")
    experts[0]["classifier.weight"] = torch.zeros(2, 32)
    with pytest.raises(IncompatibleError, match=r"classifier\.weight"):
        built(method, "bert", base, experts)


@methods
def test_another_shape_is_refused_by_name(method: str) -> None:
    base, experts = family("llama")
    experts[0]["model.layers.0.mlp.up_proj.weight"] = torch.zeros(3, 32)
    with pytest.raises(IncompatibleError, match=r"up_proj.*\(3, 32\)"):
        built(method, "llama", base, experts)


@methods
def test_a_mixture_of_nothing_is_refused(method: str) -> None:
    with pytest.raises(MergeError, match="without experts"):
        built(method, "llama", family("llama")[0], [])


@methods
def test_an_unknown_setting_names_the_near_ones(method: str) -> None:
    with pytest.raises(UnknownNameError, match="init_lambda"):
        moe.find(method).read_parameters({"init_lamda": 0.3})


def test_an_unknown_method_names_the_near_ones() -> None:
    with pytest.raises(UnknownNameError, match="smile"):
        moe.find("smiles")


def test_a_value_out_of_range_is_refused_with_its_key() -> None:
    with pytest.raises(RecipeError, match=r"e_wemoe\.tv_prune_ratio is 1\.5"):
        moe.find("e_wemoe").read_parameters({"tv_prune_ratio": 1.5})


@methods
def test_the_record_of_a_mixture_names_method_and_experts(method: str) -> None:
    base, experts = family("llama")
    mixture = mixture_of(built(method, "llama", base, experts))
    assert (mixture.method, mixture.experts) == (method, 3)


@methods
def test_a_plain_model_is_no_mixture(method: str) -> None:
    with pytest.raises(MergeError, match="not a mixture"):
        mixture_of(tiny_model("llama"))
