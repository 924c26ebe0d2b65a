"""The documented prior: P(correct) from what the operator declared, used until a trained scorer takes over.

    p = strength, where declared; else from size, else from price, else 0.5.
Size: 0.35 + 0.13 * log10(billions of parameters); price: 0.62 + 0.10 * log10(USD per million output tokens).
Both are rough fits by eye to public leaderboards (a 7 B model near 0.46, a 70 B one near 0.59; $0.2 near 0.55,
$10 near 0.72) and say nothing about the prompt. Every decision made with it carries `prior: true`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from gateway.registry.records import Candidate
from gateway.routing.scoring import Score, ScoreTable

HALF_WIDTH = 0.25


class PriorScorer:
    """Scores by declared strength, size or price alone; the same for every prompt."""

    version = "prior-1"

    async def score(self, ask: str, candidates: Sequence[Candidate]) -> ScoreTable:
        return ScoreTable({item.name: prior_score(item) for item in candidates}, version=self.version, is_prior=True)


def prior_score(candidate: Candidate) -> Score:
    """The prior of one candidate with its basis in `why`; the interval is +-0.25, clipped to 0..1."""
    basis, p = _basis(candidate)
    p = min(0.95, max(0.05, p))
    return Score(p, max(0.0, p - HALF_WIDTH), min(1.0, p + HALF_WIDTH), {"prior": basis})


def _basis(candidate: Candidate) -> tuple[str, float]:
    if candidate.strength is not None:
        return "declared strength", candidate.strength
    size = candidate.params_total_b
    if size:
        return "size", 0.35 + 0.13 * math.log10(size)
    price = candidate.price_out if candidate.price_out is not None else candidate.price_in
    if price:
        return "price", 0.62 + 0.10 * math.log10(price)
    return "nothing declared", 0.5
