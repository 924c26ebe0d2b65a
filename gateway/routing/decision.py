"""`RoutingDecision`: the frozen value that explains a choice. Logged, returned, replayed in tests."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Rule = Literal["named", "utility", "session", "tool_loop", "abstain", "only_one", "explore"]


@dataclass(frozen=True, slots=True)
class CandidateVerdict:
    """One candidate as the router saw it. Exactly one of `utility` and `excluded_because` is set.

    `cost_usd` is the expected cost of this request (None: no price declared), `time_s` the expected time.
    """

    model: str
    p: float | None = None
    p_low: float | None = None
    p_high: float | None = None
    cost_usd: float | None = None
    time_s: float | None = None
    utility: float | None = None
    excluded_because: str | None = None
    why: dict[str, float | str] | None = None


@dataclass(frozen=True, slots=True)
class RoutingDecision:
    """Who answers and why. `order` is the choice followed by the fallbacks; never empty.

    `rule` is the rule that fired; `reason` one sentence for people. `prior` is true while no trained scorer stands
    behind the scores. `ask_hash` is a keyed hash: text is never kept here.
    `shadow` holds what an artefact on trial (`shadow_scorer`) would have predicted.
    """

    id: str
    requested: str
    model: str
    order: tuple[str, ...]
    rule: Rule
    reason: str
    quality: float
    candidates: tuple[CandidateVerdict, ...]
    scorer: str
    prior: bool
    ask_hash: str
    session: str | None = None
    novelty: float = 0.0
    neighbours: tuple[tuple[str, str, float], ...] = ()
    features: dict[str, Any] | None = None
    decided_at: float = 0.0
    decide_ms: float = 0.0
    propensity: float = 1.0
    shadow: dict[str, float] | None = None
    shadow_scorer: str | None = None

    @property
    def chosen(self) -> CandidateVerdict | None:
        """The verdict of the chosen model; None for a named model that was not scored."""
        return next((verdict for verdict in self.candidates if verdict.model == self.model), None)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; the inverse of `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> RoutingDecision:
        """Rebuild from `to_json`. Raises TypeError for unknown fields."""
        fields = dict(data)
        fields["order"] = tuple(fields["order"])
        fields["candidates"] = tuple(CandidateVerdict(**verdict) for verdict in fields["candidates"])
        fields["neighbours"] = tuple((a, b, c) for a, b, c in fields.get("neighbours", ()))
        return cls(**fields)
