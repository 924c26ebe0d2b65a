"""What a built mixture says of itself: the record at `model.mixture`, and its size."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import nn

from merge_backends.errors import MergeError
from merge_backends.moe.parameters import MixtureParameters

if TYPE_CHECKING:
    from merge_backends.moe.structure import Site


@dataclass
class Mixture:
    """The record of a built mixture, kept at `model.mixture`.

    Attributes:
        method: its name in the registry.
        parameters: the settings it was built with.
        experts: how many.
        sites: the linear maps that were replaced.
        hooks: handles of what watches the layers (the router check).
        state: what the method keeps beside the model's modules (Pareto's task vectors, the router check).
    """

    method: str
    parameters: MixtureParameters
    experts: int
    sites: list[Site]
    state: dict[str, Any] = field(default_factory=dict)
    hooks: list[Any] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Size:
    """What a model holds in memory: numbers it computes with, and bytes with the indices of sparse ones."""

    parameters: int
    nbytes: int


def mixture_of(model: nn.Module) -> Mixture:
    """The record of a mixture.

    Raises:
        MergeError: the model is none.
    """
    mixture = getattr(model, "mixture", None)
    if not isinstance(mixture, Mixture):
        raise MergeError(f"{type(model).__name__} is not a mixture", fix="Build one with `moe.build`, or load one.")
    return mixture


def size_of(model: nn.Module) -> Size:
    """Parameters and bytes of a model or mixture; tensors that are shared count once."""
    modules: list[nn.Module] = [model]
    if isinstance(getattr(model, "mixture", None), Mixture):
        modules += [each for each in mixture_of(model).state.values() if isinstance(each, nn.Module)]
    seen: dict[int, tuple[int, int]] = {}
    for module in modules:
        for tensor in (*module.parameters(), *module.buffers()):
            numbers = tensor.numel() if tensor.is_floating_point() else 0
            seen[id(tensor)] = (numbers, tensor.numel() * tensor.element_size())
    return Size(sum(numbers for numbers, _ in seen.values()), sum(size for _, size in seen.values()))
