"""Spherical interpolation between two models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from merge_backends.errors import RecipeError
from merge_backends.methods.base import Parameters, TensorMethod, Weights
from merge_backends.methods.registry import method

if TYPE_CHECKING:
    import torch


class SlerpParameters(Parameters):
    """Parameters of `slerp`."""

    t: float = Field(ge=0, le=1, description="0 gives the base (or the first model), 1 the other")


@method("slerp")
class Slerp(TensorMethod[SlerpParameters]):
    """The arc from the base to one other model, or from the first to the second where there is no base."""

    parameters = SlerpParameters
    order_matters = True

    def require(self, base: Weights | None, experts: Sequence[Weights], data: Any = None) -> None:
        super().require(base, experts, data)
        count = len(experts) + (base is not None)
        if count != 2:
            raise RecipeError(
                f"The merge method 'slerp' takes exactly two models, base included, and was given {count}.",
                "Use 'linear' for more.",
            )

    def merge_tensor(
        self,
        name: str,
        base: torch.Tensor | None,
        experts: Sequence[torch.Tensor],
        parameters: SlerpParameters,
        *,
        seed: int = 0,
        state: Any = None,
    ) -> torch.Tensor:
        from merge_backends.methods.tensor_math import slerp

        first, second = experts if base is None else (base, *experts)
        return slerp(first, second, parameters.t)
