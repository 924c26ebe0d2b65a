"""Task vectors of one linear map as the layer needs them: dense, or pruned and kept as compressed sparse rows."""

from __future__ import annotations

import itertools
import warnings
from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from merge_backends.moe.structure import is_transposed

with warnings.catch_warnings():
    # torch says once per process that its sparse rows are young; said here, it is heard nowhere else.
    warnings.simplefilter("ignore")
    torch.eye(1).to_sparse_csr()


class TaskVectors(nn.Module):  # type: ignore[misc]
    """`experts` differences `(out, in)` of one weight."""

    experts: int
    # How much later merging pays than it does for dense vectors: adding a tenth of the entries costs more per entry.
    patience: int = 1

    @abstractmethod
    def times(self, hidden: Tensor) -> Tensor:
        """Each expert's difference times the input: `(batch, positions, in)` to `(batch, positions, experts, out)`."""

    @abstractmethod
    def dense(self) -> Tensor:
        """All entries, `(experts, out, in)`; not a copy where they are kept so."""

    @abstractmethod
    def add_to(self, weight: Tensor, weights: Tensor) -> Tensor:
        """A weight `(out, in)` plus the differences times `(experts,)` weights; a new tensor, differentiable."""


class DenseTaskVectors(TaskVectors):
    """All entries, `(experts, out, in)`."""

    values: Tensor

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.experts = values.shape[0]
        self.register_buffer("values", values)

    def times(self, hidden: Tensor) -> Tensor:
        """See `TaskVectors`."""
        flat = nn.functional.linear(hidden, self.values.flatten(0, 1))
        return flat.unflatten(-1, self.values.shape[:2])

    def dense(self) -> Tensor:
        """See `TaskVectors`."""
        return self.values

    def add_to(self, weight: Tensor, weights: Tensor) -> Tensor:
        """See `TaskVectors`."""
        merged: Tensor = _Sum.apply(weight, weights, self)
        return merged

    def summed(self, weight: Tensor, weights: Tensor) -> Tensor:
        """`add_to` without a gradient."""
        # Autocast would copy all vectors to bf16 each time, which costs more than the sum itself.
        with torch.autocast(weight.device.type, enabled=False):
            return weight + (weights.to(self.values.dtype) @ self.values.flatten(1)).view_as(weight)

    def products(self, other: Tensor) -> Tensor:
        """Inner product of each difference with a matrix `(out, in)`: `(experts,)`."""
        with torch.autocast(other.device.type, enabled=False):
            return self.values.flatten(1) @ other.reshape(-1).to(self.values.dtype)


class SparseTaskVectors(TaskVectors):
    """The entries that pruning left, as one matrix `(experts * out, in)` of compressed sparse rows, 32-bit indices."""

    patience = 4
    rows: Tensor
    columns: Tensor
    values: Tensor

    def __init__(self, rows: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.experts, self.outputs, self.inputs = shape
        self.register_buffer("rows", rows)
        self.register_buffer("columns", columns)
        self.register_buffer("values", values)

    @classmethod
    def from_dense(cls, values: Tensor) -> SparseTaskVectors:
        """Keep what is not zero of `(experts, out, in)`."""
        return cls.from_mask(values != 0, values[values != 0])

    @classmethod
    def from_mask(cls, mask: Tensor, values: Tensor) -> SparseTaskVectors:
        """From a mask `(experts, out, in)` and the values it marks, in order."""
        counts = mask.flatten(0, 1).sum(dim=1)
        rows = torch.cat([counts.new_zeros(1), counts.cumsum(0)]).int()
        columns = mask.flatten(0, 1).nonzero()[:, 1].int()
        return cls(rows, columns, values.contiguous(), (mask.shape[0], mask.shape[1], mask.shape[2]))

    def dense(self) -> Tensor:
        """See `TaskVectors`."""
        filled = self.values.new_zeros(self.experts * self.outputs * self.inputs)
        filled[self._places()] = self.values
        return filled.view(self.experts, self.outputs, self.inputs)

    def mask(self) -> Tensor:
        """Where entries were kept, `(experts, out, in)`."""
        mask = torch.zeros(self.experts * self.outputs * self.inputs, dtype=torch.bool, device=self.values.device)
        mask[self._places()] = True
        return mask.view(self.experts, self.outputs, self.inputs)

    def times(self, hidden: Tensor) -> Tensor:
        """See `TaskVectors`. Half precision computes in float32: the sparse kernels of the CPU know nothing else."""
        exact = self.values.dtype if hidden.is_cuda else torch.float32
        with torch.sparse.check_sparse_tensor_invariants(enable=False):
            matrix = torch.sparse_csr_tensor(
                self.rows, self.columns, self.values.to(exact), (self.experts * self.outputs, self.inputs)
            )
        with torch.autocast(hidden.device.type, enabled=False):  # or it would hand the sparse kernel bf16 again
            flat = (matrix @ hidden.flatten(0, 1).to(exact).t()).t()
        return flat.to(hidden.dtype).reshape(*hidden.shape[:2], self.experts, self.outputs)

    def add_to(self, weight: Tensor, weights: Tensor) -> Tensor:
        """See `TaskVectors`."""
        if weight.is_cuda:
            return self._scatter(weight, weights)
        merged: Tensor = _Sum.apply(weight, weights, self)
        return merged

    def summed(self, weight: Tensor, weights: Tensor) -> Tensor:
        """`add_to` on a CPU without a gradient, four times faster than scattering."""
        bounds = self.rows[:: self.outputs].tolist()
        for expert, share in enumerate(weights.tolist()):
            begin, end = bounds[expert], bounds[expert + 1]
            lines = self.rows[expert * self.outputs : (expert + 1) * self.outputs + 1] - begin
            with torch.sparse.check_sparse_tensor_invariants(enable=False):
                delta = torch.sparse_csr_tensor(
                    lines, self.columns[begin:end], self.values[begin:end], (self.outputs, self.inputs)
                )
            weight = torch.add(weight, delta, alpha=share)
        return weight

    def products(self, other: Tensor) -> Tensor:
        """Inner product of each difference with a matrix `(out, in)`: `(experts,)`."""
        picked = other.reshape(-1)[self._places_in_one()] * self.values
        bounds = self.rows[:: self.outputs].tolist()
        return torch.stack([picked[begin:end].sum() for begin, end in itertools.pairwise(bounds)])

    def _scatter(self, weight: Tensor, weights: Tensor) -> Tensor:
        bounds = self.rows[:: self.outputs].long()
        share = torch.repeat_interleave(weights, bounds.diff(), output_size=self.values.numel())
        merged = weight.reshape(-1).index_add(0, self._places_in_one(), self.values * share)
        return merged.view(self.outputs, self.inputs)

    def _places(self) -> Tensor:
        """Position of each value in the flat `(experts * out * in)`."""
        return self._place(torch.arange(self.experts * self.outputs, device=self.rows.device))

    def _places_in_one(self) -> Tensor:
        """The same within its own difference, so in the flat `(out * in)`."""
        return self._place(torch.arange(self.outputs, device=self.rows.device).repeat(self.experts))

    def _place(self, line: Tensor) -> Tensor:
        starts = torch.repeat_interleave(line * self.inputs, self.rows.diff(), output_size=self.columns.numel())
        return starts.add_(self.columns)


class _Sum(torch.autograd.Function):  # type: ignore[misc]
    """`summed` of either kind of task vectors, differentiable in the experts' weights."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, weights: Tensor, vectors: DenseTaskVectors | SparseTaskVectors) -> Tensor:
        """See the class."""
        ctx.vectors = vectors
        return vectors.summed(weight, weights)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        """The base's weight is a summand; each expert's share has the inner product with its difference."""
        return gradient, ctx.vectors.products(gradient), None


def prune(delta: Tensor, ratio: float) -> Tensor:
    """Zero the `ratio` of entries of smallest magnitude in one tensor.

    Exactly `floor(ratio * size)` entries go, any of those that tie at the threshold.
    Ref: E-WEMoE, arXiv:2410.21804 (`tv_prune_ratio`), per tensor.
    """
    drop = int(ratio * delta.numel())
    if drop == 0:
        return delta
    kept = delta.abs().flatten().topk(delta.numel() - drop, sorted=False).indices
    return torch.zeros_like(delta).flatten().index_copy(0, kept, delta.flatten()[kept]).view_as(delta)


def as_layer_sees(module: nn.Module, deltas: Tensor) -> Tensor:
    """Task vectors `(experts, *stored shape)` as `(experts, out, in)`."""
    return deltas.transpose(1, 2).contiguous() if is_transposed(module) else deltas
