"""Merges made on request: declared experts on one base, weights on a grid, results kept as overlays on the base."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from merge_backends.cache import MergeCache
from merge_backends.compatibility import check_fit, check_related
from merge_backends.engine.causal import CausalModel
from merge_backends.engine.errors import EngineError, invalid
from merge_backends.engine.settings import MergeFamily
from merge_backends.errors import RecipeError, UnknownNameError
from merge_backends.methods import entry
from merge_backends.overlay import assemble, nbytes, overlay
from merge_backends.preference import MergeOffer, snap_to_simplex
from merge_backends.recipe import ModelReference
from merge_backends.sources import OpenModel, open_model

#: An expert that moved further than this from the base (norm of the difference over norm) is unrelated to it.
RELATED = 1.0


@dataclass(slots=True, eq=False)
class Family:
    """One declared family: its offer, its base as it is served, and its experts once they are open."""

    offer: MergeOffer
    settings: MergeFamily
    base: CausalModel | None = None
    experts: dict[str, OpenModel] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    opening: threading.Lock = field(default_factory=threading.Lock)


@dataclass(frozen=True, slots=True, eq=False)
class Merged:
    """A merge that is ready, and the bytes that it does not share with its base."""

    model: CausalModel
    own_bytes: int


class Merges:
    """All families of an engine. Thread-safe.

    Args:
        load_base: loads a family's base as a served model.
        budget: bytes of merges that are kept.
    """

    def __init__(
        self,
        families: Mapping[str, MergeFamily],
        load_base: Callable[[str, MergeFamily], CausalModel],
        *,
        allowed: Sequence[Path] | None,
        budget: int,
    ) -> None:
        self._load_base = load_base
        self._allowed = allowed
        self._families = {
            name: Family(MergeOffer(name, tuple(each.experts), at_once=min(len(each.experts), each.at_once)), each)
            for name, each in families.items()
        }
        self.cache: MergeCache[Merged] = MergeCache(budget, lambda merged: merged.own_bytes)

    @property
    def offers(self) -> dict[str, MergeOffer]:
        """What may be asked for, by the name under which it is listed."""
        return {f"{name}/merge": family.offer for name, family in self._families.items()}

    def resolve(self, name: str, preference: Mapping[str, float] | None) -> str | None:
        """The one name of the merge that is asked for; None where it is not about a family.

        A preference is shared out so that it adds up to one; weights in the name are taken as they are.

        Raises:
            EngineError: a family without a preference.
            RecipeError, UnknownNameError: weights that are not offered.
        """
        head, found, weights = name.partition("/merge")
        family = self._families.get(head)
        if family is None or (found and weights and not weights.startswith(":")):
            return None
        if weights:
            if preference is not None:
                raise invalid("orbweaver.preference", "Give the weights in the name or as a preference, not both.")
            given = family.offer.parse(name)
            return None if given is None else family.offer.canonical(given)
        if preference is None:
            if not found:
                return None
            first = family.offer.experts[0]
            raise EngineError(
                f"{name!r} needs weights: ask for '{head}/merge:{first}=1', or send orbweaver.preference.",
                code="missing_preference",
                param="model",
            )
        for expert in preference:
            if expert not in family.offer.experts:
                raise UnknownNameError(f"expert of {head!r}", expert, family.offer.experts)
        return family.offer.canonical(snap_to_simplex(preference, family.offer.grid))

    def use(self, canonical: str) -> AbstractContextManager[Merged]:
        """The merge, built where it is not kept, and pinned for the length of the block."""
        family = self._families[canonical.partition("/merge:")[0]]
        weights = family.offer.parse(canonical)
        if weights is None:
            raise RecipeError(f"{canonical!r} is no merge.")
        expected = self._open(family).nbytes
        return self.cache.use(canonical, lambda: self._build(family, canonical, weights), expected=expected)

    def _open(self, family: Family) -> CausalModel:
        """The base as a served model; experts are opened and compared with it once."""
        with family.opening:
            if family.base is None:
                root = Path.cwd()
                base = open_model(ModelReference(str(family.settings.base)), root=root, allowed=self._allowed)
                for name, path in family.settings.experts.items():
                    expert = open_model(ModelReference(str(path)), root=root, allowed=self._allowed)
                    family.names = check_fit([base, expert], stacked=False)
                    check_related(base, expert, family.names, RELATED)
                    family.experts[name] = expert
                family.base = self._load_base(f"{family.offer.family}/base", family.settings)
            return family.base

    def _build(self, family: Family, canonical: str, weights: Mapping[str, float]) -> Merged:
        """theta_0 + sum of w_i (theta_i - theta_0), by the registry's task arithmetic."""
        base = self._open(family)
        own = base.module.state_dict()
        # Files are read one thread at a time: the readers of checkpoints are not made for more.
        with family.opening:
            start: dict[str, Tensor] = {}
            experts: list[dict[str, Tensor]] = [{} for _ in weights]
            for name in family.names:
                tuned = [family.experts[expert].weights[name].to(own[name]) for expert in weights]
                # What no expert changed is left out: a weighted sum of equal tensors would differ in the last bit.
                if not all(torch.equal(tensor, own[name]) for tensor in tuned):
                    start[name] = own[name]
                    for expert, tensor in zip(experts, tuned, strict=True):
                        expert[name] = tensor
            method: Any = entry("task_arithmetic")
            parameters = method.parameters.model_validate({"weight": tuple(weights.values())})
            laid = overlay(start, method.merge(start, experts, parameters))
        module = assemble(base.module, laid.changed)
        mark = hashlib.sha256(f"{base.fingerprint}{canonical}".encode()).hexdigest()[:12]
        model = replace(base, name=canonical, module=module, fingerprint=f"fp_{mark}")
        return Merged(model, nbytes(laid.changed))
