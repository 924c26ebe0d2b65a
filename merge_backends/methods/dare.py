"""DARE: drop most of each task vector at random and rescale the rest, then sum, or elect signs as TIES does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


def merge_dropped(
    name: str,
    base: torch.Tensor,
    experts: Sequence[torch.Tensor],
    parameters: DareParameters,
    seed: int,
    mix: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """The base plus what `mix` makes of the dropped, rescaled and weighted task vectors.

    Args:
        mix: of task vectors `(models, values)` and weights `(models,)`.

    Ref: DARE, arXiv:2311.03099, eq. 2 and 3.
    """
    import torch

    from merge_backends.methods import tensor_math

    densities = spread(parameters.density, len(experts), "density")
    draws = tensor_math.generators(name, experts, seed)
    kept, factors = [], []
    for expert, density, generator in zip(experts, densities, draws, strict=True):
        mask = tensor_math.keep_at_random(base.numel(), density, generator).to(base.device)
        kept.append(mask)
        if parameters.rescale and parameters.rescale_norm == "l1":
            delta = tensor_math.task_vector(base, expert).reshape(-1)
            factors.append(tensor_math.norm_ratio(delta * mask, delta))
        else:
            factors.append(1 / density if parameters.rescale and density > 0 else 1.0)
    weights = spread(parameters.weight, len(experts), "weight")
    shares = base.new_tensor(weights, dtype=tensor_math.working_dtype(base.dtype))
    scales = (shares * shares.new_tensor(factors)).unsqueeze(1)

    def change(deltas: torch.Tensor, part: slice) -> torch.Tensor:
        deltas *= torch.stack([mask[part] for mask in kept]) * scales
        return parameters.scale * mix(deltas, shares)

    return tensor_math.change_in_chunks(base, experts, change)


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

        def mix(deltas: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
            total = float(weights.sum())
            summed = deltas.sum(dim=0)
            return summed / total if parameters.normalize and abs(total) >= 1e-8 else summed

        return merge_dropped(name, base, experts, parameters, seed, mix)


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

        def mix(deltas: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
            return disjoint_merge(deltas, weights, elect_sign(deltas), mean=parameters.normalize)

        return merge_dropped(name, base, experts, parameters, seed, mix)
