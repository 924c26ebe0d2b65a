"""Many merges on one base: only the tensors that a merge changes are its own, all others are the base's memory."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from merge_backends.errors import IncompatibleError


@dataclass(frozen=True, eq=False)
class Overlay(Mapping[str, Tensor]):
    """Weights that are `changed` where they differ from `base`, and the base's own elsewhere."""

    base: Mapping[str, Tensor]
    changed: Mapping[str, Tensor]

    def __getitem__(self, name: str) -> Tensor:
        return self.changed[name] if name in self.changed else self.base[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.base)

    def __len__(self) -> int:
        return len(self.base)

    @property
    def nbytes(self) -> int:
        """Bytes that are not shared."""
        return nbytes(self.changed)


def nbytes(tensors: Mapping[str, Tensor]) -> int:
    """Bytes of all tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def overlay(base: Mapping[str, Tensor], merged: Iterable[tuple[str, Tensor]]) -> Overlay:
    """Keeps of a merge what is not bit-equal to the base; the rest is freed as it goes by.

    Raises:
        IncompatibleError: the merge has a tensor that the base has not.
    """
    changed = {}
    for name, tensor in merged:
        if name not in base:
            raise IncompatibleError(f"The merge has a tensor {name!r} that the base has not.")
        if not torch.equal(tensor, base[name]):
            changed[name] = tensor
    return Overlay(base, changed)


def assemble(base: nn.Module, changed: Mapping[str, Tensor], *, without: Iterable[str] = ()) -> nn.Module:
    """A module like `base` whose changed parameters are new and whose other tensors are the very same memory.

    Tied weights stay tied (a change of one name is a change of all), and buffers that no state dict holds (position
    ids, rotary frequencies) are shared too. Neither module may be trained.

    Args:
        without: attributes of the base that are None in the new module, not copied.

    Raises:
        IncompatibleError: a name that the module has not, or another shape.
    """
    tensors = [*base.parameters(), *base.buffers()]
    known: dict[int, object] = {id(tensor): tensor for tensor in tensors}
    known |= {id(getattr(base, name)): None for name in without}
    made: nn.Module = copy.deepcopy(base, known)
    places = _places(made)
    for name, tensor in changed.items():
        if name not in places:
            raise IncompatibleError(f"The model has no tensor {name!r}.", "Overlay weights of this very model.")
        old = places[name][0]
        if old.shape != tensor.shape:
            raise IncompatibleError(f"The tensor {name!r} is {tuple(tensor.shape)}, not {tuple(old.shape)}.")
        new = nn.Parameter(tensor, requires_grad=False) if isinstance(old, nn.Parameter) else tensor
        for _, module, leaf in _same(places, old):
            setattr(module, leaf, new)
    return made


_Place = tuple[Tensor, nn.Module, str]


def _places(model: nn.Module) -> dict[str, _Place]:
    """Every name of every tensor, tied ones included, with the module that holds it."""
    found: dict[str, _Place] = {}
    for prefix, module in model.named_modules():
        own = {**dict(module.named_parameters(recurse=False)), **dict(module.named_buffers(recurse=False))}
        found.update({f"{prefix}.{leaf}".lstrip("."): (tensor, module, leaf) for leaf, tensor in own.items()})
    return found


def _same(places: Mapping[str, _Place], tensor: Tensor) -> list[_Place]:
    return [place for place in places.values() if place[0] is tensor]
