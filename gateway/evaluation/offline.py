"""The same decisions without a gateway: the encoder on the stored profiles, prompt by prompt."""

from __future__ import annotations

from collections.abc import Sequence
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


async def score_offline(state_dir: Path, artifact: Path | None, pool: RecordedPool) -> tuple[FloatArray, str]:
    """P(correct) `[n, M]` by the artefact and the profiles in a gateway's registry, and the artefact's version."""
    from capability_encoder.scorer import CapabilityScorer

    scorer = CapabilityScorer.load(artifact)
    async with opened(Settings(state_dir=state_dir)) as registry:
        candidates = [registry.candidate(name) for name in pool.names]
        stored = dict(registry.snapshot.profiles)
    profiles = [profile_of(item, stored.get(item.name), scorer.known_models) for item in candidates]
    prepared = scorer.prepare(profiles)
    asks = [_ask(prompt.text) for prompt in pool.prompts]
    vectors = np.stack([scorer.embedder.embed_one(ask) for ask in asks])
    p = scorer.score_many(vectors, prepared).p
    return np.asarray(p, dtype=np.float64), scorer.version


def _ask(text: str) -> str:
    body = {"messages": [{"role": "user", "content": text}]}
    return extract_features(body, Endpoint.CHAT).ask


def compare(pool: RecordedPool, p: FloatArray, asked: Sequence[Asked]) -> Agreement:
    """Answered requests at quality 1 against the largest offline p."""
    column_of = {name: column for column, name in enumerate(pool.names)}
    rows = [row for row, one in enumerate(asked) if one.error is None and one.model in column_of]
    chosen = np.array([column_of[asked[row].model or ""] for row in rows])
    said = np.array([asked[row].p if asked[row].p is not None else np.nan for row in rows])
    mine = p[rows, chosen]
    best = p[rows].argmax(axis=1)
    same = (best == chosen) | (p[rows].max(axis=1) - mine <= ROUNDING)
    return Agreement(
        prompts=len(rows),
        same=int(same.sum()),
        largest_p_difference=float(np.abs(mine - said).max()) if rows else 0.0,
        accuracy_http=float(pool.scores[rows, chosen].mean()) if rows else 0.0,
        accuracy_offline=float(pool.scores[rows, best].mean()) if rows else 0.0,
    )
