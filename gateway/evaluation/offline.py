"""The same decisions without a gateway: the encoder on the stored profiles, prompt by prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel

from gateway.encoder.profiles import profile_of
from gateway.evaluation.asking import Asked
from gateway.evaluation.recorded import FloatArray, RecordedPool
from gateway.registry.records import Endpoint
from gateway.registry.registry import opened
from gateway.routing.features import extract_features
from gateway.settings import Settings

#: A float32 sum in another order, and the header's six digits.
ROUNDING = 2e-4


class Agreement(BaseModel):
    """Offline against HTTP at quality 1: p of the chosen model, the choice, and routed accuracy.

    `same` counts prompts with the same choice; a tie within rounding counts as the same.
    """

    prompts: int
    same: int
    largest_p_difference: float
    accuracy_http: float
    accuracy_offline: float

    @property
    def agrees(self) -> bool:
        return self.same == self.prompts and self.largest_p_difference <= ROUNDING


@dataclass(frozen=True, slots=True)
class Offline:
    """What the encoder says of every prompt and model.

    Attributes:
        p: `[n, M]` P(correct).
        counted: `[n, M]` what a choice goes by: p, or the interval's lower end for a model that was never measured.
    """

    p: FloatArray
    counted: FloatArray
    version: str


async def score_offline(state_dir: Path, artifact: Path | None, pool: RecordedPool) -> Offline:
    """Score by the artefact and by the profiles in a gateway's registry."""
    from capability_encoder.scorer import CapabilityScorer

    scorer = CapabilityScorer.load(artifact)
    async with opened(Settings(state_dir=state_dir)) as registry:
        candidates = [registry.candidate(name) for name in pool.names]
        stored = dict(registry.snapshot.profiles)
    profiles = [profile_of(item, stored.get(item.name), scorer.known_models) for item in candidates]
    prepared = scorer.prepare(profiles)
    asks = [_ask(prompt.text) for prompt in pool.prompts]
    vectors = np.stack([scorer.embedder.embed_one(ask) for ask in asks])
    scores = scorer.score_many(vectors, prepared)
    p, low = (np.asarray(values, dtype=np.float64) for values in (scores.p, scores.p_low))
    unmeasured = np.array([profile.known_as is None and not profile.answers for profile in profiles])
    return Offline(p, np.where(unmeasured, low, p), scorer.version)


def _ask(text: str) -> str:
    body = {"messages": [{"role": "user", "content": text}]}
    return extract_features(body, Endpoint.CHAT).ask


def compare(pool: RecordedPool, offline: Offline, asked: Sequence[Asked]) -> Agreement:
    """Answered requests at quality 1 against what counts most offline."""
    counted = offline.counted
    column_of = {name: column for column, name in enumerate(pool.names)}
    rows = [row for row, one in enumerate(asked) if one.error is None and one.model in column_of]
    chosen = np.array([column_of[asked[row].model or ""] for row in rows])
    said = np.array([asked[row].p if asked[row].p is not None else np.nan for row in rows])
    mine = offline.p[rows, chosen]
    best = counted[rows].argmax(axis=1)
    same = (best == chosen) | (counted[rows].max(axis=1) - counted[rows, chosen] <= ROUNDING)
    return Agreement(
        prompts=len(rows),
        same=int(same.sum()),
        largest_p_difference=float(np.abs(mine - said).max()) if rows else 0.0,
        accuracy_http=float(pool.scores[rows, chosen].mean()) if rows else 0.0,
        accuracy_offline=float(pool.scores[rows, best].mean()) if rows else 0.0,
    )
