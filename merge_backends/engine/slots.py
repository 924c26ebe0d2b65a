"""The KV cache of a running batch: fixed buffers with a slot for each row, so that a step copies nothing.

Rows are packed at the front; each writes at its own position, and what lies behind a row's position is masked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache

LENGTH_STEP = 64


@dataclass(frozen=True, slots=True)
class LayerShape:
    """Key and value of one layer: heads and width of each."""

    key: tuple[int, int]
    value: tuple[int, int]

    @property
    def numbers(self) -> int:
        """Numbers kept for each token."""
        return self.key[0] * self.key[1] + self.value[0] * self.value[1]


class SlotCache(Cache):  # type: ignore[misc]
    """What a transformers model calls `past_key_values`: `update` writes and reads the window that was set."""

    def __init__(self, shapes: list[LayerShape], dtype: torch.dtype, device: torch.device) -> None:
        super().__init__(layers=[])
        self.shapes = shapes
        self.dtype = dtype
        self.device = device
        self.slots = 0
        self.length = 0
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []
        self._rows = slice(0, 0)
        self._index: Tensor | None = None
        self._positions: Tensor | None = None
        self._begin = 0
        self._end = 0

    def bytes_for(self, slots: int, length: int) -> int:
        """Bytes of buffers of this size, `length` rounded up as they are made."""
        return slots * round_up(length) * sum(shape.numbers for shape in self.shapes) * int(self.dtype.itemsize)

    def reserve(self, slots: int, length: int) -> None:
        """Make room for `slots` rows of `length` tokens; grows by doubling and keeps what is there."""
        length = round_up(length)
        if slots <= self.slots and length <= self.length:
            return
        slots = max(slots, self.slots)
        length = max(length, self.length)
        for tensors, shapes in (
            (self._keys, [s.key for s in self.shapes]),
            (self._values, [s.value for s in self.shapes]),
        ):
            for layer, (heads, width) in enumerate(shapes):
                grown = torch.zeros((slots, heads, length, width), dtype=self.dtype, device=self.device)
                if layer < len(tensors):
                    grown[: self.slots, :, : self.length] = tensors[layer]
                    tensors[layer] = grown
                else:
                    tensors.append(grown)
        self.slots, self.length = slots, length

    def release(self) -> None:
        """Give the memory back; nothing is kept."""
        self._keys.clear()
        self._values.clear()
        self.slots = self.length = 0

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` tokens of one row over another."""
        for tensor in (*self._keys, *self._values):
            tensor[target, :, :length] = tensor[source, :, :length]

    def open_decode(self, index: Tensor, positions: Tensor, end: int) -> None:
        """The next forward adds one token to each of the first rows, at `positions`; all see the first `end` tokens."""
        self._rows = slice(0, index.shape[0])
        self._index, self._positions = index, positions
        self._end = end

    def open_prefill(self, rows: slice, begin: int, end: int) -> None:
        """The next forward fills tokens `begin:end` of `rows`."""
        self._rows, self._index = rows, None
        self._begin, self._end = begin, end

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Keep `(rows, heads, tokens, width)` and return what the rows attend to."""
        keys, values = self._keys[layer_idx], self._values[layer_idx]
        if self._index is not None:
            keys[self._index, :, self._positions] = key_states[:, :, 0]
            values[self._index, :, self._positions] = value_states[:, :, 0]
        else:
            keys[self._rows, :, self._begin : self._end] = key_states
            values[self._rows, :, self._begin : self._end] = value_states
        return keys[self._rows, :, : self._end], values[self._rows, :, : self._end]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens before the window (models ask only where they get no positions)."""
        return self._begin if self._index is None else self._end - 1


def round_up(length: int) -> int:
    """Lengths come in steps, so that buffers and kernels see few shapes."""
    return -(-length // LENGTH_STEP) * LENGTH_STEP
