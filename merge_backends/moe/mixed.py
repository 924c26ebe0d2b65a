"""A linear map whose weight is the base's plus a weighted sum of task vectors, the weights given per input by a gate.

Short inputs are computed factored, `W0 x + sum_k w_k T_k x`, without building a weight; long ones merge it once.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from merge_backends.errors import IncompatibleError
from merge_backends.moe.gates import Gates, masked_mean, running
from merge_backends.moe.structure import weight_of
from merge_backends.moe.task_vectors import DenseTaskVectors, TaskVectors

# Arithmetic per byte of memory traffic: 32 GFLOPS over 24 GB/s on one core (tests/bench/bench_mixtures.py), 400 TFLOPS
# over 3 TB/s. Constants, so that the choice and with it the last bits of an answer are the same on every run.
FLOPS_PER_BYTE = {"cpu": 1.3, "cuda": 133.0}


def crossover(experts: int, device: torch.device, dtype: torch.dtype) -> int:
    """Tokens per input from which merging the weight costs less than computing with factors.

    Merging moves `(K + 2)` weights through memory; factors cost `2 K` operations per token and weight.
    """
    per_byte = FLOPS_PER_BYTE.get(device.type, FLOPS_PER_BYTE["cpu"])
    return max(1, math.ceil((experts + 2) * int(dtype.itemsize) * per_byte / (2 * experts)))


class Router(nn.Module):  # type: ignore[misc]
    """r(h) of WEMoE: none, one or two linear maps `(features) -> (experts)`; no softmax, weights may be negative.

    Starts as N(0, 0.01^2) with last bias `init_lambda`, so close to task arithmetic. Ref: arXiv:2402.00433, section 3.
    """

    def __init__(
        self, features: int, experts: int, *, hidden_layers: int, init_lambda: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        widths = [features] * hidden_layers + [experts]
        self.weights = nn.ParameterList(
            torch.empty(after, before).normal_(0.0, 0.01, generator=generator)
            for before, after in itertools.pairwise(widths)
        )
        self.biases = nn.ParameterList(torch.zeros(width) for width in widths[1:-1])
        self.biases.append(nn.Parameter(torch.full((experts,), init_lambda)))

    def forward(self, hidden: Tensor) -> Tensor:
        """`(..., features)` to `(..., experts)`."""
        bias = self.biases[-1]
        if not len(self.weights):
            return bias.expand(*hidden.shape[:-1], -1)
        hidden = hidden.to(bias.dtype)
        for weight, inner in zip(self.weights[:-1], self.biases[:-1], strict=True):
            hidden = functional.relu(functional.linear(hidden, weight, inner))
        return functional.linear(hidden, self.weights[-1], bias)

    def make_static(self, value: float) -> None:
        """Forget what was learnt: every input gets `value` for every expert, which is task arithmetic."""
        with torch.no_grad():
            if len(self.weights):
                self.weights[-1].zero_()
            self.biases[-1].fill_(value)


class LayerGate(nn.Module):  # type: ignore[misc]
    """The gate of one layer: its router (which layers may share) and the weights to use out of its domain."""

    def __init__(
        self, router: Router, *, layer: int, experts: int, init_lambda: float, layer_encoding: int = 0
    ) -> None:
        super().__init__()
        self.router = router
        self.layer = layer
        self.experts = experts
        self.init_lambda = init_lambda
        self.register_buffer("encoding", encode_layer(layer, layer_encoding), persistent=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """Weights `(batch or 1, experts)` of this layer for the pass under way; computed by the MLP's first map."""
        gates = running()
        kept = gates.coefficients.get(self.layer)
        if kept is not None:
            return self._checked(kept, hidden)
        if gates.static:
            return hidden.new_full((1, self.experts), self.init_lambda)
        if gates.mask is not None and gates.mask.shape != hidden.shape[:2]:
            raise IncompatibleError(
                f"the gate's mask has shape {tuple(gates.mask.shape)}, its input {tuple(hidden.shape[:2])}",
                fix="Give a mask of the shape of the prompt.",
            )
        weights = masked_mean(self.route(hidden), gates.mask)
        if gates.batch_reduce:
            weights = weights.mean(dim=0, keepdim=True)
        if gates.out_of_domain is not None:
            weights = torch.where(gates.out_of_domain.unsqueeze(-1), self.init_lambda, weights)
        gates.coefficients[self.layer] = weights
        return weights

    def static_weights(self) -> Tensor:
        """The weights `(experts,)` of task arithmetic."""
        return torch.full((self.experts,), self.init_lambda)

    def route(self, hidden: Tensor) -> Tensor:
        """What the router gives at each position: `(batch, positions, features)` to `(batch, positions, experts)`."""
        encoding = self.encoding
        assert isinstance(encoding, Tensor)
        if encoding.numel():
            hidden = torch.cat([hidden, encoding.to(hidden).expand(*hidden.shape[:-1], -1)], dim=-1)
        routed: Tensor = self.router(hidden)
        return routed

    def _checked(self, kept: Tensor, hidden: Tensor) -> Tensor:
        if kept.shape[0] not in (1, hidden.shape[0]):
            raise IncompatibleError(
                f"the gates of {kept.shape[0]} sequences were kept, and {hidden.shape[0]} go on",
                fix="Hand over `gating(gates.select(rows))` where the batch changes between steps.",
            )
        return kept


class MixedLinear(nn.Module):  # type: ignore[misc]
    """`y = (W0 + sum_k w_k T_k) x + b0 + sum_k w_k t_k` around the base's linear map, which holds `W0` and `b0`."""

    def __init__(
        self, base: nn.Module, gate: LayerGate, deltas: TaskVectors, bias_deltas: Tensor | None, merge_above: int | None
    ) -> None:
        super().__init__()
        self.base = base
        self.gate = gate
        self.deltas = deltas
        self.merge_above = merge_above
        self.register_buffer("bias_deltas", bias_deltas)

    def forward(self, hidden: Tensor) -> Tensor:
        """`(batch, positions, in)` to `(batch, positions, out)`."""
        gates = running()
        weights = self.gate(hidden).to(hidden.dtype)
        rows = hidden.shape[0] * hidden.shape[1] if weights.shape[0] == 1 else hidden.shape[1]
        if weights.shape[0] == 1 and not torch.is_grad_enabled():
            return self._once(hidden, weights[0], rows, gates)
        if self._merges(rows, hidden):
            return self.materialised(hidden, weights)
        return self.factored(hidden, weights)

    def factored(self, hidden: Tensor, weights: Tensor) -> Tensor:
        """Never builds a weight; `(batch or 1, experts)` weights."""
        parts = self.deltas.times(hidden)
        mixed = self.base(hidden) + torch.einsum("btko,bk->bto", parts, weights.expand(hidden.shape[0], -1))
        if isinstance(self.bias_deltas, Tensor):
            mixed = mixed + (weights @ self.bias_deltas).unsqueeze(1)
        result: Tensor = mixed
        return result

    def materialised(self, hidden: Tensor, weights: Tensor) -> Tensor:
        """Builds the weight of one input at a time and drops it again."""
        if weights.shape[0] == 1:
            return functional.linear(hidden, *self.merge(weights[0]))
        each = [functional.linear(row, *self.merge(weight)) for row, weight in zip(hidden, weights, strict=True)]
        return torch.stack(each)

    def merge(self, weights: Tensor) -> tuple[Tensor, Tensor | None]:
        """Weight `(out, in)` and bias for one set of weights `(experts)`."""
        bias = self.base.bias
        if isinstance(bias, Tensor) and isinstance(self.bias_deltas, Tensor):
            bias = bias + weights @ self.bias_deltas
        return self.deltas.add_to(weight_of(self.base), weights), bias if isinstance(bias, Tensor) else None

    def _once(self, hidden: Tensor, weights: Tensor, rows: int, gates: Gates) -> Tensor:
        """One set of weights for many passes: factored until a merge would have paid, then merged and kept."""
        ready = gates.merged.get(id(self))
        spent = gates.spent[id(self)] = gates.spent.get(id(self), 0) + rows
        if ready is None and self._merges(spent, hidden):
            ready = self.merge(weights)
            if spent > rows:  # a second pass came, so a third may; a single pass keeps nothing
                gates.merged[id(self)] = ready
        return self.factored(hidden, weights.unsqueeze(0)) if ready is None else functional.linear(hidden, *ready)

    def _merges(self, tokens: int, hidden: Tensor) -> bool:
        if self.merge_above is not None:
            return tokens >= self.merge_above
        return tokens >= self.deltas.patience * crossover(self.deltas.experts, hidden.device, hidden.dtype)


@contextmanager
def computed_factored(model: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Inside, no weight is built per input: task vectors are dense, of this type, and always computed factored.

    Routers that learn from single inputs need a weight of their own for each of them. On a CPU factors cost less there,
    and bf16 ones are not cast again in each pass under autocast; sparse ones are far slower than dense ones.
    """
    layers = [module for module in model.modules() if isinstance(module, MixedLinear)]
    before = [(layer.deltas, layer.merge_above) for layer in layers]
    for layer in layers:
        layer.deltas, layer.merge_above = DenseTaskVectors(layer.deltas.dense().to(dtype)), sys.maxsize
    try:
        yield
    finally:
        for layer, (deltas, merge_above) in zip(layers, before, strict=True):
            layer.deltas, layer.merge_above = deltas, merge_above


def encode_layer(layer: int, width: int) -> Tensor:
    """Sinusoidal code of a layer's index, `(width,)`; empty for width 0."""
    steps = torch.arange(width // 2, dtype=torch.float32)
    angles = layer / 10_000 ** (2 * steps / max(width, 1))
    return torch.cat([angles.sin(), angles.cos()])
