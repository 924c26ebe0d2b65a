"""A parameter as mergekit's recipes may give it: one value, a gradient over depth, or values by tensor name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from merge_backends.errors import RecipeError

Scalar = bool | int | float | str


class ByName(BaseModel):
    """A value for the tensors whose name holds `filter`; none (or `*`) means all."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: Scalar | tuple[Scalar, ...]
    filter: str | None = None

    def applies_to(self, tensor_name: str) -> bool:
        return self.filter in (None, "*") or str(self.filter) in tensor_name


Setting = Scalar | ByName | tuple[Scalar, ...] | tuple[ByName, ...]
Settings = Mapping[str, Setting]


def resolve(setting: Setting, tensor_name: str, depth: float) -> Scalar | None:
    """The value for one tensor; None where no filter applies.

    Args:
        depth: 0 for the first layer, 1 for the last. A gradient of numbers is interpolated at it, one of words or
            truth values steps.
    """
    if isinstance(setting, ByName):
        setting = (setting,)
    if not isinstance(setting, tuple):
        return _number(setting)
    for part in setting:
        if isinstance(part, ByName):
            if part.applies_to(tensor_name):
                return resolve(part.value, tensor_name, depth)
        else:
            break
    else:
        return None
    values = [_number(part) for part in setting if not isinstance(part, ByName)]
    if any(isinstance(value, bool | str) for value in values):
        return values[int(depth * (len(values) - 1))]
    numbers = [float(value) for value in values]
    place = depth * (len(numbers) - 1)
    low = int(place)
    high = min(len(numbers) - 1, low + 1)
    return (1 - (place - low)) * numbers[low] + (place - low) * numbers[high]


def first_of(name: str, sources: Iterable[Settings | None], tensor_name: str, depth: float) -> Scalar | None:
    """The value of the parameter `name` in the first source that has one for this tensor."""
    for source in sources:
        if source and name in source:
            value = resolve(source[name], tensor_name, depth)
            if value is not None:
                return value
    return None


def read_settings(raw: Any, where: str) -> dict[str, Setting]:
    """`parameters` of a recipe, checked.

    Raises:
        RecipeError: for what is neither a value, a list of values, nor a list of {value, filter}.
    """
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise RecipeError(f"`{where}` must be a mapping of parameter names to values, and is {raw!r}.")
    return {str(name): _read(value, f"{where}.{name}") for name, value in raw.items()}


def _read(value: Any, where: str) -> Setting:
    if isinstance(value, Scalar):
        return value
    if isinstance(value, dict):
        return _by_name(value, where)
    if isinstance(value, list | tuple) and value:
        if all(isinstance(part, Scalar) for part in value):
            return tuple(value)
        if all(isinstance(part, dict) for part in value):
            return tuple(_by_name(part, where) for part in value)
    raise RecipeError(
        f"`{where}` is {value!r}.", "Give a value, a list of values over depth, or a list of {filter, value}."
    )


def _by_name(value: dict[str, Any], where: str) -> ByName:
    strange = sorted(set(value) - {"value", "filter"})
    inner = value.get("value")
    if strange or not (isinstance(inner, Scalar) or (isinstance(inner, list) and inner)):
        raise RecipeError(f"`{where}` holds {value!r}.", "Give {filter: part of a tensor's name, value: number}.")
    if isinstance(inner, list) and not all(isinstance(part, Scalar) for part in inner):
        raise RecipeError(f"`{where}` holds {inner!r}.", "A list over depth holds plain values.")
    chosen = value.get("filter")
    return ByName(
        value=tuple(inner) if isinstance(inner, list) else inner, filter=None if chosen is None else str(chosen)
    )


def _number(value: Scalar) -> Scalar:
    """YAML reads 1e-3 as a word; such words are numbers here, as in mergekit."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value
