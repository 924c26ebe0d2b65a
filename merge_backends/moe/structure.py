"""Finds the layers of a transformers model, and the linear maps of their attention and MLP, by shape and place.

Nothing here names a model class: BERT-, GPT-2-, Llama- and Qwen-shaped models are one stack of equal layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from merge_backends.errors import IncompatibleError

Part = Literal["attention", "mlp"]


@dataclass(frozen=True, slots=True)
class Site:
    """One linear map inside a layer. `name` is its path in the model; `layer` counts from 0."""

    name: str
    layer: int
    part: Part


def layer_stack(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """Path and modules of the model's stack of layers.

    Raises:
        IncompatibleError: there is no stack of `config.num_hidden_layers` layers with linear maps in them.
    """
    count = getattr(getattr(model, "config", None), "num_hidden_layers", None)
    found: list[tuple[int, str, nn.ModuleList]] = []
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) > 0 and (count is None or len(module) == count):
            linears = sum(is_linear(inner) for inner in module.modules())
            if linears >= len(module):
                found.append((linears, name, module))
    if not found:
        raise IncompatibleError(
            f"no stack of {count} layers with linear maps was found in {type(model).__name__}",
            fix="mixtures need a BERT-, GPT-2-, Llama- or Qwen-shaped transformer",
        )
    _, name, stack = max(found, key=lambda entry: entry[0])
    return name, stack


def linear_sites(model: nn.Module, *, parts: tuple[Part, ...] = ("attention", "mlp")) -> list[Site]:
    """Every linear map of the layers, in the order of the model; those under an attention module are attention's."""
    prefix, stack = layer_stack(model)
    sites = []
    for index, layer in enumerate(stack):
        for name, module in layer.named_modules():
            if is_linear(module):
                part: Part = "attention" if _is_in_attention(name) else "mlp"
                if part in parts:
                    sites.append(Site(f"{prefix}.{index}.{name}", index, part))
    missing = set(parts) - {site.part for site in sites}
    if missing:
        raise IncompatibleError(
            f"{type(model).__name__} has no {' or '.join(sorted(missing))} linear maps in its layers"
        )
    return sites


def is_linear(module: nn.Module) -> bool:
    """Whether it is a plain linear map: `nn.Linear`, or GPT-2's `Conv1D` that keeps its weight transposed."""
    return isinstance(module, nn.Linear | Conv1D)


def is_transposed(module: nn.Module) -> bool:
    """Whether the weight is kept as `(in, out)`."""
    return isinstance(module, Conv1D)


def oriented(module: nn.Module, weight: Tensor) -> Tensor:
    """A weight of this module as `(..., out, in)`; a view."""
    return weight.transpose(-1, -2) if is_transposed(module) else weight


def weight_of(module: nn.Module) -> Tensor:
    """The module's own weight as `(out, in)`; a view."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    return oriented(module, weight)


def replace_module(model: nn.Module, name: str, new: nn.Module) -> None:
    """Put another module at a path."""
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, new)


def backbone(model: nn.Module) -> nn.Module:
    """The transformer inside a model with a head; the model itself where it has none. Every forward goes through it."""
    inner = getattr(model, "base_model", model)
    return inner if isinstance(inner, nn.Module) else model


def _is_in_attention(name: str) -> bool:
    return any("attn" in piece or "attention" in piece for piece in name.lower().split("."))
