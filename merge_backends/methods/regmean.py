"""RegMean: every linear layer becomes the least-squares fit to what the experts' layers compute on their own inputs.

Closed form, forward passes only, no labels. RegMean++ takes each block's inputs from the already merged lower blocks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from merge_backends.calibration import (
    CalibrationData,
    TaskData,
    Weights,
    evaluating,
    forward,
    in_float32,
    mean_over_experts,
    own_names,
)
from merge_backends.errors import RecipeError
from merge_backends.methods import MergeMethod, Parameters, method

BLOCK = re.compile(r"^((?:[^.]+\.)*?\d+)\.")


class RegMeanParameters(Parameters):
    """Settings of RegMean and RegMean++."""

    off_diagonal: float = Field(0.9, ge=0, le=1, description="factor on the Gram matrices' off-diagonal entries")
    examples: int = Field(256, ge=1, description="texts per expert")
    ridge: float = Field(1e-6, ge=0, description="added to the diagonal, relative to its mean; decides unseen inputs")
    merged_inputs: bool = Field(False, description="RegMean++: a block's inputs come from the merged blocks below it")


class _BlockDone(Exception):
    """Ends a forward pass once the last wanted layer has seen its input."""


def linear_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Linear and Conv1D modules by the name of their weight; a layer tied to an embedding is not among them."""
    names = own_names(model)
    layers = {
        f"{name}.weight": module for name, module in model.named_modules() if isinstance(module, (nn.Linear, Conv1D))
    }
    return {name: module for name, module in layers.items() if name in names}


def gram_matrices(
    model: nn.Module, weights: Weights, task: TaskData, layers: Mapping[str, nn.Module], examples: int
) -> dict[str, Tensor]:
    """X^T X / rows of each layer's inputs, `(in, in)` float32, over the first `examples` texts; padding is left out.

    Layers that read one and the same tensor (query, key and value) share one matrix. A layer that is never called is
    absent.
    """
    sums: dict[str, Tensor] = {}
    rows: dict[str, int] = {}
    owner: dict[str, str] = {}
    seen: list[tuple[Tensor, str]] = []
    mask: Tensor | None = None
    pending: set[str] = set()

    def listen(name: str) -> Any:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            pending.discard(name)
            x = inputs[0]
            first = next((first for tensor, first in seen if tensor is x), name)
            owner.setdefault(name, first)
            if first == name:
                seen.append((x, name))
                flat = _text_rows(x.detach(), mask)
                sums[name] = sums.get(name, 0) + flat.T @ flat
                rows[name] = rows.get(name, 0) + flat.shape[0]
            if not pending:
                raise _BlockDone

        return layers[name].register_forward_pre_hook(hook)

    handles = [listen(name) for name in layers]
    try:
        with torch.no_grad(), evaluating(model):
            left = examples
            for batch in task.batches:
                if left <= 0:
                    break
                part = {name: value[:left] for name, value in batch.items()}
                left -= next(iter(part.values())).shape[0]
                mask, pending = part.get("attention_mask"), set(layers)
                seen.clear()
                try:
                    forward(model, weights, part)
                except _BlockDone:
                    continue
    finally:
        for handle in handles:
            handle.remove()
    return {name: sums[first] / max(rows[first], 1) for name, first in owner.items()}


def _text_rows(x: Tensor, mask: Tensor | None) -> Tensor:
    """Inputs of a layer as `(rows, in)` float32 without the rows of padding tokens."""
    flat = x.reshape(-1, x.shape[-1]).float()
    if mask is not None and flat.shape[0] == mask.numel():
        return flat[mask.reshape(-1).bool()]
    return flat


class LeastSquares:
    """Running sums of one linear layer: G = sum of the experts' Gram matrices, and G W."""

    def __init__(self) -> None:
        self.gram: Tensor | None = None
        self.product: Tensor | None = None

    def add(self, gram: Tensor, weight: Tensor, parameters: RegMeanParameters) -> None:
        """Adds one expert.

        Args:
            gram: `(in, in)`.  weight: `(in, out)`.
        Ref: Dataless Knowledge Fusion (RegMean), arXiv:2212.09849, eq. 1 and section 3.3 (off-diagonal factor).
        """
        gram = gram.double()
        diagonal = gram.diagonal().clone()
        gram = gram * parameters.off_diagonal
        # The floor keeps an input that no expert has seen at the plain average.
        floor = parameters.ridge * diagonal.mean().clamp_min(torch.finfo(torch.float32).tiny)
        gram.diagonal().copy_(diagonal + floor)
        product = gram @ weight.double()
        self.gram = gram if self.gram is None else self.gram.add_(gram)
        self.product = product if self.product is None else self.product.add_(product)

    def solve(self) -> Tensor:
        """Merged weight `(in, out)` in float64."""
        if self.gram is None or self.product is None:
            raise RecipeError("RegMean was asked for a layer that has seen no input.", "Give calibration texts.")
        try:
            return torch.linalg.solve(self.gram, self.product)
        except torch.linalg.LinAlgError as error:
            raise RecipeError(
                "The inputs of a layer do not determine its weights (singular Gram matrix).",
                "Raise ridge or examples, or lower off_diagonal.",
            ) from error


@method("regmean")
class RegMean(MergeMethod[RegMeanParameters]):
    """Linear layers by least squares on the experts' own inputs; everything else averaged."""

    parameters = RegMeanParameters
    needs_data = True

    def merge(
        self,
        base: Weights | None,
        experts: Sequence[Weights],
        parameters: RegMeanParameters,
        *,
        seed: int = 0,
        data: CalibrationData | None = None,
    ) -> Iterator[tuple[str, Tensor]]:
        """Yields each merged tensor; one expert is in memory at a time. `base` and `seed` play no part."""
        self.require(base, experts, data)
        assert data is not None
        names = list(experts[0] if base is None else base)
        data.check(names, len(experts))
        layers = linear_layers(data.model)
        if parameters.merged_inputs:
            solved = _solve_by_block(experts, data, layers, parameters)
        else:
            solved = _solve_layers(experts, None, data, layers, parameters)
        for name in names:
            if name in solved:
                yield name, solved.pop(name).to(experts[0][name].dtype)
            else:
                yield name, mean_over_experts(name, experts)


def _solve_layers(
    experts: Sequence[Weights],
    merged: Weights | None,
    data: CalibrationData,
    layers: Mapping[str, nn.Module],
    parameters: RegMeanParameters,
) -> dict[str, Tensor]:
    """Merged weights of `layers` in their own layout, float32; forwards run with `merged` laid over each expert."""
    sums: dict[str, LeastSquares] = {}
    for expert, task in zip(experts, data.tasks, strict=True):
        weights = in_float32(data.model, expert)
        weights_below = {**weights, **(merged or {})}
        grams = gram_matrices(data.model, weights_below, task, layers, parameters.examples)
        for name, gram in grams.items():
            weight = weights[name] if isinstance(layers[name], Conv1D) else weights[name].T
            sums.setdefault(name, LeastSquares()).add(gram, weight, parameters)
    solved = {}
    for name, least_squares in sums.items():
        weight = least_squares.solve().float()
        solved[name] = weight if isinstance(layers[name], Conv1D) else weight.T.contiguous()
    return solved


def _solve_by_block(
    experts: Sequence[Weights], data: CalibrationData, layers: Mapping[str, nn.Module], parameters: RegMeanParameters
) -> dict[str, Tensor]:
    """RegMean++: blocks from the input upwards, each fitted to inputs that passed through the merged blocks below it.

    Ref: RegMean++, arXiv:2508.03121. Within a block an expert's own sublayers produce the inputs; layers outside the
    numbered blocks (a pooler, an untied output layer) come last.
    """
    names = own_names(data.model)
    blocks: dict[str, list[str]] = {}
    for name, _ in data.model.named_parameters():
        found = BLOCK.match(name)
        blocks.setdefault(found[1] if found else "", []).append(name)
    outside = blocks.pop("", [])
    merged = {
        name: mean_over_experts(name, experts).float() for name in outside if name in names and name not in layers
    }
    solved: dict[str, Tensor] = {}
    for members in [*blocks.values(), outside]:
        block_layers = {name: layers[name] for name in members if name in layers}
        if block_layers:
            solved.update(_solve_layers(experts, merged, data, block_layers, parameters))
        for name in members:
            merged[name] = solved[name] if name in solved else mean_over_experts(name, experts).float()
    return solved
