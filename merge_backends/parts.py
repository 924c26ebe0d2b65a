"""Slices of a recipe as what a method is called with: views of the models, and parameters for each tensor."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel

from merge_backends.errors import IncompatibleError, RecipeError
from merge_backends.layers import depth, layer_of, renumber
from merge_backends.parameters import Resolver, depth_in_slice
from merge_backends.recipe import ModelReference, Recipe, Slice, Source
from merge_backends.sources import OpenModel
from merge_backends.views import View

_BEFORE_THE_LAYERS = re.compile(r"(^|\.)(embed\w*|wte|wpe)\.")
BASE_FIRST = ("slerp",)
"""Methods that start from the base where there is one, without needing it."""


@dataclass(frozen=True, eq=False)
class Part:
    """One slice of the result: the method's inputs under the names of the result, and parameters by name."""

    base: View | None
    experts: tuple[View, ...]
    parameters: Mapping[str, BaseModel]


def make_parts(
    recipe: Recipe,
    models: Mapping[ModelReference, OpenModel],
    method: Any,
    names: Sequence[str],
    *,
    device: str = "cpu",
) -> tuple[Part, ...]:
    """One part per slice.

    Args:
        names: tensors to merge where the recipe is no stack of layers.

    Raises:
        RecipeError: a slice lacks the base, or takes layers that a model has not.
        IncompatibleError: layers of different shapes are merged or stacked.
    """
    parts = []
    done = 0
    for number, part in enumerate(recipe.slices):
        base_reference = part.base_model or recipe.base_model
        base, experts = _roles(recipe, part, base_reference, method)
        inputs = ([base] if base else []) + experts
        if recipe.is_stack:
            template = models[part.sources[0].model].checkpoint.entries
            is_last = number == len(recipe.slices) - 1
            shown, taken = _stacked(part.sources[0], template, done, is_first=number == 0, is_last=is_last)
            count = taken
        else:
            shown, count = {name: None for name in names}, depth(names)
            taken = 0
        views = [_view(models[source.model], source, shown, done) for source in inputs]
        views = [replace(view, dtype=recipe.dtype, device=device) for view in views]
        _check_shapes(views)
        resolver = Resolver(recipe, part, method, experts)
        first = done if recipe.is_stack else 0
        parameters = {name: resolver(name, depth_in_slice(name, first, count)) for name in shown}
        parts.append(Part(views[0] if base else None, tuple(views[1:] if base else views), parameters))
        done += taken
    if len(parts) > 1 and any(getattr(next(iter(p.parameters.values())), "trim_scope", "") == "global" for p in parts):
        raise RecipeError(
            "`trim_scope: global` cannot be had over several slices.", "Give `models`, or trim per tensor."
        )
    return tuple(parts)


def _roles(
    recipe: Recipe, part: Slice, reference: ModelReference | None, method: Any
) -> tuple[Source | None, list[Source]]:
    """Base and experts of a slice, each with its layers."""
    own = [source for source in part.sources if source.model == reference]
    others = [source for source in part.sources if source.model != reference]
    takes_base = method.needs_base or (method.name in BASE_FIRST and reference is not None)
    if takes_base:
        if reference is None:
            raise RecipeError(f"The merge method {method.name!r} needs a base model.", "Set `base_model`.")
        if not own and recipe.is_stack:
            raise RecipeError(f"A slice has no layers of its base {str(reference)!r}.", "Add it to the `sources`.")
        return (own[0] if own else Source(reference)), others
    experts = list(part.sources)
    shared = (part.parameters, recipe.module, recipe.parameters)
    if method.name == "linear" and reference and not own and any("weight" in given for given in shared):
        # mergekit counts a base that is not listed among the models as one of them
        experts.append(Source(reference))
    return None, experts


def _stacked(
    source: Source, template: Mapping[str, Any], done: int, *, is_first: bool, is_last: bool
) -> tuple[dict[str, int | None], int]:
    """Names of the result in this slice, each with its layer's place in the slice (None: in no layer).

    Args:
        source: the slice's first source, whose model's tensor names are `template`.
        done: layers of the result before this slice.
    """
    assert source.layers is not None
    start, end = source.layers
    if end > depth(template):
        raise RecipeError(
            f"A slice takes layers up to {end} of {str(source.model)!r}, which has {depth(template)}.",
            "Give a layer_range inside the model.",
        )
    count = end - start
    outside = [name for name in template if layer_of(name) is None]
    shown: dict[str, int | None] = {}
    if is_first:
        shown.update(dict.fromkeys((name for name in outside if _BEFORE_THE_LAYERS.search(name)), None))
    inner = [name for name in template if layer_of(name) == start]
    for place in range(count):
        shown.update({renumber(name, done + place): place for name in inner})
    if is_last:
        shown.update(dict.fromkeys((name for name in outside if not _BEFORE_THE_LAYERS.search(name)), None))
    return shown, count


def _view(model: OpenModel, source: Source, shown: Mapping[str, int | None], done: int) -> View:
    origin = {}
    for name, place in shown.items():
        start = source.layers[0] if source.layers else done
        origin[name] = name if place is None else renumber(name, start + place)
        if origin[name] not in model.checkpoint.entries:
            raise IncompatibleError(
                f"{model.name!r} has no tensor {origin[name]!r}.",
                "Take layers that the model has, of one architecture.",
            )
    return View(model, origin)


def _check_shapes(views: Sequence[View]) -> None:
    for name in views[0]:
        for view in views[1:]:
            if view.facts(name)[1] != views[0].facts(name)[1]:
                raise IncompatibleError(
                    f"The tensor {name!r} is {views[0].facts(name)[1]} in {views[0].model.name!r}"
                    f" and {view.facts(name)[1]} in {view.model.name!r}.",
                    "Merge layers of one shape.",
                )
