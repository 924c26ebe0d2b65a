"""Fisher merging: each entry is an average weighted by how much each expert's predictions depend on it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from merge_backends.calibration import (
    IGNORED,
    CalibrationData,
    TaskData,
    Weights,
    evaluating,
    first_names,
    forward,
    in_float32,
    logits_and_labels,
    single_examples,
)
from merge_backends.errors import RecipeError
from merge_backends.methods import MergeMethod, Parameters, method


class FisherParameters(Parameters):
    """Settings of Fisher merging."""

    examples: int = Field(256, ge=1, description="texts per expert; one backward pass each")
    targets: Literal["labels", "sampled"] = Field(
        "sampled", description="gradients of the data's labels (empirical Fisher) or of labels drawn from the expert"
    )
    normalize: bool = Field(True, description="divide each expert's Fisher by its global L2 norm")
    floor: float = Field(1e-6, gt=0, description="added to every Fisher entry; decides entries no text depends on")
    weights: tuple[float, ...] | None = Field(None, description="importance of each expert; equal when absent")


def fisher_diagonal(
    model: nn.Module, weights: Weights, task: TaskData, parameters: FisherParameters, seed: int
) -> dict[str, Tensor]:
    """Mean of squared per-text gradients of log p(label), float32, one tensor per floating parameter.

    A language model's label is its whole text: the log-likelihoods of its tokens are summed, then squared gradients
    are taken.

    Raises:
        RecipeError: labels are wanted and the task has none.
    Ref: Merging Models with Fisher-Weighted Averaging, arXiv:2111.09832, section 3.2; "sampled" is its Monte Carlo
    form.
    """
    generator = torch.Generator().manual_seed(_seed_of(seed, task.name))
    own = in_float32(model, weights)
    parameter_names = {name for name, _ in model.named_parameters()}
    leaves = {name: own[name].detach().clone().requires_grad_() for name in own if name in parameter_names}
    fisher = {name: torch.zeros_like(leaf, requires_grad=False) for name, leaf in leaves.items()}
    counted = 0
    with evaluating(model):
        for example in _examples(task):
            if counted == parameters.examples:
                break
            logits, labels = logits_and_labels(example, forward(model, {**own, **leaves}, example.batches[0]), 0)
            if parameters.targets == "sampled":
                labels = torch.multinomial(logits.detach().float().softmax(-1), 1, generator=generator)[:, 0]
            elif labels is None:
                raise RecipeError(f"Task {task.name!r} has no labels.", "Set `targets: sampled`, or give labels.")
            loss = torch.nn.functional.cross_entropy(logits.float(), labels, ignore_index=IGNORED, reduction="sum")
            gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
            for name, gradient in zip(leaves, gradients, strict=True):
                if gradient is not None:
                    fisher[name].addcmul_(gradient, gradient)
            counted += 1
    return {name: total / counted for name, total in fisher.items()}


def _examples(task: TaskData) -> Iterator[TaskData]:
    """The task's texts one by one, each as a task of its own."""
    for index, batch in enumerate(task.batches):
        for row, single in enumerate(single_examples(batch)):
            labels = None if task.labels is None else [task.labels[index][row : row + 1]]
            yield TaskData(task.name, [single], labels, task.head)


def _seed_of(seed: int, name: str) -> int:
    """A seed that depends on the task and not on its place in the list."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8], "big") % (2**63)


@method("fisher")
class Fisher(MergeMethod[FisherParameters]):
    """Averages weighted by the experts' diagonal Fisher information."""

    parameters = FisherParameters
    needs_data = True

    def merge(
        self,
        base: Weights | None,
        experts: Sequence[Weights],
        parameters: FisherParameters,
        *,
        seed: int = 0,
        data: CalibrationData | None = None,
    ) -> Iterator[tuple[str, Tensor]]:
        """Yields sum(c F theta) / sum(c F); experts are read one after another, two running sums stay in memory."""
        self.require(base, experts, data)
        assert data is not None
        names = list(experts[0] if base is None else base)
        data.check(names, len(experts))
        shares = parameters.weights or (1.0,) * len(experts)
        if len(shares) != len(experts):
            raise RecipeError(
                f"Fisher has {len(shares)} weights for {len(experts)} models.", "Give one weight per model."
            )
        floats = [name for name in names if experts[0][name].is_floating_point()]
        first = first_names(data.model)
        top: dict[str, Tensor] = {}
        bottom: dict[str, Tensor] = {}
        for expert, task, share in zip(experts, data.tasks, shares, strict=True):
            fisher = fisher_diagonal(data.model, expert, task, parameters, seed)
            norm = torch.sqrt(torch.stack([(value.double() ** 2).sum() for value in fisher.values()]).sum())
            # Only the experts' ratio matters; the floor is added before the division, as in fusion_bench.
            scale = share / float(norm + parameters.floor) if parameters.normalize else share
            for name in floats:
                own = fisher.get(first.get(name, name))
                importance = torch.zeros(expert[name].shape).double() if own is None else own.double()
                importance = (importance + parameters.floor) * scale
                top[name] = top.get(name, 0) + importance * expert[name].double()
                bottom[name] = bottom.get(name, 0) + importance
        for name in names:
            like = experts[0][name]
            yield name, ((top.pop(name) / bottom.pop(name)).to(like.dtype) if name in top else like.clone())
