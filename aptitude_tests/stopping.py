"""When further calls are not worth their money: they would hardly move what routing believes of the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aptitude_tests.ability import Measure, profile_of_records
from aptitude_tests.flow import Record
from aptitude_tests.item import Item
from capability_encoder.profile import CapabilityProfile

#: Expected mean change of P(correct) below which the rest is not asked.
ENOUGH = 0.015
FIRST_LOOK = 40
BETWEEN_LOOKS = 20


@dataclass(frozen=True, slots=True)
class HardlyMoves:
    """An `EarlyStop`: true of the records so far and the items left, so a repeated run stops at the same place.

    Attributes:
        enough: threshold on the expected mean |change| of P(correct).
    """

    measure: Measure
    facts: CapabilityProfile
    suite: str
    items: Sequence[Item]
    enough: float = ENOUGH

    def __call__(self, records: Sequence[Record]) -> str | None:
        """Why to stop after these records, None to go on."""
        asked = {record.item.id for record in records}
        left = [item for item in self.items if item.id not in asked]
        answered = [record.item for record in records if record.verdict is not None]
        if not left or not answered:
            return None
        profile = profile_of_records(self.facts, self.suite, records, self.measure.bank)
        movement = self.measure.movement(profile, answered, left)
        if movement >= self.enough:
            return None
        return (
            f"Stopped after {len(records)} of {len(self.items)} questions: the others would move P(correct) "
            f"by {100 * movement:.1f} points on average, too little to change routing."
        )


def looks(total: int) -> tuple[int, ...]:
    """Numbers of items after which to look whether it is enough."""
    return tuple(range(FIRST_LOOK, total, BETWEEN_LOOKS))
