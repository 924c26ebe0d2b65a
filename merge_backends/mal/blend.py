"""Lays a donor's matched units on the base's: other base units stay, other donor units are dropped or folded in."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from merge_backends.mal.layout import Axis, Slot
from merge_backends.mal.matching import Alignment, Match, Side, take_units, unit_entries


def blend(
    base: Side, donor: Side, alignment: Alignment, pairs: Iterable[tuple[Slot, Slot]], alpha: float
) -> dict[str, Tensor]:
    """The base's tensors after (1 - alpha) A + alpha P B Q' on the matched entries; alpha 0 gives the base bit by bit.

    Args:
        pairs: base slot and the donor slot laid on it; a tensor with an axis that is not matched is left out.
        alpha: 0 to 1.
    Returns:
        New tensors by the base's names, in the base's dtype.
    """
    changed = {}
    for slot, other in pairs:
        found = on_base(base, donor, alignment, slot, other)
        if found is None:
            continue
        theirs, entries = found
        name = base.layout.names[slot]
        value = base.weights[name]
        # One index per axis, shaped so that together they name every matched entry.
        where = tuple(
            index.reshape([-1 if axis == number else 1 for axis in range(value.dim())])
            for number, index in enumerate(entries)
        )
        result = value.float().clone()
        result[where] = (1.0 - alpha) * result[where] + alpha * theirs
        changed[name] = result.to(value.dtype)
    return changed


def on_base(
    base: Side, donor: Side, alignment: Alignment, slot: Slot, other: Slot
) -> tuple[Tensor, list[Tensor]] | None:
    """The donor's tensor with its units in the base's places, and which entries of each base axis they are.

    None where an axis has no match (heads of another size, say).
    """
    theirs = donor.tensor(other)
    name = base.layout.names[slot]
    entries = []
    for number, axis in enumerate(base.layout.axes[slot.role]):
        size = int(base.weights[name].shape[number])
        if axis.kind is None:
            common = min(size, int(theirs.shape[number]))
            theirs = theirs.narrow(number, 0, common)
            entries.append(torch.arange(common))
            continue
        match = alignment.matches.get(base.layout.space(slot, axis))
        if match is None:
            return None
        theirs = _gather(theirs, number, axis, donor.layout.units[axis.kind], match)
        entries.append(unit_entries(axis, size, base.layout.units[axis.kind], match.base))
    return theirs, entries


def _gather(theirs: Tensor, number: int, axis: Axis, units: int, match: Match) -> Tensor:
    """Donor units in the base's order; folded ones are averaged in where units are made, summed where they are read.

    Two units that become one send one signal: its maker is the mean of theirs, and its readers take both their weights.
    """
    picked = take_units(theirs, number, axis, units, match.donor)
    if not len(match.folded_base):
        return picked
    place = torch.searchsorted(match.base, match.folded_base)
    extra = take_units(theirs, number, axis, units, match.folded_donor)
    entries = unit_entries(axis, int(picked.shape[number]), len(match.base), place)
    picked = picked.index_add(number, entries, extra)
    if axis.reads:
        return picked
    counts = torch.ones(picked.shape[number]).index_add(0, entries, torch.ones(len(entries)))
    return picked / counts.reshape([-1 if axis_number == number else 1 for axis_number in range(picked.dim())])
