"""What a model would win in a pool: the share of typical prompts that go to it, at each setting of the dial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from aptitude_tests.ability import Measure
from capability_encoder.profile import CapabilityProfile
from gateway.registry.records import Candidate
from gateway.routing.cost import TYPICAL_OUTPUT_TOKENS
from gateway.routing.policy import worth_usd

QUALITIES = (0.0, 0.3, 0.5, 0.7, 0.9, 1.0)
TYPICAL_PROMPT_TOKENS = 300


def shares(
    measure: Measure, pool: Sequence[Candidate], profiles: Sequence[CapabilityProfile]
) -> Mapping[str, Mapping[str, float]]:
    """By quality (as text), the share of typical prompts on which each candidate has the highest utility.

    Time, sessions and abstention are left out; an unknown price counts as the dearest known, as in routing.
    """
    p = measure.typical_p(profiles)
    costs = [_cost_usd(candidate) for candidate in pool]
    dearest = max((cost for cost in costs if cost is not None), default=0.0)
    cost = np.array([dearest if each is None else each for each in costs])
    found = {}
    for quality in QUALITIES:
        winners = np.argmax(p - cost / worth_usd(quality), axis=1)
        counts = np.bincount(winners, minlength=len(pool)) / len(p)
        found[f"{quality:g}"] = {one.name: round(float(share), 4) for one, share in zip(pool, counts, strict=True)}
    return found


def _cost_usd(candidate: Candidate) -> float | None:
    if candidate.price_in is None and candidate.price_out is None:
        return None
    money = TYPICAL_PROMPT_TOKENS * (candidate.price_in or 0.0) + TYPICAL_OUTPUT_TOKENS * (candidate.price_out or 0.0)
    return money / 1e6
