"""The zoo's merged models: a task-arithmetic merge, a SMILE and a WEMoE mixture of its experts.

The merge and SMILE follow from the stored weights alone; WEMoE's routers are learnt from labelled questions and stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from merge_backends import moe
from merge_backends.methods import registry
from merge_backends.moe.adapt import IGNORED, Batch
from merge_backends.moe.gates import masked_mean
from merge_backends.moe.store import load_routers, router_tensors
from merge_backends.moe.structure import layer_stack
from merge_backends.moe.wemoe import routers_of
from merge_backends.zoo.skills import draw_questions
from merge_backends.zoo.tokenizer import mark_ids

MERGED = ("merge", "smile", "wemoe")
#: Rank of the stored experts, so that SMILE's decomposition keeps all of each; the gate reads all of it too.
SMILE: Mapping[str, Any] = {"k": 24, "gate_k": 24}
WEMOE: Mapping[str, Any] = {"router_hidden_layers": 1, "init_lambda": 0.3, "upscale_attn": True}
ROUTER_FILE = "wemoe.safetensors"
RIDGE = 1e-3  # times the number of questions
Weights = Mapping[str, Tensor]


def merged_weights(base: Weights, experts: Sequence[Weights], scale: float) -> dict[str, Tensor]:
    """Task arithmetic of all experts."""
    method = registry.entry("task_arithmetic")
    parameters = method.parameters(scale=scale)
    return dict(method.merge(base, experts, parameters, seed=0))


def build_smile(model: nn.Module, base: Weights, experts: Sequence[Weights]) -> nn.Module:
    """The SMILE mixture, in place."""
    return moe.build("smile", model, base, experts, SMILE).eval()


def build_wemoe(model: nn.Module, base: Weights, experts: Sequence[Weights], routers: Path | None) -> nn.Module:
    """The WEMoE mixture, in place, with its stored routers (untrained ones where `routers` is None)."""
    mixture = moe.build("wemoe", model, base, experts, WEMOE).eval()
    if routers is not None:
        load_routers(mixture, load_file(routers))
    return mixture


def fit_routers(mixture: nn.Module, experts: Mapping[str, nn.Module], tokenizer: Tokenizer, *, seed: int) -> None:
    """Teach WEMoE's routers which expert a question needs: ridge regression onto the expert of its skill, per layer.

    A layer's router sees what it would see if those before it were right: its inputs are those of the expert itself.

    Args:
        mixture: as `build_wemoe` makes it, with one linear map per router.
        experts: plain models by skill, in the mixture's order.
    """
    seen: list[list[Tensor]] = [[] for _ in routers_of(mixture)]
    wanted = []
    for index, (skill, expert) in enumerate(experts.items()):
        for batch in question_batches(tokenizer, skill, seed=seed, batches=4, size=60):
            for layer, means in enumerate(layer_inputs(expert, batch)):
                seen[layer].append(means)
            wanted.append(functional.one_hot(torch.full((len(batch.inputs["input_ids"]),), index), len(experts)))
    target = torch.cat(wanted).double()
    for router, means in zip(routers_of(mixture), seen, strict=True):
        inputs = torch.cat(means).double()
        design = torch.cat([inputs, inputs.new_ones(len(inputs), 1)], dim=1)
        penalty = RIDGE * len(inputs) * torch.eye(design.shape[1], dtype=design.dtype)
        solved = torch.linalg.solve(design.T @ design + penalty, design.T @ target)
        router.load_state_dict({"weights.0": solved[:-1].T.float().contiguous(), "biases.0": solved[-1].float()})


def layer_inputs(model: nn.Module, batch: Batch) -> list[Tensor]:
    """What the first linear map of every layer gets, `(batch, features)`: the mean over the question's tokens."""
    assert batch.gate_mask is not None
    found: list[Tensor] = []
    hooks = [
        layer.input_layernorm.register_forward_hook(
            lambda module, args, output: found.append(masked_mean(output, batch.gate_mask))
        )
        for layer in layer_stack(model)[1]
    ]
    try:
        with torch.inference_mode():
            model(**batch.inputs, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return [each.clone() for each in found]


def save_routers(mixture: nn.Module, path: Path) -> None:
    """Write the routers' weights."""
    save_file({name: value.detach().contiguous() for name, value in router_tensors(mixture).items()}, path)


def question_batches(tokenizer: Tokenizer, skill: str, *, seed: int, batches: int, size: int) -> list[Batch]:
    """Labelled batches of one skill: the gate looks at the question, the answer's tokens are asked."""
    user, end, assistant, pad = mark_ids(tokenizer)
    made = []
    questions = list(draw_questions(skill, seed=seed, count=batches * size))
    for at in range(0, len(questions), size):
        rows = []
        for question in questions[at : at + size]:
            asked = [user, *tokenizer.encode(question.prompt).ids, end, assistant]
            rows.append((asked, [*tokenizer.encode(question.answer).ids, end]))
        length = max(len(asked) + len(answer) for asked, answer in rows)
        ids = torch.full((len(rows), length), pad)
        labels, gate_mask = torch.full_like(ids, IGNORED), torch.zeros_like(ids)
        for index, (asked, answer) in enumerate(rows):
            stop = len(asked) + len(answer)
            ids[index, :stop] = torch.tensor([*asked, *answer])
            labels[index, len(asked) : stop] = torch.tensor(answer)
            gate_mask[index, : len(asked)] = 1
        # Padding stands at the end, where a causal model never looks back from.
        made.append(Batch({"input_ids": ids}, labels, gate_mask))
    return made
