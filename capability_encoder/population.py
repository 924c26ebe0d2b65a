"""What is expected of a model before its answers: a Gaussian over its weights from size, price and age."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from capability_encoder.posterior import Float64Array, Gaussian
from capability_encoder.profile import CapabilityProfile

_SIZE = re.compile(r"(?<![a-z0-9.])(?:(\d{1,2})x)?(\d{1,3}(?:\.\d{1,2})?)b(?![a-z0-9])")
FACTS = ("one", "size_known", "log_size", "price_known", "log_price", "date_known", "years")


def facts_row(profile: CapabilityProfile) -> Float64Array:
    """`[len(FACTS)]`: each fact beside a flag that it is known; the size is read off the name where not given."""
    size = profile.params_total_b or size_in_name(profile.name)
    price = profile.price_out if profile.price_out is not None else profile.price_in
    row = np.zeros(len(FACTS))
    row[0] = 1.0
    if size:
        row[1:3] = 1.0, np.log10(size) - 1.3
    if price:
        row[3:5] = 1.0, np.log10(price)
    if profile.release_date is not None:
        year, month = (int(part) for part in profile.release_date.split("-")[:2])
        row[5:7] = 1.0, year - 2024.0 + (month - 1) / 12.0
    return row


def size_in_name(name: str) -> float | None:
    """Billions of parameters as names write it: `7b`, `8x7b` (all experts), `1.5b`; None where it says nothing."""
    found = _SIZE.search(name.lower())
    if found is None:
        return None
    experts, size = found.groups()
    return float(size) * (int(experts) * 0.85 if experts else 1.0)


@dataclass(frozen=True, slots=True)
class Population:
    """Prior of a model's weights.

    Attributes:
        effects: `[len(FACTS), W]`; the mean is `facts_row @ effects`.
        covariance: `[W, W]` of models around that mean.
    """

    effects: Float64Array
    covariance: Float64Array

    def prior(self, profile: CapabilityProfile) -> Gaussian:
        """The weights expected of a model with these facts."""
        return Gaussian(facts_row(profile) @ self.effects, self.covariance)
