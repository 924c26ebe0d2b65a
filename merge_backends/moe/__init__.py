"""Registry of mixture methods, built by name: `build("smile", model, base, experts, {"k": 32})`.

A record names its module, which is imported (with torch) when the method is chosen.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from merge_backends.errors import RecipeError, UnknownNameError
from merge_backends.moe.parameters import (
    EWEMoEParameters,
    MixtureParameters,
    ParetoParameters,
    SMILEParameters,
    WEMoEParameters,
)

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class MixtureMethod:
    """One way to make a mixture. `module` has `build(model, base, experts, parameters, *, data, seed)`."""

    name: str
    summary: str
    paper: str
    parameters: type[MixtureParameters]
    module: str
    needs_data: bool = False

    def read_parameters(self, given: MixtureParameters | Mapping[str, Any] | None) -> MixtureParameters:
        """Checked settings.

        Raises:
            UnknownNameError: a setting that the method does not have.
            RecipeError: a value out of range.
        """
        if isinstance(given, self.parameters):
            return given
        values = dict(given.model_dump() if isinstance(given, MixtureParameters) else given or {})
        for name in values:
            if name not in self.parameters.model_fields:
                raise UnknownNameError(f"setting of {self.name}", name, self.parameters.model_fields)
        try:
            return self.parameters.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            raise RecipeError(f"{self.name}.{key} is {first['input']!r}: {first['msg']}") from error


METHODS: dict[str, MixtureMethod] = {}


def register(method: MixtureMethod) -> MixtureMethod:
    """Add a method; a name that is taken is a mistake in the program."""
    if method.name in METHODS:
        raise ValueError(f"two mixture methods are named {method.name!r}")
    METHODS[method.name] = method
    return method


def find(name: str) -> MixtureMethod:
    """The method of this name; UnknownNameError names the near ones."""
    if name not in METHODS:
        raise UnknownNameError("mixture method", name, METHODS)
    return METHODS[name]


def build(
    name: str,
    model: nn.Module,
    base: Mapping[str, Tensor],
    experts: Sequence[Mapping[str, Tensor]],
    parameters: MixtureParameters | Mapping[str, Any] | None = None,
    *,
    data: Any = None,
    seed: int = 0,
) -> nn.Module:
    """Turn a transformers model into a mixture of `experts`, in place; `model.mixture` then tells what it is.

    Args:
        model: a BERT-, GPT-2-, Llama- or Qwen-shaped model; what its weights are does not matter.
        base: the weights all experts were tuned from.
        parameters: the method's settings, or a mapping of them.
    """
    method = find(name)
    checked = method.read_parameters(parameters)
    built: nn.Module = importlib.import_module(method.module).build(model, base, experts, checked, data=data, seed=seed)
    return built


register(
    MixtureMethod(
        "wemoe",
        "merges every MLP per input by a small router; all else is task arithmetic",
        "Weight-Ensembling MoE, arXiv:2402.00433",
        WEMoEParameters,
        "merge_backends.moe.wemoe",
        needs_data=True,
    )
)
register(
    MixtureMethod(
        "e_wemoe",
        "WEMoE with one router and task vectors pruned to a tenth, stored sparse",
        "Efficient WEMoE, arXiv:2410.21804",
        EWEMoEParameters,
        "merge_backends.moe.wemoe",
        needs_data=True,
    )
)
register(
    MixtureMethod(
        "smile",
        "low-rank experts beside the base, chosen per token; no data, no training",
        "SMILE, arXiv:2408.10174",
        SMILEParameters,
        "merge_backends.moe.smile",
    )
)
register(
    MixtureMethod(
        "pareto",
        "a preference over the tasks gives the weights; each preference is a plain dense model",
        "Pareto MoE, arXiv:2406.09770",
        ParetoParameters,
        "merge_backends.moe.pareto",
        needs_data=True,
    )
)
