"""`Wish`: how a model shall be measured, as it travels from the command line through a job to whoever runs it."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from aptitude_tests.caller import FlowLimits

DEFAULT_SUITE = "core-50x20"
DEFAULT_BUDGET = 100
FIRST_TAKE = "first"


@dataclass(frozen=True, slots=True)
class Wish:
    """One measurement.

    Attributes:
        suite: a bundled suite, a task file, or a folder of them.  seed: its parallel form.
        budget: questions at most, with an early end; None with `full`, which asks them all.
        max_usd, max_calls: caps.  concurrency: calls side by side.  call_s: longest wait for one answer.
        take: answers of earlier runs with the same take are used again.
        reprofile: compare with the stored profile.
        suite_data: folder with the texts of suites that are not bundled.
        circle: hard choice items of uncalibrated suites must be right with rotated options too.
    """

    suite: str = DEFAULT_SUITE
    seed: int = 0
    budget: int | None = DEFAULT_BUDGET
    full: bool = False
    max_usd: float | None = None
    max_calls: int | None = None
    concurrency: int = 16
    call_s: float = 60.0
    max_tokens: int = 2048
    take: str = FIRST_TAKE
    reprofile: bool = False
    suite_data: str | None = None
    circle: bool = True
    probes: bool = True

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Wish:
        """From a record; unknown names are left out, for a job may have been written by another version."""
        names = {field.name for field in fields(cls)}
        if given.get("fresh"):
            given = {**given, "take": fresh_take()}
        wish = {name: value for name, value in given.items() if name in names and value is not None}
        if wish.get("full"):
            wish["budget"] = None
        return cls(**wish)

    def as_record(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)

    @property
    def limits(self) -> FlowLimits:
        """Bounds of the run."""
        return FlowLimits(
            concurrency=self.concurrency,
            call_s=self.call_s,
            max_tokens=self.max_tokens,
            max_usd=self.max_usd,
            max_calls=self.max_calls,
        )


def fresh_take() -> str:
    """A take that no answer belongs to yet."""
    return secrets.token_hex(6)
