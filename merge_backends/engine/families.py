"""What can be merged on request: declared experts on one base, or the preferences of a Pareto mixture."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from merge_backends.compatibility import check_fit, check_related
from merge_backends.engine.causal import CausalModel
from merge_backends.engine.settings import MergeFamily
from merge_backends.errors import CheckpointError
from merge_backends.methods import entry
from merge_backends.overlay import assemble, nbytes, overlay
from merge_backends.preference import MergeOffer
from merge_backends.recipe import ModelReference
from merge_backends.sources import OpenModel, open_model

#: An expert that moved further than this from the base (norm of the difference over norm) is unrelated to it.
RELATED = 1.0
LoadBase = Callable[[], CausalModel]


@dataclass(frozen=True, slots=True, eq=False)
class Merged:
    """A merge that is ready, and the bytes that it does not share with its base."""

    model: CausalModel
    own_bytes: int


class Family(Protocol):
    """What may be asked for, and how it is made. Thread-safe."""

    offer: MergeOffer

    def open(self) -> CausalModel:
        """The base as a served model; what else is needed is opened and checked once."""

    def build(self, canonical: str, weights: Mapping[str, float]) -> Merged:
        """The merge of these weights by expert, under this name."""


class ExpertFamily:
    """theta_0 + sum of w_i (theta_i - theta_0) over declared experts, by the registry's task arithmetic."""

    def __init__(self, name: str, settings: MergeFamily, load_base: LoadBase, allowed: Sequence[Path] | None) -> None:
        self.offer = MergeOffer(name, tuple(settings.experts), at_once=min(len(settings.experts), settings.at_once))
        self._settings = settings
        self._load_base = load_base
        self._allowed = allowed
        self._base: CausalModel | None = None
        self._experts: dict[str, OpenModel] = {}
        self._names: tuple[str, ...] = ()
        self._opening = threading.Lock()

    def open(self) -> CausalModel:
        """The base; experts are compared with it once."""
        with self._opening:
            if self._base is None:
                root = Path.cwd()
                base = open_model(ModelReference(str(self._settings.base)), root=root, allowed=self._allowed)
                for name, path in self._settings.experts.items():
                    expert = open_model(ModelReference(str(path)), root=root, allowed=self._allowed)
                    self._names = check_fit([base, expert], stacked=False)
                    check_related(base, expert, self._names, RELATED)
                    self._experts[name] = expert
                self._base = self._load_base()
            return self._base

    def build(self, canonical: str, weights: Mapping[str, float]) -> Merged:
        """See `Family`."""
        base = self.open()
        own = base.module.state_dict()
        # Files are read one thread at a time: the readers of checkpoints are not made for more.
        with self._opening:
            start: dict[str, Tensor] = {}
            experts: list[dict[str, Tensor]] = [{} for _ in weights]
            for name in self._names:
                tuned = [self._experts[expert].weights[name].to(own[name]) for expert in weights]
                # What no expert changed is left out: a weighted sum of equal tensors would differ in the last bit.
                if not all(torch.equal(tensor, own[name]) for tensor in tuned):
                    start[name] = own[name]
                    for expert, tensor in zip(experts, tuned, strict=True):
                        expert[name] = tensor
            method: Any = entry("task_arithmetic")
            parameters = method.parameters.model_validate({"weight": tuple(weights.values())})
            return _laid_over(base, base.module, canonical, method.merge(start, experts, parameters))


class ParetoFamily:
    """The dense models of a Pareto mixture, one for each preference on its grid."""

    def __init__(self, name: str, experts: Sequence[str], grid: int, load_mixture: LoadBase) -> None:
        self.offer = MergeOffer(name, tuple(experts), grid, at_once=len(experts), sums_to_one=True)
        self._load = load_mixture
        self._mixture: CausalModel | None = None
        self._base: nn.Module | None = None
        self._opening = threading.Lock()

    def open(self) -> CausalModel:
        """The mixture at equal preferences."""
        with self._opening:
            if self._mixture is None:
                self._mixture = self._load()
                # Its merges are plain models: they share this one's memory, and not its gates and task vectors.
                self._base = assemble(self._mixture.module, {}, without=("mixture",))
            return self._mixture

    def build(self, canonical: str, weights: Mapping[str, float]) -> Merged:
        """See `Family`."""
        from merge_backends.moe.pareto import deploy

        mixture = self.open()
        assert self._base is not None
        with self._opening:
            dense = deploy(mixture.module, [weights.get(expert, 0.0) for expert in self.offer.experts])
            own = self._base.state_dict()
            return _laid_over(
                mixture, self._base, canonical, ((name, dense[name].to(own[name])) for name in own if name in dense)
            )


def pareto_families(folders: Mapping[str, Path], load: Callable[[str], CausalModel]) -> dict[str, ParetoFamily]:
    """A family for each folder of a Pareto mixture; its experts are called as they were in its recipe."""
    from merge_backends.moe.parameters import ParetoParameters
    from merge_backends.moe.store import read_manifest

    found = {}
    for name, folder in folders.items():
        try:
            manifest = read_manifest(folder)
        except CheckpointError:
            continue  # it is told to whoever asks for the model
        if manifest.method != "pareto":
            continue
        grid = ParetoParameters.model_validate(manifest.parameters).grid
        names = expert_names(manifest.lineage, manifest.experts)
        found[name] = ParetoFamily(name, names, grid, partial(load, name))
    return found


def expert_names(lineage: Mapping[str, Any], experts: int) -> tuple[str, ...]:
    """Names of a mixture's experts, in order: their folders' names, or numbers where these cannot tell them apart."""
    parents = lineage.get("parents")
    named = [str(each.get("name")) for each in parents or () if each.get("role") == "expert"]
    plain = all(name and not set(name) & set(",=:/ ") for name in named)
    if len(set(named)) == experts == len(named) and plain:
        return tuple(named)
    return tuple(f"expert-{number}" for number in range(1, experts + 1))


def _laid_over(base: CausalModel, module: nn.Module, canonical: str, merged: Iterable[tuple[str, Tensor]]) -> Merged:
    laid = overlay(module.state_dict(), merged)
    mark = hashlib.sha256(f"{base.fingerprint}{canonical}".encode()).hexdigest()[:12]
    made = assemble(module, laid.changed)
    gated = getattr(made, "mixture", None) is not None
    return Merged(
        replace(base, name=canonical, module=made, fingerprint=f"fp_{mark}", gated=gated), nbytes(laid.changed)
    )
