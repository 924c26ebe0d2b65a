"""Parameters that several static methods share: one number per expert, and what follows from them."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from merge_backends.errors import RecipeError
from merge_backends.methods.base import Parameters


def _as_tuple(value: object) -> object:
    return (value,) if isinstance(value, int | float) and not isinstance(value, bool) else value


PerExpert = Annotated[tuple[float, ...], BeforeValidator(_as_tuple), Field(min_length=1)]
"""One number per expert, in their order; a single number holds for all."""
Density = Annotated[float, Field(ge=0, le=1)]
DensityPerExpert = Annotated[tuple[Density, ...], BeforeValidator(_as_tuple), Field(min_length=1)]


def spread(values: tuple[float, ...], count: int, name: str) -> tuple[float, ...]:
    """`values` for `count` experts.

    Raises:
        RecipeError: if there are neither one nor `count` values.
    """
    if len(values) == 1:
        return values * count
    if len(values) != count:
        raise RecipeError(f"Parameter {name!r} has {len(values)} values for {count} models.", "Give one per model.")
    return values


class TaskVectorParameters(Parameters):
    """What the methods on task vectors have in common; names and defaults are those of mergekit."""

    weight: PerExpert = Field((1.0,), description="share of each task vector; one number or one per expert")
    scale: float = Field(1.0, alias="lambda", description="factor of the merged task vector (lambda)")
    normalize: bool = Field(False, description="divide by the sum of the weights")
    int8_mask: bool = Field(False, description="accepted for mergekit's sake; changes nothing")
