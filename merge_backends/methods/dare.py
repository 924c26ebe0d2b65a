"""DARE: drop most of each task vector at random and rescale the rest, then sum, or elect signs as TIES does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from merge_backends.methods.base import TensorMethod
from merge_backends.methods.registry import method
from merge_backends.methods.weights import DensityPerExpert, TaskVectorParameters, spread

if TYPE_CHECKING:
    import torch


class DareParameters(TaskVectorParameters):
    """Parameters of `dare_linear` and `dare_ties`."""

    density: DensityPerExpert = Field((1.0,), description="probability that a value stays: 1 - p of the paper")
    rescale: bool = Field(True, description="scale the rest up")
    rescale_norm: Literal["expected", "l1"] = Field(
        "expected", description="scale by 1 / density (paper) or back to the task vector's L1 norm (mergekit 0.1.5)"
    )


def dropped(
    name: str, base: torch.Tensor, experts: Sequence[torch.Tensor], parameters: DareParameters, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weighted task vectors after drop and rescale `(models, *shape)`, and the weights `(models,)`.

    Ref: DARE, arXiv:2311.03099, eq. 2 and 3.
    """
    from merge_backends.methods import tensor_math

    deltas = tensor_math.task_vectors(base, experts)
    densities = spread(parameters.density, len(experts), "density")
    draws = tensor_math.generators(name, experts, seed)
    for number, (density, generator) in enumerate(zip(densities, draws, strict=True)):
        kept = tensor_math.drop_at_random(deltas[number], density, generator)
        if parameters.rescale and parameters.rescale_norm == "l1":
            kept = tensor_math.rescale_to_norm(kept, deltas[number])
        elif parameters.rescale and 0 < density < 1:
            kept = kept / density
        deltas[number] = kept
    weights = deltas.new_tensor(spread(parameters.weight, len(experts), "weight"))
    deltas *= weights.reshape(-1, *[1] * base.dim())
    return deltas, weights


@method("dare_linear")
class DareLinear(TensorMethod[DareParameters]):
    """theta = theta_0 + lambda * sum of the dropped and rescaled task vectors."""

    parameters = DareParameters
    needs_base = True

    def merge_tensor(
        self,
        name: str,
        base: torch.Tensor | None,
        experts: Sequence[torch.Tensor],
        parameters: DareParameters,
        *,
        seed: int = 0,
        state: Any = None,
    ) -> torch.Tensor:
        assert base is not None
        deltas, weights = dropped(name, base, experts, parameters, seed)
        change = deltas.sum(dim=0)
        total = float(weights.sum())
        if parameters.normalize and abs(total) >= 1e-8:
            change /= total
        return (base.to(change.dtype) + parameters.scale * change).to(base.dtype)


@method("dare_ties")
class DareTies(TensorMethod[DareParameters]):
    """As `dare_linear`, but only what agrees with the elected sign is merged."""

    parameters = DareParameters
    needs_base = True

    def merge_tensor(
        self,
        name: str,
        base: torch.Tensor | None,
        experts: Sequence[torch.Tensor],
        parameters: DareParameters,
        *,
        seed: int = 0,
        state: Any = None,
    ) -> torch.Tensor:
        from merge_backends.methods.tensor_math import disjoint_merge, elect_sign

        assert base is not None
        deltas, weights = dropped(name, base, experts, parameters, seed)
        change = disjoint_merge(deltas, weights, elect_sign(deltas), mean=parameters.normalize)
        return (base.to(change.dtype) + parameters.scale * change).to(base.dtype)
