"""The zoo's merged models: a task-arithmetic merge, a SMILE and a WEMoE mixture of its experts.

The merge and SMILE follow from the stored weights alone; WEMoE's routers are learnt from labelled questions and stored.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from merge_backends import moe
from merge_backends.methods import registry
from merge_backends.moe.adapt import IGNORED, AdaptParameters, AdaptReport, Batch, adapt
from merge_backends.moe.store import load_routers, router_tensors
from merge_backends.zoo.skills import SKILLS, draw_questions
from merge_backends.zoo.tokenizer import mark_ids

logger = logging.getLogger(__name__)

MERGED = ("merge", "smile", "wemoe")
#: Rank of the stored experts, so that SMILE's decomposition keeps all of each; the gate reads all of it too.
SMILE: Mapping[str, Any] = {"k": 24, "gate_k": 24, "upscale_attn": False}
WEMOE: Mapping[str, Any] = {"router_hidden_layers": 1, "init_lambda": 0.3}
ROUTER_FILE = "wemoe.safetensors"
TRAIN_SEED, VALIDATION_SEED = 2_000_001, 2_000_002
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


def train_routers(mixture: nn.Module, tokenizer: Tokenizer, *, steps: int, rate: float, seed: int) -> AdaptReport:
    """Teach WEMoE's routers which expert a question needs, from labelled questions of all skills."""
    train = {skill: question_batches(tokenizer, skill, seed=TRAIN_SEED, batches=40, size=24) for skill in SKILLS}
    held_out = {skill: question_batches(tokenizer, skill, seed=VALIDATION_SEED, batches=2, size=60) for skill in SKILLS}
    parameters = AdaptParameters(steps=steps, learning_rate=rate, evaluate_every=50, patience=4)
    return adapt(mixture, train, validation=held_out, parameters=parameters, seed=seed)


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
