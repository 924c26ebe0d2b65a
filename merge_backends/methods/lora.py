"""A set of LoRA adapters merged exactly: the sum of their products, never their factors apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

from pydantic import Field
from torch import Tensor

from merge_backends.adapters import LoraAdapter, check_fit, combine
from merge_backends.errors import RecipeError
from merge_backends.methods.base import MergeMethod, Parameters, Weights
from merge_backends.methods.registry import method
from merge_backends.methods.weights import PerExpert, spread


class LoraParameters(Parameters):
    """Settings of a LoRA set."""

    weight: PerExpert = Field((1.0,), description="factor on each adapter's change; one for all, or one each")
    scale: float = Field(1.0, alias="lambda", description="factor on the whole sum")
    rank: int | None = Field(None, ge=1, description="cut the sum to this rank (the only loss there is)")


@method("lora")
class LoraSet(MergeMethod[LoraParameters]):
    """theta = theta_0 + lambda * sum of w_i s_i B_i A_i, for adapters of any ranks and scales."""

    parameters = LoraParameters
    needs_base = True

    def merge(
        self,
        base: Weights | None,
        experts: Sequence[Weights],
        parameters: LoraParameters,
        *,
        seed: int = 0,
        data: Any = None,
    ) -> Iterator[tuple[str, Tensor]]:
        """Yields the dense model; `experts` are `LoraAdapter`s."""
        if base is None:
            raise RecipeError("The merge method 'lora' needs a base model.", "Set `base_model`.")
        merged = self.adapter(experts, parameters)
        check_fit(base, merged)
        for name in base:
            value = base[name]
            if name in merged.targets:
                yield name, (value.float() + merged[name]).to(value.dtype)
            else:
                yield name, value.clone()

    def adapter(self, experts: Sequence[Weights], parameters: LoraParameters) -> LoraAdapter:
        """The same merge as one LoRA adapter, for servers that load adapters.

        Raises:
            RecipeError: an expert is not an adapter.
        """
        if not experts:
            raise RecipeError("The merge method 'lora' needs at least one adapter.", "Add it to `models`.")
        for number, expert in enumerate(experts, start=1):
            if not isinstance(expert, LoraAdapter):
                raise RecipeError(
                    f"Model {number} of the LoRA set is not an adapter.", "Give folders with an adapter_config.json."
                )
        weights = [weight * parameters.scale for weight in spread(parameters.weight, len(experts), "weight")]
        return combine(cast(Sequence[LoraAdapter], experts), weights, parameters.rank)
