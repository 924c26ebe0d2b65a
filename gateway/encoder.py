"""`EncoderScorer`: the trained capability encoder behind `gateway.routing.scoring.Scorer`.

Loaded in a thread when the first request needs it (or ahead, by `warm_up`); until then, and where no artefact can be
used, the documented prior answers and says so. Encoding runs in a small thread pool, never on the event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.registry.records import Candidate
from gateway.routing.prior import PriorScorer
from gateway.routing.scoring import Score, ScoreTable

if TYPE_CHECKING:
    from capability_encoder.async_embed import AsyncEmbedder
    from capability_encoder.profile import CapabilityProfile
    from capability_encoder.scorer import CapabilityScorer, Pool, ScoreBatch

log = logging.getLogger(__name__)
Profiles = Callable[[], Mapping[str, Mapping[str, Any]]]
PATIENCE_S = 10.0
MAX_POOLS = 64


@dataclass(frozen=True, slots=True)
class EncoderState:
    """For /readyz: `state` is absent, loading, ready or failed; `detail` the version or what went wrong."""

    state: str
    detail: str


class EncoderScorer:
    """Scores by the capability encoder.

    Args:
        artifact: folder of the artefact; the shipped one if None.
        profiles: reads capability profiles (JSON by candidate name) of the registry's newest snapshot.
    """

    def __init__(self, artifact: Path | None, profiles: Profiles) -> None:
        self._artifact, self._profiles = artifact, profiles
        self._prior = PriorScorer()
        self._scorer: CapabilityScorer | None = None
        self._loading: asyncio.Task[None] | None = None
        self._problem: str | None = None
        self._embedder: AsyncEmbedder | None = None
        self._pools: dict[tuple[CapabilityProfile, ...], Pool] = {}

    @property
    def version(self) -> str:
        return self._prior.version if self._scorer is None else self._scorer.version

    @property
    def state(self) -> EncoderState:
        if self._scorer is not None:
            return EncoderState("ready", self._scorer.version)
        if self._problem is not None:
            return EncoderState("failed", self._problem)
        return EncoderState("loading" if self._loading is not None else "absent", "the prior answers")

    def warm_up(self) -> None:
        """Start loading, unless that has begun; returns at once."""
        if self._scorer is None and self._loading is None and self._problem is None:
            self._loading = asyncio.get_running_loop().create_task(self._load(), name="encoder-load")

    async def score(self, ask: str, candidates: Sequence[Candidate]) -> ScoreTable:
        """Scores of all candidates; by the prior where the encoder cannot be had within `PATIENCE_S`."""
        self.warm_up()
        if self._scorer is None and self._loading is not None and not self._loading.done():
            # Shielded: a caller that leaves must not cancel the loading that others wait for.
            await asyncio.wait({self._loading}, timeout=PATIENCE_S)
        scorer, embedder = self._scorer, self._embedder
        if scorer is None or embedder is None:
            return await self._prior.score(ask, candidates)
        from capability_encoder.async_embed import EmbedTimeout

        try:
            vector = await embedder.vector(ask)
        except EmbedTimeout as error:
            log.warning("The prior decides, for the encoder is too slow now: %s.", error)
            return await self._prior.score(ask, candidates)
        pool = self._pool_of(scorer, self._profiles_of(candidates, scorer))
        return table_of(scorer.score(vector, pool), scorer.version)

    async def close(self) -> None:
        """Stop loading and let the threads go."""
        if self._loading is not None:
            self._loading.cancel()
        if self._embedder is not None:
            await self._embedder.close()

    async def _load(self) -> None:
        logging.getLogger("faiss.loader").setLevel(logging.WARNING)
        from capability_encoder.artifact import ArtifactError
        from capability_encoder.async_embed import AsyncEmbedder
        from capability_encoder.embed import EmbedderError

        try:
            scorer = await asyncio.to_thread(self._open)
            self._embedder = AsyncEmbedder(scorer.embedder.embed_one)
            self._scorer = scorer
            log.info("The capability encoder %s is ready.", self._scorer.version)
        except (ArtifactError, EmbedderError, ImportError, OSError) as error:
            self._problem = str(error)
            log.error("The capability encoder cannot be used, the prior answers instead: %s", error)

    def _open(self) -> CapabilityScorer:
        from capability_encoder.scorer import CapabilityScorer

        return CapabilityScorer.load(self._artifact)

    def _pool_of(self, scorer: CapabilityScorer, profiles: tuple[CapabilityProfile, ...]) -> Pool:
        pool = self._pools.get(profiles)
        if pool is None:
            pool = scorer.prepare(profiles)
            if len(self._pools) >= MAX_POOLS:
                self._pools.clear()
            self._pools[profiles] = pool
        return pool

    def _profiles_of(self, candidates: Sequence[Candidate], scorer: CapabilityScorer) -> tuple[CapabilityProfile, ...]:
        stored, known = self._profiles(), scorer.known_models
        return tuple(profile_of(candidate, stored.get(candidate.name), known) for candidate in candidates)


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


def table_of(batch: ScoreBatch, version: str) -> ScoreTable:
    """The encoder's arrays as the values that the router explains."""
    difficulty = round(batch.difficulty, 4)
    scores = {
        name: Score(
            p=float(batch.p[column]),
            p_low=float(batch.p_low[column]),
            p_high=float(batch.p_high[column]),
            why={
                "ability": round(float(batch.ability[column]), 4),
                "difficulty": difficulty,
                "interaction": round(float(batch.interaction[column]), 4),
            },
        )
        for column, name in enumerate(batch.names)
    }
    neighbours = tuple((near.prompt_id, near.category, round(near.similarity, 4)) for near in batch.neighbours)
    return ScoreTable(scores, version=version, is_prior=False, novelty=batch.novelty, neighbours=neighbours)
