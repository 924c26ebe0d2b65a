"""Merges made on request: weights or preferences on a grid, results kept as overlays on their family's base."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager

from merge_backends.cache import MergeCache
from merge_backends.engine.errors import EngineError, invalid
from merge_backends.engine.families import Family, Merged
from merge_backends.errors import RecipeError, UnknownNameError
from merge_backends.preference import MergeOffer, snap_to_simplex


class Merges:
    """All families of an engine. Thread-safe.

    Args:
        families: by the name before `/merge`.
        budget: bytes of merges that are kept.
    """

    def __init__(self, families: Mapping[str, Family], *, budget: int) -> None:
        self._families = dict(families)
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
        expected = family.open().nbytes
        return self.cache.use(canonical, lambda: family.build(canonical, weights), expected=expected)
