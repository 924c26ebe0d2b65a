"""The border between policy and whatever predicts quality: a Protocol and its values.

The trained capability encoder and the documented prior both stand behind `Scorer`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from gateway.registry.records import Candidate


@dataclass(frozen=True, slots=True)
class Score:
    """P(this candidate answers well), with a 90 % interval, all in 0..1, and what drove it (logits or plain text).

    `measured`: whether any answer or grade of this candidate stands behind p, rather than its size and price alone.
    """

    p: float
    p_low: float
    p_high: float
    why: Mapping[str, float | str] = field(default_factory=dict)
    measured: bool = True


@dataclass(frozen=True, slots=True)
class ScoreTable:
    """Scores of all candidates for one ask.

    `version` names the scorer and its artefact; `is_prior` says that nothing was learned from data.
    `novelty` is 0 for an ask like those known, 1 for one unlike anything known. `neighbours` are
    `(id, category, similarity)` of the nearest known prompts. `shadow` holds p of an artefact on trial; `vector` is
    the ask as the scorer saw it, for learning from feedback, and never leaves the process.
    """

    scores: Mapping[str, Score]
    version: str
    is_prior: bool
    novelty: float = 0.0
    neighbours: tuple[tuple[str, str, float], ...] = ()
    shadow: Mapping[str, float] | None = None
    shadow_version: str | None = None
    vector: Any = None


class Scorer(Protocol):
    """Predicts quality. Must not block the event loop; any number of candidates, any language, empty asks too."""

    @property
    def version(self) -> str: ...

    async def score(self, ask: str, candidates: Sequence[Candidate]) -> ScoreTable:
        """One `Score` for each candidate, by name."""
        ...
