"""Weighted mean of models, base or not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from merge_backends.errors import RecipeError
from merge_backends.methods.base import Parameters, TensorMethod
from merge_backends.methods.registry import method
from merge_backends.methods.weights import PerExpert, spread

if TYPE_CHECKING:
    import torch


class LinearParameters(Parameters):
    """Parameters of `linear`."""

    weight: PerExpert = Field((1.0,), description="share of each model; one number or one per model")
    normalize: bool = Field(True, description="divide by the sum of the weights")


@method("linear")
class Linear(TensorMethod[LinearParameters]):
    """theta = sum of w_i theta_i, over the sum of the w_i where normalized. The base takes no part.

    Ref: Model soups, arXiv:2203.05482.
    """

    parameters = LinearParameters

    def merge_tensor(
        self,
        name: str,
        base: torch.Tensor | None,
        experts: Sequence[torch.Tensor],
        parameters: LinearParameters,
        *,
        seed: int = 0,
        state: Any = None,
    ) -> torch.Tensor:
        from merge_backends.methods.tensor_math import weighted_sum

        weights = spread(parameters.weight, len(experts), "weight")
        total = sum(weights) if parameters.normalize else 1.0
        if abs(total) < 1e-8:
            raise RecipeError(f"The weights of {name!r} add up to {total:g}.", "Change them, or set normalize: false.")
        return weighted_sum(experts, [weight / total for weight in weights])
