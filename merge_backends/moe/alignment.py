"""Brings a base and its experts under the names of one model, and gives task vectors and static merges of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from merge_backends.errors import IncompatibleError, MergeError

Weights: TypeAlias = Mapping[str, Tensor]

# Constants that older checkpoints carry and newer models compute.
COMPUTED = ("position_ids", "token_type_ids", "inv_freq", "attn.bias", "masked_bias")


class Family:
    """A base and its experts, read by the names that `model` gives its tensors.

    Reads one tensor at a time, so that a lazily reading checkpoint stays lazy.

    Raises:
        MergeError: there is no expert.
        IncompatibleError: a tensor is missing, has another shape, or belongs to no part of the model.
    """

    def __init__(self, model: nn.Module, base: Weights, experts: Sequence[Weights]) -> None:
        if not experts:
            raise MergeError("a mixture was asked for without experts", fix="Name at least one expert.")
        self.targets = own_tensors(model)
        aliases = aliases_of(model)
        prefix = getattr(model, "base_model_prefix", "")
        self._sources = [(weights, _names(weights, self.targets, aliases, prefix)) for weights in (base, *experts)]
        self.count = len(experts)

    def base(self, name: str) -> Tensor:
        """The base's tensor, float32."""
        return self._read(0, name)

    def delta(self, expert: int, name: str) -> Tensor:
        """The expert's tensor minus the base's, float32."""
        return self._read(expert + 1, name) - self._read(0, name)

    def deltas(self, name: str) -> Tensor:
        """Task vectors `(experts, *shape)`, float32."""
        base = self._read(0, name)
        return torch.stack([self._read(index + 1, name) - base for index in range(self.count)])

    def summed(self, name: str, weight: float) -> Tensor:
        """Task arithmetic: base plus `weight` times the sum of the task vectors, float32."""
        base = self._read(0, name)
        total = torch.zeros_like(base)
        for index in range(self.count):
            total += self._read(index + 1, name) - base
        return base + weight * total

    def _read(self, source: int, name: str) -> Tensor:
        weights, names = self._sources[source]
        tensor = weights[names[name]]
        if tensor.shape != self.targets[name].shape:
            raise IncompatibleError(
                f"tensor {name!r} has shape {tuple(tensor.shape)} in {_who(source)} "
                f"and {tuple(self.targets[name].shape)} in the model",
                fix="Mix only models of one architecture and vocabulary.",
            )
        return tensor.detach().float()


def own_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters (tied ones once) and persistent buffers by name."""
    tensors: dict[str, Tensor] = {name: parameter for name, parameter in model.named_parameters()}
    persistent = model.state_dict(keep_vars=True)
    tensors |= {name: buffer for name, buffer in model.named_buffers() if name in persistent}
    return tensors


def fill(model: nn.Module, value: Callable[[str], Tensor]) -> None:
    """Overwrite every floating tensor of the model by `value(name)`, cast to the model's dtype; others are left."""
    with torch.no_grad():
        for name, tensor in own_tensors(model).items():
            if tensor.is_floating_point():
                tensor.copy_(value(name))


def aliases_of(model: nn.Module) -> dict[str, str]:
    """Names of tied tensors, pointing to the name that `named_parameters` keeps."""
    first: dict[int, str] = {}
    found = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        kept = first.setdefault(id(parameter), name)
        if kept != name:
            found[name] = kept
    return found


def _names(weights: Weights, targets: dict[str, Tensor], aliases: dict[str, str], prefix: str) -> dict[str, str]:
    """Which name of the weights holds each of the model's tensors."""
    found: dict[str, str] = {}
    unknown = []
    head = f"{prefix}."
    for name in weights:
        spellings = (name, f"{head}{name}", name.removeprefix(head))
        target = next((aliases.get(each, each) for each in spellings if aliases.get(each, each) in targets), None)
        if target is not None:
            found[target] = name
        elif not name.endswith(COMPUTED):
            unknown.append(name)
    missing = [name for name in targets if name not in found]
    if unknown or missing:
        listed = ", ".join(map(repr, (missing or unknown)[:3]))
        says = "lack the model's tensors" if missing else "hold tensors that the model has no place for:"
        raise IncompatibleError(
            f"the weights {says} {listed} ({len(missing or unknown)} in all)",
            fix="Nothing is mixed in part: give weights with exactly the model's tensors.",
        )
    return found


def _who(source: int) -> str:
    return "the base" if source == 0 else f"expert {source - 1}"
