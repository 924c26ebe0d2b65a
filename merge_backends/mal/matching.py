"""Partial permutations between two networks: rectangular assignments, alternated over the spaces."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from merge_backends.errors import IncompatibleError
from merge_backends.mal.layout import HEADS, INNER, POOLED, STREAM, Axis, Layout, Slot, Space

Similarity = Literal["distance", "product"]


class Match(NamedTuple):
    """Which donor unit stands for which base unit; `folded` pairs lay further donor units onto matched base units.

    Args:
        base, donor: `(pairs,)` int64, ascending in base.
        folded_base, folded_donor: `(folds,)` int64.
    """

    base: Tensor
    donor: Tensor
    folded_base: Tensor
    folded_donor: Tensor

    def same_pairs(self, other: Match) -> bool:
        """Whether both name the same pairs (folds follow from them)."""
        return bool(torch.equal(self.base, other.base) and torch.equal(self.donor, other.donor))


@dataclass
class Alignment:
    """How a donor lies on a base.

    Args:
        depths: donor layer for each base layer, None where no donor layer is used.
        matches: by the base's space; a missing space is not matched, and tensors with an axis in it stay untouched.
        objective: similarity after each sweep; never falls while the depths stay.
    """

    depths: tuple[int | None, ...]
    matches: dict[Space, Match] = field(default_factory=dict)
    objective: list[float] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Side:
    """One network: its tensors and their layout."""

    weights: Mapping[str, Tensor]
    layout: Layout

    def tensor(self, slot: Slot) -> Tensor:
        """Its tensor in the slot, float32."""
        return self.weights[self.layout.names[slot]].float()


def check_pair(base: Side, donor: Side) -> None:
    """Raises IncompatibleError where the two cannot be laid on one another: other family, roles or vocabulary."""
    if base.layout.axes != donor.layout.axes:
        odd = sorted(set(base.layout.axes) ^ set(donor.layout.axes))
        raise IncompatibleError(
            f"A {donor.layout.family} donor cannot be laid on a {base.layout.family} base: {odd[:3]}.",
            "Choose donors of the base's family and with the same heads.",
        )
    for slot, name in base.layout.names.items():
        if slot.layer is not None or "position" in slot.role or slot.role == "wpe.weight":
            continue
        for number, axis in enumerate(base.layout.axes[slot.role]):
            mine, other = base.weights[name].shape[number], donor.tensor(slot).shape[number]
            if axis.kind is None and mine != other:
                raise IncompatibleError(
                    f"{name!r} has {mine} rows in the base and {other} in the donor.",
                    "Choose a donor with the base's vocabulary.",
                )


def rows_by_unit(tensor: Tensor, number: int, axis: Axis, units: int) -> Tensor:
    """The tensor as `(units, rest)`: one row per unit, its block of entries and the fused parts laid out in the row."""
    moved = tensor.movedim(number, 0)
    size = moved.shape[0] // (axis.parts * units)
    split = moved.reshape(axis.parts, units, size, -1).movedim(1, 0)
    return split.reshape(units, -1)


def assign(similarity: Tensor, fold: bool = False) -> Match:
    """The partial permutation of largest total similarity; pairs of similarity 0 or less are left out.

    Args:
        similarity: `(base units, donor units)`.
        fold: lay every unmatched donor unit onto the most similar matched base unit, if it is above 0.

    This is the assignment on the square padded with zeros: clipping at 0 gives such a pair the value of no pair.
    """
    clipped = similarity.clamp_min(0).double().numpy()
    rows, columns = linear_sum_assignment(clipped, maximize=True)
    base, donor = torch.from_numpy(rows).long(), torch.from_numpy(columns).long()
    alike = similarity[base, donor] > 0
    base, donor = base[alike], donor[alike]
    none = torch.empty(0, dtype=torch.long)
    if not fold or not len(base):
        return Match(base, donor, none, none)
    left = torch.ones(similarity.shape[1], dtype=torch.bool)
    left[donor] = False
    rest = left.nonzero()[:, 0]
    best, place = similarity[base][:, rest].max(0) if len(rest) else (torch.empty(0), none)
    kept = best > 0
    return Match(base, donor, base[place[kept]], rest[kept])


@dataclass(eq=False)
class Aligner:
    """Finds an alignment by coordinate ascent, each tensor's part divided by the norms of the two tensors.

    "product" maximises the sum of <A, P B Q'>. "distance" minimises that of |A - P B Q'|^2 over the matched entries:
    the same where all units are matched, but where widths differ a product pairs the largest units and a distance the
    most alike. Distances pair as many units as the narrower side has; pairs whose product is not positive are dropped
    at the end.

    Ref: our reading of MAL, arXiv:2503.21657 (only its summary was reachable), on the coordinate ascent of Git
    Re-Basin, arXiv:2209.04836, algorithm 1, extended to partial permutations and to layers of other depths.
    """

    base: Side
    donor: Side
    similarity: Similarity = "distance"
    fold: bool = False
    _scale: dict[tuple[Slot, Slot], float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_pair(self.base, self.donor)

    def align(self, depth: Literal["proportional", "similar"] | Sequence[int | None], sweeps: int = 10) -> Alignment:
        """Matches all spaces.

        Args:
            depth: a donor layer for each base layer, or how to choose it.
            sweeps: at most this many rounds over all spaces; ends early when no pair changes.
        """
        alignment = Alignment(())
        # Tensors outside the layers have no other unit axis, so they can start the stream.
        self._update(alignment, Space(STREAM))
        if depth == "proportional":
            alignment.depths = proportional_depths(self.base.layout.layers, self.donor.layout.layers)
        elif depth == "similar":
            table = self.layer_similarity(alignment)
            alignment.depths = tuple(int(row.argmax()) for row in table)
        else:
            alignment.depths = _checked_depths(depth, self.base.layout.layers, self.donor.layout.layers)
        spaces = [Space(kind, layer) for layer in range(self.base.layout.layers) for kind in (HEADS, INNER)]
        spaces += [Space(POOLED)] * (POOLED in self.base.layout.units)
        for _ in range(sweeps):
            changed = [self._update(alignment, space) for space in spaces]
            changed.append(self._update(alignment, Space(STREAM)))
            alignment.objective.append(self.value(alignment))
            if not any(changed):
                break
        if self.similarity == "distance":
            self._drop_unlike(alignment)
        return alignment

    def with_depth(self, alignment: Alignment, layer: int, depth: int) -> Alignment:
        """A copy in which donor layer `depth` lies on base layer `layer`, its heads and inner units matched anew."""
        depths = tuple(depth if number == layer else old for number, old in enumerate(alignment.depths))
        changed = Alignment(depths, dict(alignment.matches))
        for kind in (HEADS, INNER):
            changed.matches.pop(Space(kind, layer), None)
            self._update(changed, Space(kind, layer))
        return changed

    def layer_similarity(self, alignment: Alignment) -> Tensor:
        """`(base layers, donor layers)` mean cosine of the layers' matrices, own spaces matched, stream as is."""
        layers = (self.base.layout.layers, self.donor.layout.layers)
        table = torch.zeros(layers)
        for own in range(layers[0]):
            for other in range(layers[1]):
                trial = Alignment(tuple(other if layer == own else None for layer in range(layers[0])))
                trial.matches[Space(STREAM)] = alignment.matches[Space(STREAM)]
                for kind in (HEADS, INNER):
                    self._update(trial, Space(kind, own))
                table[own, other] = self._layer_cosine(trial, own)
        return table

    def value(self, alignment: Alignment) -> float:
        """The objective: how alike base and aligned donor are, summed over the tensors that are matched."""
        total = 0.0
        for slot, other in self.pairs(alignment):
            aligned = self._on_base(alignment, slot, other, skip=None)
            if aligned is not None:
                total += self._weight(slot, other) * float(self._value(*(part.reshape(1, -1) for part in aligned)))
        return total

    def _value(self, mine: Tensor, theirs: Tensor) -> Tensor:
        """`(base units, donor units)` from one row per unit: products, or minus half the squared distances."""
        products = mine @ theirs.T
        if self.similarity == "product":
            return products
        return products - 0.5 * (mine.square().sum(1)[:, None] + theirs.square().sum(1))

    def _layer_cosine(self, alignment: Alignment, layer: int) -> float:
        found = []
        for slot, other in self.pairs(alignment):
            if slot.layer == layer and len(self.base.layout.axes[slot.role]) == 2:
                pair = self._on_base(alignment, slot, other, skip=None)
                if pair is not None:
                    mine, theirs = self.base.tensor(slot), self.donor.tensor(other)
                    found.append(float((pair[0] * pair[1]).sum() / (mine.norm() * theirs.norm()).clamp_min(1e-12)))
        return sum(found) / max(len(found), 1)

    def pairs(self, alignment: Alignment) -> list[tuple[Slot, Slot]]:
        """Base slots with the donor slot laid on each."""
        pairs = []
        for slot in self.base.layout.names:
            layer = slot.layer
            if layer is not None:
                if not alignment.depths or alignment.depths[layer] is None:
                    continue
                layer = alignment.depths[layer]
            other = Slot(layer, slot.role)
            if other in self.donor.layout.names:
                pairs.append((slot, other))
        return pairs

    def _update(self, alignment: Alignment, space: Space) -> bool:
        """One assignment; True if a pair changed."""
        total = self._unit_similarity(alignment, space, self._value)
        if total is None:
            return False
        if self.similarity == "distance":
            total = total - total.min() + 1.0
        match = assign(total, self.fold)
        old = alignment.matches.get(space)
        alignment.matches[space] = match
        return old is None or not old.same_pairs(match)

    def _drop_unlike(self, alignment: Alignment) -> None:
        """Leaves out pairs and folds whose units point away from each other."""
        for space, match in list(alignment.matches.items()):
            products = self._unit_similarity(alignment, space, lambda mine, theirs: mine @ theirs.T)
            if products is not None:
                alike = products[match.base, match.donor] > 0
                folds = (products[match.folded_base, match.folded_donor] > 0) & torch.isin(
                    match.folded_base, match.base[alike]
                )
                alignment.matches[space] = Match(
                    match.base[alike], match.donor[alike], match.folded_base[folds], match.folded_donor[folds]
                )

    def _unit_similarity(
        self, alignment: Alignment, space: Space, compare: Callable[[Tensor, Tensor], Tensor]
    ) -> Tensor | None:
        """`(base units, donor units)` summed over every tensor with an axis in the space whose other axes are matched.

        None where there is none, or where the units differ in size (heads of another width).
        """
        layer_map = dict(self.pairs(alignment))
        total: Tensor | None = None
        for slot, number in self.base.layout.slots_of(space):
            if slot not in layer_map:
                continue
            pair = self._on_base(alignment, slot, layer_map[slot], skip=number)
            if pair is None:
                continue
            axis = self.base.layout.axes[slot.role][number]
            assert axis.kind is not None
            mine = rows_by_unit(pair[0], number, axis, self.base.layout.units[axis.kind])
            theirs = rows_by_unit(pair[1], number, axis, self.donor.layout.units[axis.kind])
            if mine.shape[1] != theirs.shape[1]:
                return None
            part = self._weight(slot, layer_map[slot]) * compare(mine, theirs)
            total = part if total is None else total + part
        return total

    def _on_base(
        self, alignment: Alignment, slot: Slot, other: Slot, *, skip: int | None
    ) -> tuple[Tensor, Tensor] | None:
        """Matched parts of the two tensors, equal in shape but for axis `skip`; None while an axis is unmatched."""
        mine, theirs = self.base.tensor(slot), self.donor.tensor(other)
        for number, axis in enumerate(self.base.layout.axes[slot.role]):
            if number == skip:
                continue
            if axis.kind is None:
                common = min(mine.shape[number], theirs.shape[number])
                mine, theirs = mine.narrow(number, 0, common), theirs.narrow(number, 0, common)
                continue
            match = alignment.matches.get(self.base.layout.space(slot, axis))
            if match is None:
                return None
            mine = take_units(mine, number, axis, self.base.layout.units[axis.kind], match.base)
            theirs = take_units(theirs, number, axis, self.donor.layout.units[axis.kind], match.donor)
        return mine, theirs

    def _weight(self, slot: Slot, other: Slot) -> float:
        """What a tensor's similarity counts: its share of its own largest possible product."""
        key = (slot, other)
        if key not in self._scale:
            norms = self.base.tensor(slot).norm() * self.donor.tensor(other).norm()
            self._scale[key] = 1.0 / float(norms.clamp_min(1e-12))
        return self._scale[key]


def unit_entries(axis: Axis, size: int, units: int, chosen: Tensor) -> Tensor:
    """Positions along an axis of length `size` that belong to the chosen units, `(parts * chosen * block,)`."""
    block = size // (axis.parts * units)
    within = torch.arange(block)
    parts = torch.arange(axis.parts) * (units * block)
    return (parts[:, None, None] + chosen[None, :, None] * block + within).reshape(-1)


def take_units(tensor: Tensor, number: int, axis: Axis, units: int, chosen: Tensor) -> Tensor:
    """The tensor with only the chosen units along the axis, in that order."""
    return tensor.index_select(number, unit_entries(axis, tensor.shape[number], units, chosen))


def proportional_depths(base_layers: int, donor_layers: int) -> tuple[int, ...]:
    """For each base layer the donor layer at the same share of the depth."""
    if base_layers == 1:
        return (donor_layers - 1,)
    return tuple(round(layer * (donor_layers - 1) / (base_layers - 1)) for layer in range(base_layers))


def _checked_depths(depths: Sequence[int | None] | str, base_layers: int, donor_layers: int) -> tuple[int | None, ...]:
    good = not isinstance(depths, str) and len(depths) == base_layers
    if not good or any(depth is not None and not 0 <= int(depth) < donor_layers for depth in depths):
        raise IncompatibleError(
            f"The depths {list(depths)} do not name a layer of {donor_layers} for each of {base_layers} base layers."
        )
    return tuple(None if depth is None else int(depth) for depth in depths)
