"""From the parameters of a recipe to those of a method, tensor by tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from merge_backends import methods
from merge_backends.errors import RecipeError, UnknownNameError
from merge_backends.layers import layer_of
from merge_backends.recipe import Recipe, Slice, Source
from merge_backends.settings_by_tensor import ByName, Scalar, first_of, resolve

PER_MODEL = ("weight", "density")
"""Parameters that each model may have its own of; all others hold for the whole slice."""
IGNORED = {"task_arithmetic": ("density", "rescale"), "linear": ("int8_mask",), "slerp": ("int8_mask",)}
"""What mergekit accepts for a method and does not use."""


def fields_of(parameters: type[BaseModel]) -> dict[str, str]:
    """Field by the name that recipes use (`lambda` for `scale`)."""
    return {field.alias or name: name for name, field in parameters.model_fields.items()}


def check_names(recipe: Recipe, parameters: type[BaseModel]) -> tuple[str, ...]:
    """Refuses parameters that the method has not; notes on those that have no effect.

    Raises:
        UnknownNameError: naming the near ones.
        RecipeError: a parameter of the whole slice was given to one of several models.
    """
    known = fields_of(parameters)
    ignored = IGNORED.get(recipe.method, ())
    notes = []
    own = [source.parameters for part in recipe.slices for source in part.sources]
    for given in [recipe.parameters, recipe.module, *(part.parameters for part in recipe.slices), *own]:
        for name in given:
            if name in ignored and name not in known:
                notes.append(f"{name!r} has no effect in {recipe.method!r}.")
            elif name not in known:
                raise UnknownNameError(f"parameter of merge method {recipe.method!r}", name, known)
    if any(len(part.sources) > 1 for part in recipe.slices):
        for name in {name for given in own for name in given} - {*PER_MODEL, *ignored}:
            raise RecipeError(
                f"The parameter {name!r} of {recipe.method!r} holds for all models, and is given to one.",
                "Move it to the recipe's `parameters`.",
            )
    return tuple(dict.fromkeys(notes))


class Resolver:
    """Parameters of a method for each tensor of one slice. Equal values are checked once."""

    def __init__(self, recipe: Recipe, part: Slice, method: Any, experts: Sequence[Source | None]) -> None:
        """`experts`: the sources in the order in which the method gets them; None for a base without entries."""
        self._recipe = recipe
        self._part = part
        self._method = method
        self._experts = experts
        self._known = fields_of(method.parameters)
        self._checked: dict[tuple[tuple[str, Any], ...], BaseModel] = {}
        self.values: dict[str, tuple[tuple[str, Any], ...]] = {}

    def __call__(self, name: str, depth: float) -> BaseModel:
        """Parameters for the tensor of this name in the result.

        Args:
            depth: 0 for the first layer of the slice and for what is in no layer, 1 for the last layer.
        """
        given = tuple((key, value) for key in self._known if (value := self._value(key, name, depth)) is not None)
        self.values[name] = given
        if given not in self._checked:
            owner = f"merge method {self._recipe.method!r}"
            self._checked[given] = methods.parse_parameters(self._method.parameters, dict(given), owner=owner)
        return self._checked[given]

    def _value(self, key: str, name: str, depth: float) -> Scalar | tuple[Scalar, ...] | None:
        shared = (self._part.parameters, self._recipe.module, self._recipe.parameters)
        if key not in PER_MODEL:
            single = [self._experts[0].parameters] if len(self._experts) == 1 and self._experts[0] else []
            return first_of(key, [*single, *shared], name, depth)
        found = [
            first_of(key, [source.parameters if source else None, *shared], name, depth) for source in self._experts
        ]
        if all(value is None for value in found):
            return None
        default = getattr(self._method.parameters.model_fields[self._known[key]], "default", (1.0,))[0]
        return tuple(default if value is None else value for value in found)


def depth_in_slice(name: str, first: int, layers: int) -> float:
    """Where a tensor stands in its slice: mergekit's `t`. A slice of one layer is at 1, what is in no layer at 0."""
    layer = layer_of(name)
    if layer is None:
        return 0.0
    return 1.0 if layers <= 1 else (layer - first) / (layers - 1)


def whole_model_settings(recipe: Recipe, parameters: type[BaseModel]) -> BaseModel:
    """Parameters of a method that takes whole models: no filters, no gradients; lists are handed over as lists."""
    known = fields_of(parameters)
    part = recipe.slices[0]
    given: dict[str, Any] = {}
    for source in (recipe.parameters, recipe.module, part.parameters):
        for name, value in source.items():
            if isinstance(value, ByName) or (isinstance(value, tuple) and isinstance(value[0], ByName)):
                raise RecipeError(f"The parameter {name!r} of {recipe.method!r} takes no filters.", "Give one value.")
            given[name] = list(value) if isinstance(value, tuple) else resolve(value, "", 0.0)
    experts = [source for source in part.sources if source.model != recipe.base_model]
    for name in PER_MODEL:
        own = [source.parameters.get(name) for source in experts]
        if name in known and any(value is not None for value in own):
            fallback = given.get(name, 1.0)
            given[name] = [fallback if value is None else value for value in own]
    return methods.parse_parameters(parameters, given, owner=f"merge method {recipe.method!r}")


def as_json(parameters: BaseModel) -> Mapping[str, Any]:
    """Values as they go into the recipe's hash and the lineage."""
    return parameters.model_dump(mode="json", by_alias=True)
