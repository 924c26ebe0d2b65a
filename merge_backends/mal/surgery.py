"""Networks of other depth, width or unit order cut from a given one: donors for tests and studies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from merge_backends.mal.layout import HEADS, INNER, POOLED, STREAM, Layout, Slot, Space, layout_of
from merge_backends.mal.matching import take_units
from merge_backends.mal.method import Network

_WIDTHS = {
    "bert": {STREAM: "hidden_size", HEADS: "num_attention_heads", INNER: "intermediate_size"},
    "gpt2": {STREAM: "n_embd", HEADS: "n_head", INNER: "n_inner"},
    "llama": {STREAM: "hidden_size", HEADS: "num_key_value_heads", INNER: "intermediate_size"},
    "qwen2": {STREAM: "hidden_size", HEADS: "num_key_value_heads", INNER: "intermediate_size"},
    "mistral": {STREAM: "hidden_size", HEADS: "num_key_value_heads", INNER: "intermediate_size"},
}


def keep_layers(network: Network, layers: Sequence[int]) -> Network:
    """The network with only these layers, in this order."""
    layout = layout_of(network.weights, network.config)
    weights = {name: network.weights[name] for slot, name in layout.names.items() if slot.layer is None}
    for new, old in enumerate(layers):
        for slot, name in layout.names.items():
            if slot.layer == old:
                weights[_renamed(layout, slot, new)] = network.weights[name]
    key = "n_layer" if layout.family == "gpt2" else "num_hidden_layers"
    config = {**network.config, key: len(layers)}
    if "layer_types" in config:
        config["layer_types"] = [config["layer_types"][old] for old in layers]
    return Network(weights, config, network.name)


def _renamed(layout: Layout, slot: Slot, layer: int) -> str:
    """Name of the slot's tensor in another layer."""
    name = layout.names[slot]
    head = name.removesuffix(slot.role).removesuffix(f"{slot.layer}.")
    return f"{head}{layer}.{slot.role}"


def keep_units(network: Network, units: Mapping[Space, Tensor], sizes: Mapping[str, int] | None = None) -> Network:
    """The network with only the named units of each space, in the named order; other spaces stay whole.

    Args:
        units: indices `(kept,)` by space.
        sizes: new number of units by kind, for the configuration, where a kind is cut.
    """
    layout = layout_of(network.weights, network.config)
    weights = {}
    for slot, name in layout.names.items():
        value = network.weights[name]
        for number, axis in enumerate(layout.axes[slot.role]):
            if axis.kind is not None and layout.space(slot, axis) in units:
                chosen = units[layout.space(slot, axis)]
                value = take_units(value, number, axis, layout.units[axis.kind], chosen)
        weights[name] = value.contiguous()
    return Network(weights, _resized(network.config, layout.family, sizes or {}), network.name)


def _resized(config: Mapping[str, Any], family: str, sizes: Mapping[str, int]) -> dict[str, Any]:
    resized = dict(config)
    for kind, size in sizes.items():
        key = _WIDTHS[family][kind]
        if key == "num_key_value_heads":
            ratio = int(resized["num_attention_heads"]) // int(resized[key])
            resized["num_attention_heads"] = ratio * size
        resized[key] = size
    return resized


def narrowed(network: Network, sizes: Mapping[str, int], *, seed: int) -> tuple[Network, dict[Space, Tensor]]:
    """A narrower student: per space the units of largest weight norm, plus noise of a tenth to break ties by `seed`.

    Args:
        sizes: units to keep by kind (`stream`, `heads`, `inner`).
    Returns:
        The student and the kept units of each space.
    """
    layout = layout_of(network.weights, network.config)
    generator = torch.Generator().manual_seed(seed)
    units = {}
    for space in spaces_of(layout):
        if space.kind in sizes:
            strength = _strength(network, layout, space)
            noisy = strength * (1 + 0.1 * torch.rand(len(strength), generator=generator))
            units[space] = noisy.topk(sizes[space.kind]).indices.sort().values
    if POOLED in layout.units and STREAM in sizes:
        # A pooler is square by configuration, so it narrows with the stream.
        units[Space(POOLED)] = units[Space(STREAM)]
    return keep_units(network, units, sizes), units


def _strength(network: Network, layout: Layout, space: Space) -> Tensor:
    """Norm of everything that makes or reads each unit, `(units,)`."""
    total = torch.zeros(layout.units[space.kind])
    for slot, number in layout.slots_of(space):
        axis = layout.axes[slot.role][number]
        value = network.weights[layout.names[slot]].float().movedim(number, 0)
        split = value.reshape(axis.parts, layout.units[space.kind], -1)
        total += split.square().sum((0, 2))
    return total.sqrt()


def shuffled(network: Network, *, seed: int) -> tuple[Network, dict[Space, Tensor]]:
    """The same function with the units of every space in random order, and the orders."""
    layout = layout_of(network.weights, network.config)
    generator = torch.Generator().manual_seed(seed)
    orders = {space: torch.randperm(layout.units[space.kind], generator=generator) for space in spaces_of(layout)}
    return keep_units(network, orders), orders


def spaces_of(layout: Layout) -> list[Space]:
    """Every space of a network, the stream first."""
    kinds = [kind for kind in layout.units if kind not in (HEADS, INNER)]
    return [Space(kind) for kind in kinds] + [
        Space(kind, layer) for layer in range(layout.layers) for kind in (HEADS, INNER)
    ]
