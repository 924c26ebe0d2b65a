"""One model as it is, for stacks of layers from several models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from merge_backends.errors import RecipeError
from merge_backends.methods.base import Parameters, TensorMethod, Weights
from merge_backends.methods.registry import method

if TYPE_CHECKING:
    import torch


class PassthroughParameters(Parameters):
    """Parameters of `passthrough`."""

    scale: float | None = Field(None, description="factor of the tensors; none leaves them as they are")


@method("passthrough")
class Passthrough(TensorMethod[PassthroughParameters]):
    """The tensors of exactly one model, times `scale`. A base takes no part."""

    parameters = PassthroughParameters

    def require(self, base: Weights | None, experts: Sequence[Weights], data: Any = None) -> None:
        super().require(base, experts, data)
        if len(experts) != 1:
            raise RecipeError(
                f"The merge method 'passthrough' takes one model per slice and was given {len(experts)}.",
                "Give each slice one source, or use 'linear'.",
            )

    def merge_tensor(
        self,
        name: str,
        base: torch.Tensor | None,
        experts: Sequence[torch.Tensor],
        parameters: PassthroughParameters,
        *,
        seed: int = 0,
        state: Any = None,
    ) -> torch.Tensor:
        from merge_backends.methods.tensor_math import weighted_sum

        return weighted_sum(experts, [1.0 if parameters.scale is None else parameters.scale])
