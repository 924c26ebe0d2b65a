"""What a forward pass knows of its routing: which positions count, the experts' weights, what is kept.

A decoder's weights are those of its prompt: they are computed once and kept with the KV cache for the generated tokens.
`gating(...)` says otherwise, for engines that batch requests of their own and for training.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from merge_backends.errors import MergeError

KEPT = "_mixture_gates"


@dataclass
class Gates:
    """Routing of one batch.

    Attributes:
        mask: `(batch, positions)`, 1 where a position counts in the gate's mean; None counts all.
        batch_reduce: one set of weights for the whole batch, the mean over its inputs (cheap training).
        coefficients: weights of the experts by layer, `(batch, experts)`; a layer that is here is not computed again.
        out_of_domain: `(batch,)`, True where the static merge is used; None where nobody checked.
        static: use the static merge everywhere (a continued sequence whose prompt nobody routed).
        passes: forward passes so far; only the first is the prompt's.
    """

    mask: Tensor | None = None
    batch_reduce: bool = False
    coefficients: dict[int, Tensor] = field(default_factory=dict)
    out_of_domain: Tensor | None = None
    static: bool = False
    passes: int = 0
    spent: dict[int, int] = field(default_factory=dict, repr=False)
    merged: dict[int, tuple[Tensor, Tensor | None]] = field(default_factory=dict, repr=False)

    def select(self, rows: Tensor | Sequence[int]) -> Gates:
        """The gates of some rows of the batch, in this order: what a reordered or shortened cache needs."""
        index, flags = torch.as_tensor(rows, dtype=torch.long), self.out_of_domain
        return Gates(
            coefficients={layer: kept[index.to(kept.device)] for layer, kept in self.coefficients.items()},
            out_of_domain=None if flags is None else flags[index.to(flags.device)],
            static=self.static,
            passes=self.passes,
        )

    @staticmethod
    def join(parts: Sequence[Gates]) -> Gates:
        """The gates of several batches as one, rows in order."""
        layers = parts[0].coefficients.keys()
        flags = [part.out_of_domain for part in parts]
        known = [flag for flag in flags if flag is not None]
        return Gates(
            coefficients={layer: torch.cat([part.coefficients[layer] for part in parts]) for layer in layers},
            out_of_domain=torch.cat(known) if len(known) == len(flags) else None,
            static=parts[0].static,
            passes=max(part.passes for part in parts),
        )


_asked: ContextVar[Gates | None] = ContextVar("mixture_gates_asked", default=None)
_running: ContextVar[Gates | None] = ContextVar("mixture_gates_running", default=None)


@contextmanager
def gating(kept: Gates | None = None, *, mask: Tensor | None = None, batch_reduce: bool = False) -> Iterator[Gates]:
    """Forward passes inside share one `Gates`: the first computes it, later ones (generated tokens) reuse it.

    Args:
        kept: gates of an earlier pass, to continue its sequences.
        mask: `(batch, positions)` for the first pass; the pass's own attention mask where it is None.
        batch_reduce: one set of weights for the batch.
    """
    gates = kept if kept is not None else Gates(mask=mask, batch_reduce=batch_reduce)
    token = _asked.set(gates)
    try:
        yield gates
    finally:
        _asked.reset(token)


def running() -> Gates:
    """The gates of the pass that is under way.

    Raises:
        MergeError: a layer was called outside of its model.
    """
    gates = _running.get()
    if gates is None:
        raise MergeError("a layer of a mixture was called by itself", fix="Call the whole model.")
    return gates


@contextmanager
def inside(gates: Gates) -> Iterator[None]:
    """Layers called inside belong to a pass with these gates, which `watch` did not open."""
    token = _running.set(gates)
    try:
        yield
    finally:
        _running.reset(token)


def watch(backbone: nn.Module) -> None:
    """Open a pass at each call of the transformer and close it afterwards."""
    backbone.register_forward_pre_hook(_open, with_kwargs=True)
    backbone.register_forward_hook(_close, with_kwargs=True, always_call=True)


def masked_mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over positions: `(batch, positions, features)` to `(batch, features)`; masked positions do not count."""
    if mask is None:
        return values.mean(dim=1)
    counted = mask.to(values.dtype).unsqueeze(-1)
    return (values * counted).sum(dim=1) / counted.sum(dim=1).clamp(min=1)


def _open(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    given = {**dict(zip(_argument_names(type(module).forward), args, strict=False)), **kwargs}
    shape = _input_shape(given)
    gates = _asked.get()
    if gates is None:
        cache = given.get("past_key_values")
        gates = Gates()
        if cache is not None and cache.get_seq_length() > 0:
            gates = getattr(cache, KEPT, None) or Gates(static=True)
    if not gates.coefficients and gates.mask is None:
        mask = given.get("attention_mask")
        if isinstance(mask, Tensor) and tuple(mask.shape) == shape:
            gates.mask = mask
    _running.set(gates)


def _close(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
    gates = _running.get()
    _running.set(None)
    cache = getattr(output, "past_key_values", None)
    if gates is None:
        return
    gates.passes += 1
    if cache is not None:
        setattr(cache, KEPT, gates)


def _input_shape(given: dict[str, Any]) -> tuple[int, ...]:
    for name in ("input_ids", "inputs_embeds"):
        tensor = given.get(name)
        if isinstance(tensor, Tensor):
            return tuple(tensor.shape[:2])
    return ()


@lru_cache(maxsize=64)
def _argument_names(forward: Callable[..., Any]) -> tuple[str, ...]:
    return tuple(inspect.signature(forward).parameters)[1:]
