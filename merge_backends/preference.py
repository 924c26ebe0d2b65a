"""Merges asked for by name: `zoo/merge:skill-a=0.7,skill-b=0.3`. Declared experts and weights on a grid only."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from merge_backends.errors import RecipeError, UnknownNameError

_NAME = re.compile(r"^(?P<family>[^:]+?)/merge:(?P<parts>.*)$")
_NUMBER = re.compile(r"^(\d+(\.\d*)?|\.\d+)$")


@dataclass(frozen=True, slots=True)
class MergeOffer:
    """What clients may ask to be merged. The number of distinct merges is bounded by the grid.

    Args:
        family: the name before `/merge:`.
        experts: the names that may be weighted, in the order in which they are merged.
        grid: weights are multiples of 1 / grid.
        largest: no weight is above this.
        at_once: experts with a weight above zero at most.
        sums_to_one: weights are a preference: they are shared out so that they add up to one.
    """

    family: str
    experts: tuple[str, ...]
    grid: int = 10
    largest: float = 1.0
    at_once: int = 3
    sums_to_one: bool = False

    def parse(self, name: str) -> dict[str, float] | None:
        """Weights by expert of a model name; None if the name is not of this family's merges.

        Raises:
            RecipeError, UnknownNameError: see `weights`.
        """
        found = _NAME.match(name)
        if found is None or found["family"] != self.family:
            return None
        given: dict[str, float] = {}
        for part in found["parts"].split(","):
            expert, sign, number = (piece.strip() for piece in part.partition("="))
            if not sign or not _NUMBER.match(number) or not expert:
                raise RecipeError(
                    f"{part!r} in the model name {name!r} is no weight.",
                    f"Write {self.family}/merge:{self.experts[0]}=0.7.",
                )
            if expert in given:
                raise RecipeError(f"The model name {name!r} weighs {expert!r} twice.", "Name each expert once.")
            given[expert] = float(number)
        return self.weights(given)

    def weights(self, given: Mapping[str, float]) -> dict[str, float]:
        """The weights as they will be used: on the grid, zeros dropped, in the order of the offer.

        Raises:
            UnknownNameError: an expert that is not offered.
            RecipeError: a weight out of range, nothing left, or too many experts.
        """
        for expert, value in given.items():
            if expert not in self.experts:
                raise UnknownNameError(f"expert of {self.family!r}", expert, self.experts)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= self.largest:
                raise RecipeError(f"The weight of {expert!r} is {value!r}.", f"Give one from 0 to {self.largest:g}.")
        if self.sums_to_one:
            shared = snap_to_simplex({expert: given.get(expert, 0.0) for expert in self.experts}, self.grid)
            return {expert: weight for expert, weight in shared.items() if weight > 0}
        snapped = {expert: round(given.get(expert, 0.0) * self.grid) / self.grid for expert in self.experts}
        kept = {expert: weight for expert, weight in snapped.items() if weight > 0}
        if not kept:
            raise RecipeError("All weights are zero.", f"Give at least one of {', '.join(self.experts)} a weight.")
        if len(kept) > self.at_once:
            raise RecipeError(f"{len(kept)} experts have a weight.", f"Merge at most {self.at_once} at once.")
        return kept

    def canonical(self, weights: Mapping[str, float]) -> str:
        """The one name of a merge: what caches and logs are keyed by."""
        kept = self.weights(weights)
        return f"{self.family}/merge:" + ",".join(f"{expert}={weight:g}" for expert, weight in kept.items())


def snap_to_simplex(preference: Mapping[str, float], grid: int = 10) -> dict[str, float]:
    """A preference over tasks as multiples of 1 / grid that add up to 1: rounded down, the rest to the largest remains.

    Raises:
        RecipeError: a negative or endless number, or all zero.
    """
    total = sum(preference.values())
    if not preference or any(not math.isfinite(value) or value < 0 for value in preference.values()) or total <= 0:
        raise RecipeError(f"The preference {dict(preference)!r} is no preference.", "Give numbers from 0, not all 0.")
    exact = {task: value / total * grid for task, value in preference.items()}
    whole = {task: math.floor(value + 1e-9) for task, value in exact.items()}
    left = grid - sum(whole.values())
    for task in sorted(exact, key=lambda task: (whole[task] - exact[task], task))[:left]:
        whole[task] += 1
    return {task: count / grid for task, count in whole.items()}
