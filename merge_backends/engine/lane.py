"""The running batch of one model: sequences join and leave between steps, each step is one forward for all rows.

Rows are packed: the first `decoding` produce a token each step; those behind are being filled with their prompts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from merge_backends.engine.causal import CausalModel, decode_mask, prefill_mask
from merge_backends.engine.errors import EngineError
from merge_backends.engine.sampling import Chooser, Draw, Likely
from merge_backends.engine.slots import round_up

#: Tokens of prompts that one step may fill beside the decoding rows: bounds what a long prompt costs the others.
FILL_TOKENS = 512


@dataclass(slots=True, eq=False)
class Row:
    """One answer under way.

    Attributes:
        prompt: its tokens.
        limit: tokens that may be generated; the lane counts them in `generated`.
        take: called with each token; True ends the answer.
        cancelled: set by whoever waits for the answer; the row is free at the next step.
        fail: called once where the answer cannot be given; what was given before stays.
        arrived: monotonic seconds.
        gates: routing of a mixture for this row, kept from its prompt.
    """

    prompt: list[int]
    limit: int
    draw: Draw
    take: Callable[[int, Likely | None], bool]
    cancelled: bool = False
    generated: int = 0
    last: int = 0
    gates: Any = None
    fail: Callable[[EngineError], None] = field(default=lambda error: None)
    arrived: float = 0.0

    @property
    def length(self) -> int:
        """Tokens whose keys are kept once the next step is done."""
        return len(self.prompt) + self.generated


class Lane:
    """Rows of one model over its slots. Not thread-safe: one worker thread runs it."""

    def __init__(self, model: CausalModel, *, slots: int, kv_bytes: int) -> None:
        self.model = model
        self._slots = slots
        self._kv_bytes = kv_bytes
        self._cache = model.new_cache()
        self._rows: list[Row] = []
        self._decoding = 0
        self._filled = 0
        self._stale = True
        self._index = torch.empty(0, dtype=torch.long)
        self._chooser: Chooser | None = None
        self._gates: Any = None

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def is_filling(self) -> bool:
        """Whether prompts are being filled; others wait for the next step."""
        return self._decoding < len(self._rows)

    def fits_ever(self, sequence: Row) -> bool:
        """Whether the sequence fits the memory for keys and values when it is alone."""
        return self._cache.bytes_for(1, self._whole(sequence)) <= self._kv_bytes

    def admit(self, waiting: list[Row]) -> list[Row]:
        """Take those of `waiting` that can be filled together now, in order of arrival; returns who was taken.

        Prompts far longer than the first one's wait for the next turn, so that a short one is not held up by them.
        """
        if self.is_filling or not waiting:
            return []
        taken: list[Row] = []
        reach = max(64, 2 * len(waiting[0].prompt))
        longest = max((self._whole(row) for row in self._rows), default=0)
        for sequence in waiting:
            rows = len(self._rows) + len(taken) + 1
            longest_with = max(longest, self._whole(sequence))
            if rows > self._slots or self._cache.bytes_for(rows, longest_with) > self._kv_bytes:
                break
            if len(sequence.prompt) <= reach:
                taken.append(sequence)
                longest = longest_with
        if taken:
            self._reserve(len(self._rows) + len(taken), max(row.length + 1 for row in (*self._rows, *taken)), longest)
            self._rows += taken
            self._filled = 0
        return taken

    def step(self) -> None:
        """Drop cancelled rows, fill a piece of the joining prompts, and give each decoding row its next token."""
        for row in reversed(range(len(self._rows))):
            if self._rows[row].cancelled:
                self._leave(row)
        if self.is_filling:
            self._fill()
        elif self._decoding:
            self._decode()
        if not self._rows:
            self._cache.release()

    def expire(self, before: float, error: EngineError) -> None:
        """End rows that arrived before this time."""
        for row in self._rows:
            if row.arrived < before and not row.cancelled:
                row.cancelled = True
                row.fail(error)

    def fail(self, error: EngineError) -> None:
        """End every row with an error and start from nothing."""
        rows, self._rows, self._decoding, self._stale = self._rows, [], 0, True
        self._cache.release()
        for row in rows:
            row.fail(error)

    def _whole(self, sequence: Row) -> int:
        return len(sequence.prompt) + sequence.limit

    def _reserve(self, rows: int, length: int, most: int) -> None:
        """Buffers for what is there now, grown ahead but never beyond what the rows can come to."""
        slots = min(self._slots, max(rows, 2 * self._cache.slots if rows > self._cache.slots else rows))
        if self._cache.bytes_for(slots, most) > self._kv_bytes:
            slots = rows
        ahead = length if length <= self._cache.length else min(round_up(most), max(length, 2 * self._cache.length))
        self._cache.reserve(slots, ahead)

    def _fill(self) -> None:
        rows = self._rows[self._decoding :]
        whole = max(len(row.prompt) for row in rows)
        # A mixture's routing looks at the whole prompt, so it is not cut into pieces.
        piece = whole if self.model.gated else max(16, FILL_TOKENS // len(rows))
        begin, end = self._filled, min(whole, self._filled + piece)
        finished = [at for at, row in enumerate(rows) if begin < len(row.prompt) <= end]
        if self._cache.length < end:
            self._reserve(len(self._rows), end, max(self._whole(row) for row in self._rows))
        logits = self._fill_forward(rows, begin, end, finished)
        self._filled = end
        if finished:
            tokens, likely = Chooser([rows[at].draw for at in finished], self.model.device).choose(logits)
            for at, token, each in zip(finished, tokens, likely, strict=True):
                self._take(rows[at], token, each)
        if end == whole:
            self._decoding = len(self._rows)
            self._stale = True
            self._leave_finished()
        if self._decoding and end < whole:
            self._decode()

    def _fill_forward(self, rows: list[Row], begin: int, end: int, finished: list[int]) -> torch.Tensor:
        """Logits `(len(finished), V)` after the last tokens of the prompts that end in `begin:end`."""
        device = self.model.device
        padded = [row.prompt[begin:end] + [0] * (end - max(begin, len(row.prompt))) for row in rows]
        tokens = torch.tensor([each[: end - begin] for each in padded], device=device)
        positions = torch.arange(begin, end, device=device).expand(len(rows), -1)
        ends = sorted({len(rows[at].prompt) - 1 - begin for at in finished}) or [0]
        keep = torch.tensor(ends, device=device)
        mask = prefill_mask(len(rows), begin, end, device)
        self._cache.open_prefill(slice(self._decoding, len(self._rows)), begin, end)
        if self.model.gated:
            from merge_backends.moe.gates import gating

            lengths = torch.tensor([len(row.prompt) for row in rows], device=device)
            with gating(mask=positions < lengths.unsqueeze(1)) as gates:
                logits = self.model.forward(tokens, positions, mask, self._cache, keep)
            for at, row in enumerate(rows):
                row.gates = gates.select([at])
        else:
            logits = self.model.forward(tokens, positions, mask, self._cache, keep)
        columns = [ends.index(len(rows[at].prompt) - 1 - begin) for at in finished]
        return logits[finished, columns]

    def _decode(self) -> None:
        """One token for each of the first `decoding` rows."""
        self._refresh()
        rows = self._rows[: self._decoding]
        lengths = [row.length for row in rows]
        longest = max(lengths)
        if longest > self._cache.length:
            self._reserve(len(self._rows), longest, max(self._whole(row) for row in self._rows))
        end = min(round_up(longest), self._cache.length)
        device = self.model.device
        positions = torch.tensor(lengths, device=device) - 1
        tokens = torch.tensor([[row.last] for row in rows], device=device)
        self._cache.open_decode(self._index, positions, end)
        mask = decode_mask(positions, end)
        keep = self._index[:1]
        if self.model.gated:
            from merge_backends.moe.gates import gating

            with gating(self._gates):
                logits = self.model.forward(tokens, positions.unsqueeze(1), mask, self._cache, keep)
        else:
            logits = self.model.forward(tokens, positions.unsqueeze(1), mask, self._cache, keep)
        assert self._chooser is not None
        chosen, likely = self._chooser.choose(logits[:, 0])
        for row, token, each in zip(rows, chosen, likely, strict=True):
            self._take(row, token, each)
        self._leave_finished()

    def _refresh(self) -> None:
        """What depends on who is in the batch, made anew after a change."""
        if not self._stale:
            return
        rows = self._rows[: self._decoding]
        self._index = torch.arange(len(rows), device=self.model.device)
        self._chooser = Chooser([row.draw for row in rows], self.model.device)
        if self.model.gated:
            from merge_backends.moe.gates import Gates

            self._gates = Gates.join([row.gates for row in rows])
        self._stale = False

    def _take(self, row: Row, token: int, likely: Likely | None) -> None:
        row.generated += 1
        row.last = token
        if row.take(token, likely) or row.generated >= row.limit:
            row.limit = row.generated

    def _leave_finished(self) -> None:
        for row in reversed(range(self._decoding)):
            if self._rows[row].generated >= self._rows[row].limit:
                self._leave(row)

    def _leave(self, row: int) -> None:
        """Free a row; the last decoding row takes its place, and the last of all takes that one's."""
        last = len(self._rows) - 1
        if row < self._decoding:
            self._move(self._decoding - 1, row)
            self._move(last, self._decoding - 1)
            self._decoding -= 1
            self._stale = True
        else:
            self._move(last, row)
        self._rows.pop()

    def _move(self, source: int, target: int) -> None:
        if source != target:
            self._cache.move(source, target, self._rows[source].length)
            self._rows[target] = self._rows[source]
