"""Pareto MoE (arXiv:2406.09770): gates that read a preference over experts; each preference is a dense model.

`model.mixture.state["pareto"]` holds the `ParetoWeights`; the model itself holds the weights last set.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from merge_backends.errors import MergeError, RecipeError
from merge_backends.moe.alignment import Family, Weights, aliases_of, fill, own_tensors
from merge_backends.moe.mixture import Mixture, mixture_of
from merge_backends.moe.parameters import ParetoParameters
from merge_backends.moe.structure import layer_stack, linear_sites


class ParetoGate(nn.Module):  # type: ignore[misc]
    """g(r): preference `(K,)` to weights of the task vectors `(K,)`: one linear map, or two and a ReLU of width 2K."""

    def __init__(self, experts: int, parameters: ParetoParameters, generator: torch.Generator) -> None:
        super().__init__()
        widths = [experts, 2 * experts, experts] if parameters.router_hidden_layers == 2 else [experts, experts]
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for before, after in itertools.pairwise(widths):
            self.weights.append(nn.Parameter(torch.empty(after, before).normal_(0.0, 0.01, generator=generator)))
            self.biases.append(nn.Parameter(torch.zeros(after)))
        if parameters.identity:
            self._pass_through(torch.eye(experts))
        else:
            nn.init.constant_(self.biases[-1], parameters.init_lambda)

    def forward(self, preference: Tensor) -> Tensor:
        """See the class."""
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            preference = torch.relu(weight @ preference + bias)
        result: Tensor = self.weights[-1] @ preference + self.biases[-1]
        return result

    def _pass_through(self, eye: Tensor) -> None:
        """r = ReLU(r) - ReLU(-r), so two maps can be the identity too."""
        with torch.no_grad():
            if len(self.weights) == 1:
                self.weights[0].copy_(eye)
            else:
                self.weights[0].copy_(torch.cat([eye, -eye]))
                self.weights[1].copy_(torch.cat([eye, -eye], dim=1))


class ParetoWeights(nn.Module):  # type: ignore[misc]
    """Base tensors, task vectors and gates of the gated tensors of a model.

    Args:
        blocks: by the name of each gated tensor, its gate's name.
        base, deltas: by the name of each gated tensor; deltas are `(experts, *shape)`.
        fixed: all other tensors of the model, the same for each preference.
    """

    def __init__(
        self,
        blocks: dict[str, str],
        base: dict[str, Tensor],
        deltas: dict[str, Tensor],
        fixed: dict[str, Tensor],
        parameters: ParetoParameters,
        *,
        seed: int,
    ) -> None:
        super().__init__()
        self.blocks = blocks
        self.parameters_read = parameters
        self.experts = next(iter(deltas.values())).shape[0]
        self.base = nn.ParameterDict({_key(name): _constant(tensor) for name, tensor in base.items()})
        self.deltas = nn.ParameterDict({_key(name): _constant(tensor) for name, tensor in deltas.items()})
        self.fixed = fixed
        generator = torch.Generator().manual_seed(seed)
        names = list(dict.fromkeys(blocks.values()))
        self.gates = nn.ModuleDict({_key(name): ParetoGate(self.experts, parameters, generator) for name in names})

    def forward(self, preference: Tensor, *, plain: bool = False) -> dict[str, Tensor]:
        """Gated tensors of one preference `(experts,)`, by name; differentiable in the gates.

        Args:
            plain: without the gates, as base + sum of preference times task vector.
        """
        shares = {name: preference if plain else gate(preference) for name, gate in self.gates.items()}
        merged = {}
        for name, block in self.blocks.items():
            base, deltas = self.base[_key(name)], self.deltas[_key(name)]
            share = shares[_key(block)].to(base.dtype)
            merged[name] = base + torch.tensordot(share, deltas, dims=1)
        return merged

    def deploy(self, preference: Sequence[float], *, exact: bool = False) -> dict[str, Tensor]:
        """All tensors of the dense model of one preference, copied, so that nothing of the mixture stays referenced.

        The preference snaps to the mixture's grid unless `exact`.
        """
        with torch.no_grad():
            point = normalised(preference, self.experts)
            point = point if exact else snap(point, self.parameters_read.grid)
            device = next(self.gates.parameters()).device
            gated = self(torch.tensor(point, device=device))
            return {**{name: tensor.detach().clone() for name, tensor in self.fixed.items()}, **gated}


def build(
    model: nn.Module,
    base: Weights,
    experts: Sequence[Weights],
    parameters: ParetoParameters,
    *,
    data: Any = None,
    seed: int = 0,
) -> nn.Module:
    """Fill the model with equal preferences for all experts; `set_preference` changes them, `train_front` the gates."""
    family = Family(model, base, experts)
    own = own_tensors(model)
    blocks = blocks_of(model, partial=parameters.partial)
    fill(model, lambda name: family.summed(name, parameters.init_lambda))
    weights = ParetoWeights(
        blocks,
        {name: family.base(name).to(own[name]) for name in blocks},
        {name: family.deltas(name).to(own[name]) for name in blocks},
        {name: tensor.detach() for name, tensor in own.items() if name not in blocks},
        parameters,
        seed=seed,
    )
    model.mixture = Mixture(
        "pareto", parameters, family.count, [], {"pareto": weights.to(next(model.parameters()).device)}
    )
    set_preference(model, [1 / family.count] * family.count)
    return model


def weights_of(model: nn.Module) -> ParetoWeights:
    """The gates and task vectors of a Pareto mixture.

    Raises:
        MergeError: the model is none.
    """
    weights = mixture_of(model).state.get("pareto")
    if not isinstance(weights, ParetoWeights):
        raise MergeError(f"a {mixture_of(model).method} mixture reads no preference", fix="Build a pareto mixture.")
    return weights


def set_preference(model: nn.Module, preference: Sequence[float], *, exact: bool = False) -> tuple[float, ...]:
    """Make the model the one of this preference, in place; gives the preference after snapping."""
    weights = weights_of(model)
    point = normalised(preference, weights.experts)
    point = point if exact else snap(point, weights.parameters_read.grid)
    dense = weights.deploy(point, exact=True)
    with torch.no_grad():
        for name, tensor in own_tensors(model).items():
            tensor.copy_(dense[name])
    return point


def deploy(model: nn.Module, preference: Sequence[float], *, exact: bool = False) -> dict[str, Tensor]:
    """The dense model of a preference as plain weights, under all names of the model's state (tied ones too)."""
    dense = weights_of(model).deploy(preference, exact=exact)
    return dense | {alias: dense[name] for alias, name in aliases_of(model).items()}


def normalised(preference: Sequence[float], experts: int) -> tuple[float, ...]:
    """A point of the simplex.

    Raises:
        RecipeError: wrong length, a negative or not finite entry, or all zero.
    """
    values = [float(value) for value in preference]
    if len(values) != experts or any(not math.isfinite(value) or value < 0 for value in values) or sum(values) <= 0:
        raise RecipeError(
            f"preference {values!r} does not fit {experts} experts",
            fix="Give one weight of at least 0 per expert, one of them above 0.",
        )
    return tuple(value / sum(values) for value in values)


def snap(preference: Sequence[float], grid: int) -> tuple[float, ...]:
    """Nearest point of the simplex whose entries are multiples of `1 / grid` (largest remainders, first ones win)."""
    scaled = [value * grid for value in preference]
    # The rounding error of 0.3 * 10 must not cost a step of the grid.
    floors = [math.floor(value + 1e-9) for value in scaled]
    order = sorted(range(len(scaled)), key=lambda index: (floors[index] - scaled[index], index))
    for index in order[: grid - sum(floors)]:
        floors[index] += 1
    return tuple(value / grid for value in floors)


def lattice(experts: int, grid: int) -> Iterator[tuple[float, ...]]:
    """All points of the snapped simplex: 11 for two experts and grid 10, 66 for three."""

    def parts(left: int, places: int) -> Iterator[tuple[int, ...]]:
        if places == 1:
            yield (left,)
            return
        for first in range(left, -1, -1):
            for others in parts(left - first, places - 1):
                yield (first, *others)

    for point in parts(grid, experts):
        yield tuple(value / grid for value in point)


def blocks_of(model: nn.Module, *, partial: bool) -> dict[str, str]:
    """The gate of each gated tensor: a layer's MLP; else also its attention, its norms, and all outside of layers."""
    prefix, _ = layer_stack(model)
    blocks = {
        f"{site.name}.{leaf}": f"{prefix}.{site.layer}.{site.part}"
        for site in linear_sites(model, parts=("mlp",) if partial else ("attention", "mlp"))
        for leaf in ("weight", "bias")
    }
    own = [name for name, tensor in own_tensors(model).items() if tensor.is_floating_point()]
    if partial:
        return {name: blocks[name] for name in own if name in blocks}
    found = {}
    for name in own:
        inside = name.removeprefix(f"{prefix}.").partition(".")[0] if name.startswith(f"{prefix}.") else ""
        found[name] = blocks.get(name, f"{prefix}.{inside}.rest" if inside else "outside")
    return found


def _key(name: str) -> str:
    """Torch forbids dots in the keys of its dictionaries."""
    return name.replace(".", "/")


def _constant(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.contiguous(), requires_grad=False)
