"""TIES: trim, elect a sign, merge what agrees; trimmed per tensor as in mergekit, or over the model as in the paper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import Field

from merge_backends.methods.base import TensorMethod, Weights
from merge_backends.methods.registry import method
from merge_backends.methods.weights import DensityPerExpert, TaskVectorParameters, spread

if TYPE_CHECKING:
    import torch


class TiesParameters(TaskVectorParameters):
    """Parameters of `ties`."""

    density: DensityPerExpert = Field((1.0,), description="share of each task vector that survives the trim")
    normalize: bool = Field(True, description="mean over the models that agree, instead of their sum")
    rescale: bool = Field(False, description="scale each trimmed task vector back to its L1 norm")
    trim_scope: Literal["tensor", "global"] = Field(
        "tensor", description="trim each tensor on its own (mergekit) or the whole model at once (paper)"
    )
    merge_func: Literal["mean", "sum"] | None = Field(None, description="overrides normalize: mean or sum")

    @property
    def takes_mean(self) -> bool:
        return self.normalize if self.merge_func is None else self.merge_func == "mean"


class GlobalTrim(NamedTuple):
    """What the trim over the whole model needs: one threshold per expert, and the sign where deltas cancel."""

    thresholds: tuple[float, ...]
    majority: float


@method("ties")
class Ties(TensorMethod[TiesParameters]):
    """theta = theta_0 + lambda * disjoint merge of the trimmed, sign-elected task vectors.

    Ref: TIES-Merging, arXiv:2306.01708.
    """

    parameters = TiesParameters
    needs_base = True

    def prepare(self, base: Weights | None, experts: Sequence[Weights], parameters: TiesParameters) -> Any:
        """Thresholds over the flattened models, for `trim_scope: global`; each tensor is read a few times."""
        if parameters.trim_scope == "tensor" or base is None:
            return None
        from merge_backends.methods.tensor_math import kept_count, magnitude_threshold, trim

        floats = [name for name, tensor in base.items() if tensor.is_floating_point()]
        total = sum(base[name].numel() for name in floats)
        densities = spread(parameters.density, len(experts), "density")
        weights = spread(parameters.weight, len(experts), "weight")
        thresholds = []
        for expert, density in zip(experts, densities, strict=True):

            def deltas(expert: Weights = expert) -> Any:
                return (expert[name].float() - base[name].float() for name in floats)

            kept = kept_count(density, total)
            thresholds.append(0.0 if density >= 1 else magnitude_threshold(deltas, kept))
        majority = 0.0
        for name in floats:
            summed = sum(
                weight * trim(expert[name].float() - base[name].float(), threshold)
                for expert, weight, threshold in zip(experts, weights, thresholds, strict=True)
            )
            majority += float(summed.sign().sum())
        return GlobalTrim(tuple(thresholds), 1.0 if majority >= 0 else -1.0)

    def merge_tensor(
        self,
        name: str,
        base: torch.Tensor | None,
        experts: Sequence[torch.Tensor],
        parameters: TiesParameters,
        *,
        seed: int = 0,
        state: Any = None,
    ) -> torch.Tensor:
        from merge_backends.methods import tensor_math

        assert base is not None
        densities = spread(parameters.density, len(experts), "density")
        thresholds, factors = [], []
        for number, (expert, density) in enumerate(zip(experts, densities, strict=True)):
            delta = tensor_math.task_vector(base, expert)
            threshold = tensor_math.density_threshold(delta, density) if state is None else state.thresholds[number]
            thresholds.append(threshold)
            trimmed = tensor_math.trim(delta, threshold) if parameters.rescale else delta
            factors.append(tensor_math.norm_ratio(trimmed, delta) if parameters.rescale else 1.0)
        weights = spread(parameters.weight, len(experts), "weight")
        shares = base.new_tensor(weights, dtype=tensor_math.working_dtype(base.dtype))
        bounds = shares.new_tensor(thresholds).unsqueeze(1)
        scales = (shares * shares.new_tensor(factors)).unsqueeze(1)
        when_zero = 1.0 if state is None else state.majority

        def change(deltas: torch.Tensor, part: slice) -> torch.Tensor:
            deltas *= (deltas.abs() >= bounds) * scales
            signs = tensor_math.elect_sign(deltas, when_zero=when_zero)
            return parameters.scale * tensor_math.disjoint_merge(deltas, shares, signs, mean=parameters.takes_mean)

        return tensor_math.change_in_chunks(base, experts, change)
