"""One layer of each mixture against the slow computation that its paper writes down."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from merge_backends import moe
from merge_backends.moe.task_vectors import prune
from merge_backends.moe.wemoe import routers_of
from tests.support.tiny_models import dense, family, inputs, run, tiny_model

# float32 sums of 48 products of size 1 to 10, in another order.
CLOSE = {"atol": 5e-5, "rtol": 1e-4}


def watched(model: nn.Module, name: str, given: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """What went into a module and what came out of it."""
    seen: list[Any] = []
    hook = model.get_submodule(name).register_forward_hook(lambda _, args, output: seen.append((args[0], output)))
    run(model, given)
    hook.remove()
    return seen[0]


def smile_by_the_paper(
    hidden: Tensor,
    base: Tensor,
    bias: Tensor,
    deltas: list[Tensor],
    shifts: list[Tensor],
    k: int,
    gate_k: int,
    top_k: int,
) -> Tensor:
    """y = W0 x + b0 + sum_i p_i (U_k S_k V_k^T x + b_i), p the top k of softmax |V_gate^T x|, summing to 1."""
    rows = []
    for token in hidden.flatten(0, 1):
        parts = [torch.linalg.svd(delta, full_matrices=False) for delta in deltas]
        odds = torch.stack([(right[:gate_k] @ token).norm() for _, _, right in parts]).softmax(0)
        best = odds.topk(top_k)
        output = base @ token + bias
        for share, expert in zip(best.values / best.values.sum(), best.indices.tolist(), strict=True):
            left, values, right = parts[expert]
            change = deltas[expert] if k < 0 else (left[:, :k] * values[:k]) @ right[:k]
            output = output + share * (change @ token + shifts[expert])
        rows.append(output)
    return torch.stack(rows).view(*hidden.shape[:2], -1)


@pytest.mark.parametrize("k", [3, 8, -1])
@pytest.mark.parametrize("top_k", [1, 2])
@pytest.mark.parametrize("name", ["encoder.layer.0.intermediate.dense", "encoder.layer.1.output.dense"])
def test_smile_computes_what_its_paper_says(k: int, top_k: int, name: str) -> None:
    base, experts = family("bert", scale=0.2)
    mixture = moe.build("smile", tiny_model("bert"), base, experts, {"k": k, "gate_k": 4, "top_k": top_k})
    hidden, found = watched(mixture, name, inputs(batch=2, length=5))
    deltas = [expert[f"{name}.weight"] - base[f"{name}.weight"] for expert in experts]
    shifts = [expert[f"{name}.bias"] - base[f"{name}.bias"] for expert in experts]
    expected = smile_by_the_paper(hidden, base[f"{name}.weight"], base[f"{name}.bias"], deltas, shifts, k, 4, top_k)
    torch.testing.assert_close(found, expected, **CLOSE)


@pytest.mark.parametrize("shape", ["llama", "gpt2"])
@pytest.mark.parametrize("ratio", [0.0, 0.9])
@pytest.mark.parametrize("merge_above", [0, 1000])
def test_wemoe_computes_what_its_paper_says(shape: str, ratio: float, merge_above: int) -> None:
    """Per input: w = mean over tokens of W2 ReLU(W1 h + b1) + b2; then the whole MLP with base + sum w_k tau_k."""
    base, experts = family(shape, scale=0.2)
    settings = {"tv_prune_ratio": ratio, "merge_above_tokens": merge_above}
    mixture = moe.build("e_wemoe", tiny_model(shape), base, experts, settings)
    (router,) = routers_of(mixture)
    for weight in router.weights:
        weight.data.normal_(0, 0.3, generator=torch.Generator().manual_seed(3))
    name = "model.layers.1.mlp" if shape == "llama" else "transformer.h.1.mlp"
    hidden, found = watched(mixture, name, inputs(batch=2, length=5))
    plain = dense(shape, base).get_submodule(name)
    for row, output in zip(hidden, found, strict=True):
        routed = [
            router.weights[1] @ torch.relu(router.weights[0] @ h + router.biases[0]) + router.biases[1] for h in row
        ]
        shares = torch.stack(routed).mean(0)
        merged = {
            leaf: tensor
            + sum(
                share * prune(expert[f"{name}.{leaf}"] - tensor, ratio)
                for share, expert in zip(shares, experts, strict=True)
            )
            for leaf, tensor in plain.named_parameters()
        }
        with torch.no_grad():
            expected = torch.func.functional_call(plain, merged, (row.unsqueeze(0),))
        torch.testing.assert_close(output.unsqueeze(0), expected, **CLOSE)
