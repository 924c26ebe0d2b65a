"""Between the gateway's records and the encoder's values: candidates to profiles, score arrays to `ScoreTable`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gateway.registry.records import Candidate
from gateway.routing.scoring import Score

if TYPE_CHECKING:
    from capability_encoder.profile import CapabilityProfile
    from capability_encoder.scorer import ScoreBatch


def profile_of(candidate: Candidate, stored: Mapping[str, Any] | None, known: Sequence[str]) -> CapabilityProfile:
    """What is known of a candidate: its measured profile where there is one, else what the operator declared.

    A candidate that is called (or is upstream called) as a model the encoder was trained on is taken for that model.
    """
    from capability_encoder.profile import CapabilityProfile

    names = (candidate.name, *(place.upstream_model for place in candidate.deployments))
    known_as = next((name for name in names if name in known), None)
    declared = {
        "family": candidate.family,
        "params_total_b": candidate.params_total_b,
        "params_active_b": candidate.params_active_b,
        "price_in": candidate.price_in,
        "price_out": candidate.price_out,
        "release_date": candidate.release_date,
        "known_as": known_as,
    }
    record = {name: value for name, value in declared.items() if value is not None}
    return CapabilityProfile.from_record({**record, **(stored or {}), "name": candidate.name})


def scores_of(
    batch: ScoreBatch, shifts: Mapping[str, float], task: str | None, unmeasured: Collection[str] = ()
) -> dict[str, Score]:
    """One `Score` for each model of a batch, with its reasons.

    Args:
        shifts: by model, how far graded answers to similar prompts move p.
        task: the taught task that the prompt matches, if any.
        unmeasured: models of which there is no answer and no grade.
    """
    scores = {}
    for column, name in enumerate(batch.names):
        shift = shifts.get(name, 0.0)
        why: dict[str, float | str] = {
            "ability": round(float(batch.ability[column]), 4),
            "difficulty": round(batch.difficulty, 4),
            "interaction": round(float(batch.interaction[column]), 4),
        }
        if shift:
            why["feedback"] = round(shift, 4)
        if task is not None:
            why["task"] = task
        measured = name not in unmeasured
        if not measured:
            why["evidence"] = "none yet: size and price alone"
        p, low, high = (_clip(float(value[column]) + shift) for value in (batch.p, batch.p_low, batch.p_high))
        scores[name] = Score(p, low, high, why, measured)
    return scores


def _clip(p: float) -> float:
    return min(1.0, max(0.0, p))
