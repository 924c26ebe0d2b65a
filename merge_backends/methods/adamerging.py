"""AdaMerging: task arithmetic whose weights, per task or per tensor, are learned from unlabelled inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from merge_backends.calibration import (
    CalibrationData,
    Weights,
    cross_entropy,
    entropy,
    evaluating,
    first_names,
    forward,
    in_float32,
    logits_and_labels,
)
from merge_backends.errors import RecipeError
from merge_backends.methods import MergeMethod, Parameters, method


class AdaMergingParameters(Parameters):
    """Settings of AdaMerging and AdaMerging++."""

    granularity: Literal["task", "layer"] = Field("layer", description="one weight per task, or per task and tensor")
    plus_plus: bool = Field(False, description="AdaMerging++: task vectors trimmed and freed of sign conflicts first")
    density: float = Field(0.2, gt=0, le=1, description="share of each task vector that ++ keeps")
    objective: Literal["entropy", "cross_entropy"] = Field("entropy", description="cross_entropy needs labels")
    init: float = Field(0.3, description="every weight before the first step")
    steps: int = Field(1000, ge=0, description="optimizer steps, one batch of every task in each")
    learning_rate: float = Field(1e-3, gt=0, description="of Adam, betas .9 and .999")
    clamp: bool = Field(False, description="keep every weight within 0 and 1")


@dataclass(frozen=True)
class LearnedWeights:
    """What AdaMerging learned.

    Args:
        names: the merged tensors, in the order of the columns.
        coefficients: `(tasks, tensors)` float32; equal within a row for task-wise merging.
        history: the objective before each step, summed over tasks.
    """

    names: tuple[str, ...]
    coefficients: Tensor
    history: tuple[float, ...]


def learn_coefficients(
    base: Weights, experts: Sequence[Weights], parameters: AdaMergingParameters, data: CalibrationData
) -> tuple[LearnedWeights, list[dict[str, Tensor]]]:
    """Runs the adaptation; returns the weights and the task vectors (float32, after ++) that they belong to.

    The gradient for a weight is the inner product of the merged tensor's gradient with the task vector (the chain
    rule of theta = theta_0 + sum(lambda tau)), so no graph through the merge is kept.

    Ref: AdaMerging, arXiv:2310.02575, eq. 5 (layer-wise) and section 3.2.2 (entropy).
    """
    model = data.model
    start = in_float32(model, base)
    trainable = {name for name, _ in model.named_parameters()}
    names = tuple(name for name in start if name in trainable)
    taus = [{name: expert[name].float() - start[name] for name in names} for expert in experts]
    if parameters.plus_plus:
        taus = disjoint(taus, parameters.density)
    columns = len(names) if parameters.granularity == "layer" else 1
    coefficients = torch.full((len(experts), columns), parameters.init, dtype=torch.float32)
    optimizer = torch.optim.Adam([coefficients], lr=parameters.learning_rate)
    history: list[float] = []
    with evaluating(model):
        for step in range(parameters.steps):
            merged = _combine(start, taus, coefficients)
            value, gradients = _objective(merged, names, parameters, data, step)
            history.append(value)
            per_tensor = torch.tensor([[float((g * tau[name]).sum()) for name, g in gradients.items()] for tau in taus])
            coefficients.grad = per_tensor if columns > 1 else per_tensor.sum(1, keepdim=True)
            optimizer.step()
            if parameters.clamp:
                coefficients.clamp_(0, 1)
    return LearnedWeights(names, coefficients.expand(-1, len(names)).clone(), tuple(history)), taus


def _combine(start: Weights, taus: Sequence[Weights], coefficients: Tensor) -> dict[str, Tensor]:
    """theta_0 + sum(lambda tau) in float32; tensors without a task vector stay the base's."""
    merged = dict(start)
    wide = coefficients.shape[1] > 1
    for column, name in enumerate(taus[0]):
        value = start[name].clone()
        for row, tau in enumerate(taus):
            value.add_(tau[name], alpha=float(coefficients[row, column if wide else 0]))
        merged[name] = value
    return merged


def _objective(
    merged: Mapping[str, Tensor],
    names: Sequence[str],
    parameters: AdaMergingParameters,
    data: CalibrationData,
    step: int,
) -> tuple[float, dict[str, Tensor]]:
    """The objective summed over one batch of each task, and its gradient in the merged tensors."""
    leaves = {name: merged[name].requires_grad_() for name in names}
    gradients = {name: torch.zeros_like(leaf, requires_grad=False) for name, leaf in leaves.items()}
    value = 0.0
    for task in data.tasks:
        index = step % len(task.batches)
        logits, labels = logits_and_labels(task, forward(data.model, merged, task.batches[index]), index)
        if parameters.objective == "entropy":
            loss = entropy(logits)
        elif labels is None:
            raise RecipeError(f"Task {task.name!r} has no labels.", "Set `objective: entropy`, or give labels.")
        else:
            loss = cross_entropy(logits, labels)
        value += float(loss.detach())
        for name, gradient in zip(
            names, torch.autograd.grad(loss, list(leaves.values()), allow_unused=True), strict=True
        ):
            if gradient is not None:
                gradients[name] += gradient
    return value, gradients


def disjoint(taus: Sequence[Mapping[str, Tensor]], density: float) -> list[dict[str, Tensor]]:
    """Task vectors trimmed to their largest `density` share, model-wide, and freed of the entries whose sign lost.

    Ref: TIES-Merging, arXiv:2306.01708, steps 1 and 2, as AdaMerging++ uses them.
    """
    trimmed = []
    for tau in taus:
        size = sum(value.numel() for value in tau.values())
        dropped = size - max(1, round(density * size))
        if dropped:
            flat = torch.cat([value.abs().flatten() for value in tau.values()])
            threshold = flat.kthvalue(dropped).values
            trimmed.append({name: value * (value.abs() > threshold) for name, value in tau.items()})
        else:
            trimmed.append(dict(tau))
    elected = {name: torch.stack([tau[name] for tau in trimmed]).sum(0).sign() for name in trimmed[0]}
    return [{name: value * (value.sign() == elected[name]) for name, value in tau.items()} for tau in trimmed]


@method("adamerging")
class AdaMerging(MergeMethod[AdaMergingParameters]):
    """Task arithmetic with weights that make the predictions on the tasks' own inputs certain."""

    parameters = AdaMergingParameters
    needs_base = True
    needs_data = True

    def merge(
        self,
        base: Weights | None,
        experts: Sequence[Weights],
        parameters: AdaMergingParameters,
        *,
        seed: int = 0,
        data: CalibrationData | None = None,
    ) -> Iterator[tuple[str, Tensor]]:
        """Yields the merged tensors after adapting; base and all task vectors are in memory; `seed` plays no part."""
        self.require(base, experts, data)
        assert base is not None
        assert data is not None
        names = list(base)
        data.check(names, len(experts))
        learned, taus = learn_coefficients(base, experts, parameters, data)
        column = {name: index for index, name in enumerate(learned.names)}
        first = first_names(data.model)
        for name in names:
            ancestor = base[name]
            own = first.get(name, name)
            if own not in column:
                yield name, ancestor.clone()
                continue
            value = ancestor.float()
            for row, tau in enumerate(taus):
                value = value + float(learned.coefficients[row, column[own]]) * tau[own]
            yield name, value.to(ancestor.dtype)
