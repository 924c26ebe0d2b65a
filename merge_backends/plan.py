"""What a recipe comes to: models opened and checked, parameters per tensor, bytes needed, and the recipe's hash."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel

from merge_backends import compatibility, digests, memory, methods
from merge_backends.errors import RecipeError
from merge_backends.layers import depth, with_depth
from merge_backends.methods.base import MergeMethod, TensorMethod
from merge_backends.parameters import as_json, check_names, whole_model_settings
from merge_backends.parts import Part, make_parts
from merge_backends.recipe import ModelReference, Recipe
from merge_backends.sources import OpenModel, adapter_only, open_model
from merge_backends.views import View

if TYPE_CHECKING:
    import torch

SCHEMA = 1
HETEROGENEOUS = ("mal",)
"""Methods whose models may differ in shape; they check for themselves."""
# Finding the trim's threshold holds the bits, their halves and a count's 64-bit copy of one tensor.
_THRESHOLD_BYTES = 24
Kind = Literal["tensors", "model", "mixture"]

UNTRAINED_ROUTERS = "Not every model has `data`: the routers are not trained, and the mixture is task arithmetic."
UNTRAINED_GATES = "Not every model has `data`: the gates are not trained, and a preference scales the task vectors."


@dataclass(frozen=True, eq=False)
class Plan:
    """Everything that is known before the first tensor is merged.

    Args:
        kind: `tensors` merges one by one, `model` needs whole models, `mixture` makes no plain checkpoint.
        method: of the registry; None for a mixture.
        config: of the result.
        layout: dtype (torch's word) and shape of each tensor of the result.
        changes: how far each model moved from the base, as a share of the base's norm; by name.
        needed: bytes of memory at the peak, estimated.
        notes: what a person should know, plain sentences.
    """

    recipe: Recipe
    kind: Kind
    method: MergeMethod[Any] | None
    models: Mapping[ModelReference, OpenModel]
    base: OpenModel | None
    experts: tuple[OpenModel, ...]
    parts: tuple[Part, ...]
    settings: BaseModel | None
    config: Mapping[str, Any]
    layout: Mapping[str, tuple[str, tuple[int, ...]]]
    changes: Mapping[str, float]
    needed: int
    tokenizer: OpenModel
    notes: tuple[str, ...] = field(default=())

    @property
    def hash(self) -> str:
        """Hash of all that decides the result: contents, resolved parameters, dtypes, seed. Paths do not count."""
        parts = [
            {
                "base": _origin(part.base),
                "experts": [_origin(view) for view in part.experts],
                "parameters": _by_value(part.parameters),
            }
            for part in self.parts
        ]
        return digests.of_value(
            {
                "schema": SCHEMA,
                "method": self.recipe.method,
                "base": self.base.digest if self.base else None,
                "experts": [model.digest for model in self.experts],
                "parts": parts,
                "settings": as_json(self.settings) if self.settings else None,
                "dtype": self.recipe.dtype,
                "layout": {name: [dtype, list(shape)] for name, (dtype, shape) in self.layout.items()},
                "tokenizer": self.tokenizer.checkpoint.tokenizer_digest,
                "chat_template": self.recipe.chat_template,
                "adaptation": dict(self.recipe.adaptation),
                "seed": self.recipe.seed,
            }
        )

    @property
    def nbytes(self) -> int:
        """Bytes of the result's tensors."""
        return sum(math.prod(shape) * _itemsize(dtype) for dtype, shape in self.layout.values())

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """The merged tensors, one by one, in the dtype of the layout. Only for methods that need no data."""
        import torch

        assert self.method is not None
        for part in self.parts:
            first = next(iter(part.parameters.values()))
            if isinstance(self.method, TensorMethod):
                merged = self.method.merge(
                    part.base, part.experts, first, seed=self.recipe.seed, parameters_of=part.parameters.__getitem__
                )
            else:
                merged = self.method.merge(part.base, part.experts, first, seed=self.recipe.seed)
            for name, tensor in merged:
                yield name, tensor.to(device="cpu", dtype=getattr(torch, self.layout[name][0]))


def make_plan(
    recipe: Recipe,
    *,
    root: Path = Path(),
    allowed: Sequence[Path] | None = None,
    budget: int | None = None,
    built: Mapping[str, Path] | None = None,
    device: str = "cpu",
) -> Plan:
    """Opens and checks everything a recipe names.

    Args:
        root: the folder that the recipe's relative paths start from.
        allowed: folders that models must lie in; None allows all.
        budget: bytes of memory that the merge may take; None takes what the machine has.
        built: folders of earlier documents of the same file, by name.
        device: where tensors are merged one by one; whole-model methods and mixtures stay on the CPU.

    Raises:
        MergeError: any of its kinds but BuildError.
    """
    kind, method, parameters = _chosen(recipe)
    notes = check_names(recipe, parameters)
    untrained = kind == "mixture" and _learns(recipe.method) and not recipe.has_data
    if untrained:
        notes += (UNTRAINED_GATES if recipe.method == "pareto" else UNTRAINED_ROUTERS,)
    if recipe.base_model is None and (kind == "mixture" or (method is not None and method.needs_base)):
        raise RecipeError(f"The merge method {recipe.method!r} needs a base model.", "Set `base_model`.")
    models = _open_all(recipe, root, allowed, built)
    base = models[recipe.base_model] if recipe.base_model else None
    reference = base or next(iter(models.values()))
    if recipe.method in HETEROGENEOUS:
        names: tuple[str, ...] = tuple(reference.checkpoint.entries)
        changes: dict[str, float] = {}
    else:
        names = compatibility.check_fit(list(models.values()), stacked=recipe.is_stack)
        related = not recipe.is_stack and recipe.method not in ("passthrough", "lora")
        changes = _changes(recipe, models, reference, names) if related else {}
    parts = (
        make_parts(recipe, models, method, names, device=usable_device(device))
        if isinstance(method, TensorMethod)
        else ()
    )
    experts = tuple(dict.fromkeys(models[source.model] for part in recipe.slices for source in part.sources))
    experts = tuple(model for model in experts if model is not base)
    layout = _layout(parts, reference, names, recipe)
    needed = _needed(kind, parts, layout, len(experts))
    memory.require(needed, budget)
    config = dict(reference.checkpoint.config)
    return Plan(
        recipe=recipe,
        kind=kind,
        method=method,
        models=models,
        base=base,
        experts=experts,
        parts=parts,
        settings=None if parts else _settings(recipe, parameters, untrained=untrained),
        config=_with_dtype(with_depth(config, depth(layout)) if recipe.is_stack else config, layout),
        layout=layout,
        changes=changes,
        needed=needed,
        tokenizer=_tokenizer(recipe, models, reference),
        notes=notes,
    )


def usable_device(name: str) -> str:
    """The name of a device that this machine has.

    Raises:
        RecipeError: it has not.
    """
    import torch

    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise RecipeError(
            f"The device {name!r} cannot be used: {reason}.", "Leave it out to merge on the CPU."
        ) from None
    return name


def _settings(recipe: Recipe, parameters: type[BaseModel], *, untrained: bool) -> BaseModel:
    """Settings of a method that takes whole models; gates that nothing trains pass the preference on."""
    settings = whole_model_settings(recipe, parameters)
    if untrained and recipe.method == "pareto" and "identity" not in settings.model_fields_set:
        return settings.model_copy(update={"identity": True})
    return settings


def _learns(mixture: str) -> bool:
    from merge_backends import moe

    return moe.find(mixture).needs_data


def _chosen(recipe: Recipe) -> tuple[Kind, MergeMethod[Any] | None, type[BaseModel]]:
    from merge_backends import moe

    if recipe.method in moe.METHODS:
        return "mixture", None, moe.find(recipe.method).parameters
    method = methods.entry(recipe.method)
    return "tensors" if isinstance(method, TensorMethod) else "model", method, method.parameters


def _open_all(
    recipe: Recipe, root: Path, allowed: Sequence[Path] | None, built: Mapping[str, Path] | None
) -> dict[ModelReference, OpenModel]:
    """Every model by its reference; a LoRA set's members are adapters on the base."""
    opened = {}
    for reference in recipe.models:
        if recipe.method == "lora" and recipe.base_model and reference != recipe.base_model:
            adapter = ModelReference(recipe.base_model.path, reference.lora or reference.path)
            opened[reference] = adapter_only(open_model(adapter, root=root, allowed=allowed, built=built))
        else:
            opened[reference] = open_model(reference, root=root, allowed=allowed, built=built)
    return opened


def _changes(
    recipe: Recipe, models: Mapping[ModelReference, OpenModel], reference: OpenModel, names: Sequence[str]
) -> dict[str, float]:
    others = [model for model in models.values() if model is not reference]
    limit = recipe.max_relative_change
    return {model.name: compatibility.check_related(reference, model, names, limit) for model in others}


def _layout(
    parts: Sequence[Part], reference: OpenModel, names: Sequence[str], recipe: Recipe
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Dtype and shape of what will be written."""
    if parts:
        shown = [(part.base or part.experts[0], name) for part in parts for name in part.parameters]
    else:
        whole = View(reference, {name: name for name in names}, recipe.dtype)
        shown = [(whole, name) for name in names]
    layout = {}
    for view, name in shown:
        dtype, shape = view.facts(name)
        layout[name] = (recipe.out_dtype if recipe.out_dtype and "float" in dtype else dtype, shape)
    return layout


def _needed(kind: Kind, parts: Sequence[Part], layout: Mapping[str, tuple[str, tuple[int, ...]]], experts: int) -> int:
    """Peak bytes: for `tensors` the largest tensor's inputs, result and search for its threshold, else all models."""
    if kind != "tensors":
        return (experts + 2) * sum(math.prod(shape) * 4 for _, shape in layout.values())
    peak = 0
    for part in parts:
        views = [*part.experts, *([part.base] if part.base else [])]
        for name in part.parameters:
            count = math.prod(layout[name][1])
            inputs = sum(_itemsize(view.facts(name)[0]) for view in views)
            peak = max(peak, count * (inputs + _itemsize(layout[name][0]) + _THRESHOLD_BYTES))
    return peak


def _with_dtype(config: dict[str, Any], layout: Mapping[str, tuple[str, tuple[int, ...]]]) -> dict[str, Any]:
    """The config with the dtype that most values of the result have, under the key that it uses."""
    counts: dict[str, int] = {}
    for dtype, shape in layout.values():
        counts[dtype] = counts.get(dtype, 0) + math.prod(shape)
    dtype = max(counts, key=lambda name: counts[name])
    return {**config, ("torch_dtype" if "torch_dtype" in config and "dtype" not in config else "dtype"): dtype}


def _tokenizer(recipe: Recipe, models: Mapping[ModelReference, OpenModel], reference: OpenModel) -> OpenModel:
    """The model whose tokenizer files the result gets. They are all the same tokenizer: that was checked."""
    source = recipe.tokenizer_source
    if isinstance(source, ModelReference):
        if source not in models:
            raise RecipeError(
                f"`tokenizer_source` is {str(source)!r}, which is none of the merged models.",
                "Name one of them, `base` or `union`.",
            )
        return models[source]
    with_one = (model for model in (reference, *models.values()) if model.checkpoint.tokenizer_digest)
    return next(with_one, reference)


def _origin(view: View | None) -> list[Any] | None:
    if view is None:
        return None
    moved = {name: origin for name, origin in view.origin.items() if name != origin}
    return [view.model.digest, moved]


def _by_value(parameters: Mapping[str, BaseModel]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    spoken: dict[int, str] = {}
    for name, values in parameters.items():
        key = spoken.setdefault(id(values), digests.canonical(as_json(values)))
        groups.setdefault(key, []).append(name)
    return groups


def _itemsize(dtype: str) -> int:
    import torch

    return int(getattr(torch, dtype).itemsize)
