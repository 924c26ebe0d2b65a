"""The registry of baseline routers: a record per method, one decorator, one protocol.

A baseline is fitted on `Outcomes` and predicts P(correct) for prompt vectors and models known at fit time. Missing
outcomes (NaN) are data that were not measured, never failures.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, Self, runtime_checkable

from capability_encoder.training.data import FloatArray, Outcomes

#: What a method may look at when it predicts: the vector only, or (for bounds) the true task, or the outcomes.
Sees = Literal["vector", "task", "outcomes"]
Value = float | int | str | bool


class UnknownModelError(LookupError):
    """A prediction was asked for a model that has no column in the training outcomes."""


@runtime_checkable
class Baseline(Protocol):
    """A router fitted on recorded outcomes."""

    def fit(self, train: Outcomes, seed: int) -> Self:
        """Learn from `train`; the same data and seed give the same predictions."""
        ...

    def predict(self, vectors: FloatArray, models: Sequence[str]) -> FloatArray:
        """P(correct) `[B, M]` in 0..1 for vectors `[B, D]` and model names.

        Raises:
            UnknownModelError: a model without a column in the training outcomes.
        """
        ...


@runtime_checkable
class InformedBaseline(Protocol):
    """A bound: predicts with knowledge that no router has (see `Sees`)."""

    def predict_informed(self, prompts: Outcomes, models: Sequence[str]) -> FloatArray:
        """P(correct) `[B, M]` using the true tasks or outcomes of `prompts`."""
        ...


@dataclass(frozen=True, slots=True)
class BaselineEntry:
    """One method of the registry.

    Attributes:
        summary: one line, shown in reports.
        paper: where the method comes from.
        sees: bounds see the true task or the outcomes; all others the vector only.
        grid: settings to choose from on dev, as keyword arguments of `make`; the first is the default.
        seeded: predictions depend on the seed.
    """

    name: str
    summary: str
    make: Callable[..., Baseline]
    paper: str | None = None
    sees: Sees = "vector"
    grid: tuple[Mapping[str, Value], ...] = field(default=({},))
    seeded: bool = False


_ENTRIES: dict[str, BaselineEntry] = {}


def baseline(
    name: str,
    *,
    summary: str,
    paper: str | None = None,
    sees: Sees = "vector",
    grid: Sequence[Mapping[str, Value]] = ({},),
    seeded: bool = False,
) -> Callable[[Any], Any]:
    """Register a class (or a function that makes a baseline) under `name`; see `BaselineEntry` for the fields.

    Raises:
        ValueError: the name is taken.
    """

    def register(make: Any) -> Any:
        if name in _ENTRIES:
            raise ValueError(f"baseline {name!r} is registered twice: choose another name")
        _ENTRIES[name] = BaselineEntry(
            name=name, summary=summary, make=make, paper=paper, sees=sees, grid=tuple(grid), seeded=seeded
        )
        return make

    return register


def entries() -> tuple[BaselineEntry, ...]:
    """All methods, in the order of registration."""
    return tuple(_ENTRIES.values())


def entry(name: str) -> BaselineEntry:
    """The method called `name`.

    Raises:
        LookupError: no such method; the message names the near ones.
    """
    if name not in _ENTRIES:
        near = difflib.get_close_matches(name, _ENTRIES, n=3) or sorted(_ENTRIES)
        raise LookupError(f"no baseline {name!r}; did you mean {', '.join(near)}?")
    return _ENTRIES[name]


def predictions(method: Baseline, prompts: Outcomes, models: Sequence[str]) -> FloatArray:
    """P(correct) `[B, M]` of a fitted method, bounds included: the one call an evaluation needs."""
    if isinstance(method, InformedBaseline):
        return method.predict_informed(prompts, models)
    return method.predict(prompts.vectors, models)
