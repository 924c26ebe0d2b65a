"""WEMoE (arXiv:2402.00433) and, with pruned sparse task vectors and one router, E-WEMoE (arXiv:2410.21804)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from merge_backends.moe.alignment import Family, Weights, fill
from merge_backends.moe.gates import watch
from merge_backends.moe.mixed import LayerGate, MixedLinear, Router
from merge_backends.moe.mixture import Mixture, mixture_of
from merge_backends.moe.parameters import EWEMoEParameters, WEMoEParameters
from merge_backends.moe.structure import Site, backbone, linear_sites, replace_module
from merge_backends.moe.task_vectors import DenseTaskVectors, SparseTaskVectors, TaskVectors, as_layer_sees, prune


def build(
    model: nn.Module,
    base: Weights,
    experts: Sequence[Weights],
    parameters: WEMoEParameters,
    *,
    data: Any = None,
    seed: int = 0,
) -> nn.Module:
    """Replace the linear maps of every layer's MLP (and attention where asked); all else becomes task arithmetic.

    The model is changed in place and given back. Its routers are new: `adapt` trains them.
    """
    family = Family(model, base, experts)
    sites = linear_sites(model, parts=("attention", "mlp") if parameters.upscale_attn else ("mlp",))
    dynamic = {f"{site.name}.{leaf}" for site in sites for leaf in ("weight", "bias")}
    fill(model, lambda name: family.base(name) if name in dynamic else family.summed(name, parameters.init_lambda))
    gates = make_gates(model, sites, parameters, family.count, seed=seed)
    for site in sites:
        linear = model.get_submodule(site.name)
        weight = linear.weight
        assert isinstance(weight, Tensor)
        deltas = [
            prune(family.delta(index, f"{site.name}.weight"), parameters.tv_prune_ratio)
            for index in range(family.count)
        ]
        values = as_layer_sees(linear, torch.stack(deltas)).to(weight)
        vectors: TaskVectors
        vectors = SparseTaskVectors.from_dense(values) if parameters.tv_prune_ratio > 0 else DenseTaskVectors(values)
        bias_deltas = None
        if isinstance(linear.bias, Tensor):
            shifts = [
                prune(family.delta(index, f"{site.name}.bias"), parameters.tv_prune_ratio)
                for index in range(family.count)
            ]
            bias_deltas = torch.stack(shifts).to(weight)
        place(model, site, gates[site.layer], vectors, bias_deltas, parameters)
    watch(backbone(model))
    name = "e_wemoe" if isinstance(parameters, EWEMoEParameters) else "wemoe"
    model.mixture = Mixture(name, parameters, family.count, sites)
    return model


def place(
    model: nn.Module,
    site: Site,
    gate: LayerGate,
    vectors: TaskVectors,
    bias_deltas: Tensor | None,
    parameters: WEMoEParameters,
) -> None:
    """Put a mixed linear map around the one that is there."""
    linear = model.get_submodule(site.name)
    replace_module(model, site.name, MixedLinear(linear, gate, vectors, bias_deltas, parameters.merge_above_tokens))


def make_gates(
    model: nn.Module, sites: Sequence[Site], parameters: WEMoEParameters, experts: int, *, seed: int
) -> dict[int, LayerGate]:
    """A gate per layer, with a router of its own or the one they share."""
    generator = torch.Generator().manual_seed(seed)
    anchor = next(model.parameters())
    features = int(model.config.hidden_size) + parameters.layer_encoding
    shared: Router | None = None
    gates = {}
    for layer in sorted({site.layer for site in sites}):
        router = shared
        if router is None:
            router = Router(
                features,
                experts,
                hidden_layers=parameters.router_hidden_layers,
                init_lambda=parameters.init_lambda,
                generator=generator,
            )
        shared = router if parameters.shared_gate else None
        gate = LayerGate(
            router,
            layer=layer,
            experts=experts,
            init_lambda=parameters.init_lambda,
            layer_encoding=parameters.layer_encoding,
        )
        gates[layer] = gate.to(anchor.device)
    return gates


def routers_of(model: nn.Module) -> list[Router]:
    """The routers of a mixture, a shared one once; empty where the method has none to train."""
    return [module for module in model.modules() if isinstance(module, Router)]


def make_static(model: nn.Module) -> None:
    """Turn the routers off: the model is task arithmetic (pruned where the task vectors are)."""
    parameters = mixture_of(model).parameters
    assert isinstance(parameters, WEMoEParameters)
    for router in routers_of(model):
        router.make_static(parameters.init_lambda)
