"""The one dict of merge methods: filled by `@method`, read by name, closed to duplicates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from merge_backends.errors import RecipeError, UnknownNameError
from merge_backends.methods.base import MergeMethod
from merge_backends.methods.catalogue import CATALOGUE, Listing

ENTRY_POINT_GROUP = "orbweaver.merge_methods"
DEFAULTS = {"needs_base": False, "needs_data": False, "order_matters": False}
_METHODS: dict[str, MergeMethod[Any]] = {}
_Method = TypeVar("_Method", bound=type)
_Model = TypeVar("_Model", bound=BaseModel)


def method(name: str) -> Callable[[_Method], _Method]:
    """Class decorator that registers a method under `name`; summary and paper come from the catalogue if not given.

    Raises:
        ValueError: if the name is taken, or if there is no summary.
    """

    def register(cls: _Method) -> _Method:
        if name in _METHODS:
            raise ValueError(f"the merge method {name!r} is registered twice")
        listing = CATALOGUE.get(name, Listing(cls.__module__, "", ""))
        own = vars(cls)
        facts = {"name": name, "summary": own.get("summary", listing.summary), "paper": own.get("paper", listing.paper)}
        for attribute, value in {**DEFAULTS, **facts}.items():
            if attribute in facts or not hasattr(cls, attribute):
                setattr(cls, attribute, value)
        if not facts["summary"]:
            raise ValueError(f"the merge method {name!r} has no summary")
        _METHODS[name] = cls()
        return cls

    return register


def names() -> list[str]:
    """Every method that can be asked for, sorted; imports none of them."""
    return sorted({*CATALOGUE, *_METHODS, *(point.name for point in _outside())})


def listings() -> dict[str, Listing]:
    """Summary and paper of the built-in methods and of those already loaded; imports none."""
    loaded = {name: Listing(type(found).__module__, found.summary, found.paper) for name, found in _METHODS.items()}
    return dict(sorted({**CATALOGUE, **loaded}.items()))


def entry(name: str) -> MergeMethod[Any]:
    """The method of this name, imported now if it was not yet.

    Raises:
        UnknownNameError: naming what is near.
    """
    if name not in _METHODS:
        if name in CATALOGUE:
            _import(CATALOGUE[name].module, name)
        else:
            for point in _outside():
                if point.name == name:
                    point.load()
    if name not in _METHODS:
        raise UnknownNameError("merge method", name, names())
    return _METHODS[name]


def parse_parameters(model: type[_Model], given: Mapping[str, Any], *, owner: str) -> _Model:
    """`given` checked against `model`.

    Args:
        owner: what the parameters belong to, as in "merge method 'ties'"; stands in the message.

    Raises:
        UnknownNameError: for a parameter that is not there, naming what is near.
        RecipeError: for a value that is refused.
    """
    known = {field.alias or name for name, field in model.model_fields.items()}
    for name in given:
        if name not in known and name not in model.model_fields:
            raise UnknownNameError(f"parameter of {owner}", str(name), known)
    try:
        return model.model_validate(dict(given))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "parameters"
        reason = first["msg"].removeprefix("Value error, ")
        raise RecipeError(f"Parameter {where!r} of {owner} is refused: {reason} (got {first['input']!r}).") from None


def _import(module: str, name: str) -> None:
    try:
        import_module(module)
    except ModuleNotFoundError as error:
        raise RecipeError(
            f"The merge method {name!r} cannot be loaded: {error.name} is not installed.",
            'Install the merging extra: pip install "orbweaver-gateway[merge]".',
        ) from error


def _outside() -> Any:
    return entry_points(group=ENTRY_POINT_GROUP)
