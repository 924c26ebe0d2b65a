"""Whether a model answers otherwise than when it was measured before: a paired comparison on the items of both."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from capability_encoder.profile import CapabilityProfile

#: A change counts as drift where it is unlikely to be chance and large enough to matter.
UNLIKELY = 0.01
MATTERS = 0.03


@dataclass(frozen=True, slots=True)
class Drift:
    """Before against after on the items of both measurements.

    Attributes:
        items: asked both times.  better, worse: of these, now right and now wrong.
        change: in the share of right answers.  p_value: exact sign test on the items that changed.
    """

    items: int
    better: int
    worse: int
    change: float
    p_value: float

    @property
    def is_drift(self) -> bool:
        """Whether the model has changed."""
        return self.p_value < UNLIKELY and abs(self.change) >= MATTERS

    def as_record(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {**asdict(self), "is_drift": self.is_drift}

    def __str__(self) -> str:
        if not self.items:
            return "No item was asked both times; drift cannot be told."
        what = "It has changed" if self.is_drift else "No change beyond chance"
        return (
            f"{what}: {100 * self.change:+.1f} points on {self.items} items asked both times "
            f"({self.better} now right, {self.worse} now wrong, p = {self.p_value:.3g})."
        )


def compare(before: CapabilityProfile, after: CapabilityProfile) -> Drift:
    """Drift from one profile of a model to the next."""
    old = {answer.item: answer.score for answer in before.answers}
    pairs = [(old[answer.item], answer.score) for answer in after.answers if answer.item in old]
    if not pairs:
        return Drift(0, 0, 0, 0.0, 1.0)
    better = sum(new > was for was, new in pairs)
    worse = sum(new < was for was, new in pairs)
    change = sum(new - was for was, new in pairs) / len(pairs)
    return Drift(len(pairs), better, worse, change, sign_test(better, worse))


def sign_test(better: int, worse: int) -> float:
    """Two-sided p-value of `better` against `worse` under even odds, exact."""
    changed = better + worse
    if changed == 0:
        return 1.0
    tail = sum(math.comb(changed, k) for k in range(min(better, worse) + 1)) / 2**changed
    return float(min(1.0, 2.0 * tail))
