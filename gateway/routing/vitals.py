"""How healthy and how fast a candidate is, as the router sees it: a value and a Protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from gateway.registry.records import Candidate


@dataclass(frozen=True, slots=True)
class Vitals:
    """`available` is false while every deployment's circuit is open. Times are moving averages, None if unknown."""

    available: bool = True
    ttft_s: float | None = None
    tokens_per_s: float | None = None
    output_tokens: float | None = None
    retry_in_s: float = 0.0


class HealthView(Protocol):
    def vitals(self, candidate: Candidate) -> Vitals: ...
