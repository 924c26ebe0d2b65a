"""SMILE (arXiv:2408.10174): each expert's difference as a low-rank map, chosen per token, without data or training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from merge_backends.moe.alignment import Family, Weights, fill
from merge_backends.moe.gates import running, watch
from merge_backends.moe.mixture import Mixture
from merge_backends.moe.parameters import SMILEParameters
from merge_backends.moe.structure import Part, backbone, linear_sites, replace_module
from merge_backends.moe.task_vectors import as_layer_sees

# Singular values below this share of the largest are rounding noise of the decomposition.
NOISE = 1e-7


class SMILELinear(nn.Module):  # type: ignore[misc]
    """`y = W0 x + b0 + sum_i p_i (B_i A_i x + b_i)`; `p` from `|A_i[:gate_k] x|`.

    `A_i` holds right singular vectors and `B_i` the left ones times the singular values, so that the router reads the
    first rows of a product the expert needs anyway: for `gate_k <= k` it has no parameters of its own.

    Args:
        reduce: `A`, `(experts, max(gate_k, k), in)`.
        expand: `B`, `(experts, out, k)`; `(experts, out, in)` for dense experts, which skip `A`.
        bias_deltas: `(experts, out)`, or None where the map has no bias.
    """

    reduce: Tensor
    expand: Tensor
    bias_deltas: Tensor | None

    def __init__(
        self,
        base: nn.Module,
        reduce: Tensor,
        expand: Tensor,
        bias_deltas: Tensor | None,
        parameters: SMILEParameters,
        layer: int,
    ) -> None:
        super().__init__()
        self.base = base
        self.layer = layer
        self.gate_k = parameters.gate_k
        self.is_dense = parameters.k < 0
        self.top_k = min(parameters.top_k, expand.shape[0])
        self.init_lambda = parameters.init_lambda
        self.register_buffer("reduce", reduce)
        self.register_buffer("expand", expand)
        self.register_buffer("bias_deltas", bias_deltas)

    def forward(self, hidden: Tensor) -> Tensor:
        """`(batch, positions, in)` to `(batch, positions, out)`."""
        experts = self.expand.shape[0]
        if self.is_dense and experts == 1:
            reduced = hidden.unsqueeze(-2)
        else:
            reduced = functional.linear(hidden, self.reduce.flatten(0, 1)).unflatten(-1, self.reduce.shape[:2])
        share = self._share(reduced)
        mixed: Tensor = self.base(hidden)
        if self.is_dense:
            for weight, each in zip(self.expand, share.unbind(-1), strict=True):
                mixed = mixed + each.unsqueeze(-1) * functional.linear(hidden, weight)
        else:
            weighted = reduced[..., : self.expand.shape[-1]] * share.unsqueeze(-1)
            mixed = mixed + torch.einsum("btkr,kor->bto", weighted, self.expand)
        return mixed if self.bias_deltas is None else mixed + share @ self.bias_deltas

    def _share(self, reduced: Tensor) -> Tensor:
        """Weight of each expert per token, `(batch, positions, experts)`; the top k of a softmax, summing to 1."""
        experts = self.expand.shape[0]
        if experts == 1:
            return reduced.new_ones(*reduced.shape[:-2], 1)
        scores = reduced[..., : self.gate_k].float().norm(dim=-1)
        best = scores.topk(self.top_k, dim=-1)
        share = torch.zeros_like(scores).scatter(-1, best.indices, best.values.softmax(dim=-1))
        flags = running().out_of_domain
        if flags is not None:
            share = torch.where(flags.view(-1, 1, 1), self.init_lambda, share)
        return share.to(reduced.dtype)


def build(
    model: nn.Module,
    base: Weights,
    experts: Sequence[Weights],
    parameters: SMILEParameters,
    *,
    data: Any = None,
    seed: int = 0,
) -> nn.Module:
    """Replace the linear maps of every layer; maps that no expert changed stay as they are. No data, no training."""
    family = Family(model, base, experts)
    parts: tuple[Part, ...] = (
        *(("attention",) if parameters.upscale_attn else ()),
        *(("mlp",) if parameters.upscale_mlp else ()),
    )
    sites = linear_sites(model, parts=parts) if parts else []
    upscaled = {f"{site.name}.{leaf}" for site in sites for leaf in ("weight", "bias")}
    rest = _rest(family, parameters)
    fill(model, lambda name: family.base(name) if name in upscaled else rest(name))
    kept = []
    for site in sites:
        linear = model.get_submodule(site.name)
        deltas = as_layer_sees(linear, family.deltas(f"{site.name}.weight"))
        shifts = family.deltas(f"{site.name}.bias") if isinstance(linear.bias, Tensor) else None
        if not deltas.any() and (shifts is None or not shifts.any()):
            continue
        reduce, expand = decompose(deltas, parameters)
        weight = linear.weight
        assert isinstance(weight, Tensor)
        replace_module(
            model,
            site.name,
            SMILELinear(
                linear,
                reduce.to(weight),
                expand.to(weight),
                None if shifts is None else shifts.to(weight),
                parameters,
                site.layer,
            ),
        )
        kept.append(site)
    watch(backbone(model))
    model.mixture = Mixture("smile", parameters, family.count, kept)
    return model


def decompose(deltas: Tensor, parameters: SMILEParameters) -> tuple[Tensor, Tensor]:
    """`A` and `B` of `SMILELinear` for differences `(experts, out, in)`.

    Ranks that no expert fills are not kept; null directions are zero rows, not arbitrary vectors as an SVD gives them.
    """
    wanted = parameters.gate_k if parameters.k < 0 else max(parameters.gate_k, parameters.k)
    pairs = [_singular(delta, wanted) for delta in deltas]
    rows = max(1, max(right.shape[0] for right, _ in pairs))
    reduce = torch.stack([functional.pad(right, (0, 0, 0, rows - right.shape[0])) for right, _ in pairs])
    if parameters.k < 0:
        return reduce, deltas
    expand = torch.stack([functional.pad(left, (0, rows - left.shape[1])) for _, left in pairs])
    return reduce, expand[..., : parameters.k].contiguous()


def _singular(delta: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Leading right singular vectors `(r, in)` and left ones times singular values `(out, r)`, `r <= count`.

    From the eigenvectors of the smaller Gram matrix in float64, 20 times faster than an SVD of these shapes.
    """
    exact = delta.double()
    is_wide = exact.shape[1] > exact.shape[0]
    squared, vectors = torch.linalg.eigh(exact @ exact.T if is_wide else exact.T @ exact)
    values = squared.clamp(min=0).sqrt().flip(0)[:count]
    vectors = vectors.flip(1)[:, :count]
    filled = values > NOISE * values[0]
    values, vectors = values[filled], vectors[:, filled]
    if is_wide:
        return ((vectors.T @ exact) / values.unsqueeze(1)).float(), (vectors * values).float()
    return vectors.T.float(), (exact @ vectors).float()


def _rest(family: Family, parameters: SMILEParameters) -> Callable[[str], Tensor]:
    """What the tensors outside the upscaled maps become."""
    if parameters.rest == "base":
        return family.base
    weight = 1 / family.count if parameters.rest == "average" else parameters.init_lambda
    return lambda name: family.summed(name, weight)
