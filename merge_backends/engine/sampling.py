"""The next token of every row at once, from logits `(B, V)`; each row draws from its own generator.

A row's token depends on its logits, settings and generator only, so a seed gives the same text in any batch.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one answer is drawn; ranges as in OpenAI's interface.

    `top_logprobs` is None without logprobs; 0 reports the chosen token alone.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    top_logprobs: int | None = None

    @property
    def edits_logits(self) -> bool:
        return bool(self.presence_penalty or self.frequency_penalty or self.logit_bias)


class Likely(NamedTuple):
    """Log probability of a chosen token, and the most probable tokens with theirs."""

    logprob: float
    top: tuple[tuple[int, float], ...]


@dataclass(slots=True)
class Draw:
    """One row: its settings, its generator, and how often it has chosen each token (kept where a penalty asks)."""

    settings: Sampling
    rng: random.Random
    counts: dict[int, int] = field(default_factory=dict)


class Chooser:
    """Chooses for a fixed set of rows; made anew when rows join or leave, so that a step only computes."""

    def __init__(self, draws: Sequence[Draw], device: torch.device) -> None:
        self.draws = list(draws)
        self._device = device
        self._edited = [row for row, draw in enumerate(draws) if draw.settings.edits_logits]
        self._reported = [row for row, draw in enumerate(draws) if draw.settings.top_logprobs is not None]
        drawn = [row for row, draw in enumerate(draws) if draw.settings.temperature > 0]
        self._drawn = drawn
        self._drawn_index = torch.tensor(drawn, dtype=torch.long, device=device)
        temperatures = [draws[row].settings.temperature for row in drawn]
        self._temperatures = torch.tensor(temperatures, dtype=torch.float64, device=device).unsqueeze(1)
        nuclei = [draws[row].settings.top_p for row in drawn]
        limits = [max(nucleus, 1e-300) if nucleus < 1 else 2.0 for nucleus in nuclei]
        self._top_p = torch.tensor(limits, dtype=torch.float64, device=device).unsqueeze(1)
        self._cuts = any(nucleus < 1 for nucleus in nuclei)

    def choose(self, logits: Tensor) -> tuple[list[int], list[Likely | None]]:
        """A token for each row of `(B, V)`, and its log probability where the row asked (of the unedited logits)."""
        edited = self._edit(logits) if self._edited else logits
        tokens: list[int] = edited.argmax(dim=-1).tolist()
        if self._drawn:
            for row, token in zip(self._drawn, self._draw(edited[self._drawn_index]), strict=True):
                tokens[row] = token
        for row in self._edited:
            counts = self.draws[row].counts
            counts[tokens[row]] = counts.get(tokens[row], 0) + 1
        likely: list[Likely | None] = [None] * len(tokens)
        for row in self._reported:
            likely[row] = report(logits[row], tokens[row], self.draws[row].settings.top_logprobs or 0)
        return tokens, likely

    def _edit(self, logits: Tensor) -> Tensor:
        logits = logits.clone()
        for row in self._edited:
            draw = self.draws[row]
            for token, bias in draw.settings.logit_bias:
                logits[row, token] += bias
            for token, count in draw.counts.items():
                logits[row, token] -= draw.settings.frequency_penalty * count + draw.settings.presence_penalty
        return logits

    def _draw(self, logits: Tensor) -> list[int]:
        """Inverse of the cumulated distribution at one uniform number for each row; float64 keeps small masses."""
        probabilities = torch.softmax(logits.double() / self._temperatures, dim=-1)
        uniform = [self.draws[row].rng.random() for row in self._drawn]
        points = torch.tensor(uniform, dtype=torch.float64, device=self._device).unsqueeze(1)
        if self._cuts:
            probabilities = probabilities * self._nucleus(probabilities)
        # In the order of the vocabulary for all rows: a neighbour's settings must not change what a number stands for.
        cumulated = probabilities.cumsum(dim=-1)
        chosen = torch.searchsorted(cumulated, points * cumulated[:, -1:], right=True)
        # A point rounded up to the whole mass would fall behind the last token that has any.
        last = probabilities.shape[-1] - 1 - (probabilities.flip(-1) > 0).int().argmax(dim=-1, keepdim=True)
        chosen = torch.minimum(chosen, last)
        tokens: list[int] = chosen.squeeze(1).tolist()
        return tokens

    def _nucleus(self, probabilities: Tensor) -> Tensor:
        """1 for the tokens of the smallest set whose mass reaches top_p, `(B, V)`; the most probable one is in it."""
        ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
        before = ordered.cumsum(dim=-1) - ordered
        return torch.zeros_like(probabilities).scatter(1, order, (before < self._top_p).double())


def report(logits: Tensor, token: int, top: int) -> Likely:
    """Log probabilities from one row `(V)` of logits: of `token`, and of the `top` most probable."""
    logprobs = torch.log_softmax(logits.float(), dim=-1)
    if not top:
        return Likely(float(logprobs[token]), ())
    values, indices = logprobs.topk(min(top, logprobs.shape[-1]))
    return Likely(float(logprobs[token]), tuple(zip(indices.tolist(), values.tolist(), strict=True)))
