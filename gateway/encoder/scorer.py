"""`EncoderScorer`: the trained capability encoder behind `gateway.routing.scoring.Scorer`.

Loaded in a thread when the first request needs it (or ahead, by `warm_up`); until then, and where no artefact can be
used, the documented prior answers and says so. Encoding runs in a small thread pool, never on the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from gateway.collector import give_back_memory, keep_for_good
from gateway.encoder.loaded import Loaded, current_stamp, open_loaded, version_store
from gateway.encoder.profiles import scores_of
from gateway.encoder.shelf import Profiles, ProfileShelf
from gateway.registry.records import Candidate
from gateway.routing.prior import PriorScorer
from gateway.routing.scoring import ScoreTable

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from capability_encoder.async_embed import AsyncEmbedder
    from capability_encoder.learning import Residuals
    from capability_encoder.near_answers import NearAnswers
    from capability_encoder.profile import CapabilityProfile
    from capability_encoder.scorer import CapabilityScorer, Pool

    Vector = npt.NDArray[np.float32]

log = logging.getLogger(__name__)
PATIENCE_S = 10.0
REFRESH_S = 1.0
MAX_POOLS = 64
MOST_ANSWERS_AT_ONCE = 5_000
"""Answers with texts in a pool up to which weighing them takes some ten milliseconds."""
PoolKey: TypeAlias = tuple[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class EncoderState:
    """For /readyz: `state` is absent, loading, ready or failed; `detail` the version or what went wrong."""

    state: str
    detail: str
    shadow: str | None = None


@dataclass(frozen=True, slots=True)
class TaughtPool:
    """A pool after what production taught, and what it still gets wrong near graded prompts.

    `unmeasured`: names of those without any answer or grade.
    `near`: the candidates' own aptitude answers, where those near a prompt tell more than the tokens do.
    """

    pool: Pool
    residuals: Mapping[str, Residuals]
    near: NearAnswers | None
    unmeasured: frozenset[str] = frozenset()


class EncoderScorer:
    """Scores by the capability encoder.

    Args:
        state_dir: holds versions, taught tasks and grades.
        artifact: folder of the artefact that is live at first; the shipped one if None.
        profiles: reads capability profiles (JSON by candidate name) of the registry's newest snapshot.
    """

    def __init__(self, state_dir: Path, artifact: Path | None, profiles: Profiles) -> None:
        self._state_dir = state_dir
        self._shelf = ProfileShelf(profiles)
        self._artifact = artifact
        self._prior = PriorScorer()
        self._loaded: Loaded | None = None
        self._embedders: dict[str, AsyncEmbedder] = {}
        self._pools: dict[PoolKey, TaughtPool] = {}
        self._building: set[asyncio.Task[TaughtPool]] = set()
        self._retiring: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None] | None = None
        self._is_open = asyncio.Event()
        self._reloading = asyncio.Lock()
        self._problem: str | None = None

    @property
    def version(self) -> str:
        return self._prior.version if self._loaded is None else self._loaded.scorer.version

    @property
    def loaded(self) -> Loaded | None:
        """What is in use; None until it is."""
        return self._loaded

    @property
    def state(self) -> EncoderState:
        if self._loaded is not None:
            shadow = self._loaded.shadow
            return EncoderState("ready", self.version, shadow.version if shadow is not None else None)
        if self._problem is not None:
            return EncoderState("failed", self._problem)
        return EncoderState("loading" if self._task is not None else "absent", "the prior answers")

    def warm_up(self) -> None:
        """Start loading, unless that has begun; returns at once."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._watch(), name="encoder")

    async def score(self, ask: str, candidates: Sequence[Candidate]) -> ScoreTable:
        """Scores of all candidates; by the prior where the encoder cannot be had within `PATIENCE_S`."""
        self.warm_up()
        if self._loaded is None and self._problem is None:
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await self._is_open.wait()
            except TimeoutError:
                log.warning("The prior decides, for the capability encoder is still loading.")
        loaded = self._loaded
        if loaded is None:
            return await self._prior.score(ask, candidates)
        from capability_encoder.async_embed import EmbedTimeout

        try:
            vector = await self._embed(loaded.scorer, ask)
        except EmbedTimeout as error:
            log.warning("The prior decides, for the encoder is too slow now: %s.", error)
            return await self._prior.score(ask, candidates)
        table = self._table(loaded, vector, candidates)
        return table if loaded.shadow is None else await self._with_shadow(loaded, ask, candidates, table)

    async def opened(self, patience_s: float) -> CapabilityScorer | None:
        """The live scorer, once it is loaded; None where it cannot be within `patience_s`."""
        self.warm_up()
        if self._loaded is None and self._problem is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience_s):
                    await self._is_open.wait()
        return None if self._loaded is None else self._loaded.scorer

    async def close(self) -> None:
        """Stop watching and let the threads go."""
        if self._task is not None:
            self._task.cancel()
        for embedder in self._embedders.values():
            await embedder.close()
        for task in self._retiring:
            task.cancel()
        await asyncio.gather(*self._building, *self._retiring, return_exceptions=True)
        await self._shelf.close()

    async def reload(self) -> None:
        """Take up changed versions, tasks and grades now. Raises ArtifactError; what was in force then stays."""
        async with self._reloading:
            before = self._loaded
            loaded = await asyncio.to_thread(self._open, before)
            if loaded is before:
                return
            self._pools.clear()
            self._loaded = loaded
            in_use = [one for one in (loaded.scorer, loaded.shadow) if one is not None]
            self._shelf.keep({one.version for one in in_use})
            for fingerprint in set(self._embedders) - {one.embedder.fingerprint for one in in_use}:
                task = asyncio.create_task(_retire(self._embedders.pop(fingerprint)), name="encoder: retire")
                self._retiring.add(task)
                task.add_done_callback(self._retiring.discard)
        if before is None:
            keep_for_good()
        elif before.scorer is not loaded.scorer:
            del before
            await asyncio.to_thread(give_back_memory)

    def _open(self, before: Loaded | None) -> Loaded:
        logging.getLogger("faiss.loader").setLevel(logging.WARNING)
        store = version_store(self._state_dir, self._artifact)
        if before is not None and before.stamp == current_stamp(store, self._state_dir):
            before.tasks.refresh()
            return before
        loaded = open_loaded(store, self._state_dir, before)
        if before is None or before.scorer is not loaded.scorer:
            self._shelf.place_all(loaded.scorer)
        return loaded

    async def _watch(self) -> None:
        """Load, then look for changes for ever; a failure is logged once and the old state stays in force."""
        from capability_encoder.artifact import ArtifactError
        from capability_encoder.embed import EmbedderError

        while True:
            try:
                await self.reload()
                if self._problem is not None or not self._is_open.is_set():
                    log.info("The capability encoder %s is ready.", self.version)
                self._problem = None
            except (ArtifactError, EmbedderError, ImportError, OSError) as error:
                if str(error) != self._problem:
                    instead = "the prior answers" if self._loaded is None else f"{self.version} stays in force"
                    log.error("The capability encoder cannot be loaded, %s: %s", instead, error)
                self._problem = str(error)
            self._is_open.set()
            await asyncio.sleep(REFRESH_S)

    async def _embed(self, scorer: CapabilityScorer, ask: str) -> Vector:
        from capability_encoder.async_embed import AsyncEmbedder

        views = scorer.embedder
        embedder = self._embedders.get(views.fingerprint)
        if embedder is None:
            embedder = self._embedders[views.fingerprint] = AsyncEmbedder(views.embed_one)
        return await embedder.vector(ask)

    def _table(self, loaded: Loaded, vector: Vector, candidates: Sequence[Candidate]) -> ScoreTable:
        import numpy as np

        from capability_encoder.learning import local_shift

        scorer = loaded.scorer
        width = scorer.embedder.embedding_dimension
        embedding, task = loaded.tasks.blend(vector[:width])
        taught = self._pool_of(scorer, loaded, candidates)
        batch = scorer.score(vector if task is None else np.concatenate([embedding, vector[width:]]), taught.pool)
        if taught.near is not None:
            batch = taught.near.refine(batch, vector, width)
        shifts = {name: local_shift(found, vector[:width]) for name, found in taught.residuals.items()}
        neighbours = tuple((near.prompt_id, near.category, round(near.similarity, 4)) for near in batch.neighbours)
        return ScoreTable(
            scores_of(batch, shifts, task, taught.unmeasured),
            version=scorer.version,
            is_prior=False,
            novelty=0.0 if task is not None else batch.novelty,
            neighbours=neighbours,
            vector=vector,
        )

    async def _with_shadow(
        self, loaded: Loaded, ask: str, candidates: Sequence[Candidate], table: ScoreTable
    ) -> ScoreTable:
        """The same table with the shadow's p beside it; a slow shadow is left out."""
        from capability_encoder.async_embed import EmbedTimeout

        shadow = loaded.shadow
        assert shadow is not None
        try:
            vector = await self._embed(shadow, ask)
        except EmbedTimeout:
            return table
        batch = shadow.score(vector, shadow.prepare([each.profile for each in self._shelf.of(shadow, candidates)]))
        scores = {name: float(p) for name, p in zip(batch.names, batch.p, strict=True)}
        return replace(table, shadow=scores, shadow_version=shadow.version)

    def _pool_of(self, scorer: CapabilityScorer, loaded: Loaded, candidates: Sequence[Candidate]) -> TaughtPool:
        shelved = self._shelf.of(scorer, candidates)
        key = (scorer.version, tuple(each.serial for each in shelved))
        found = self._pools.get(key)
        if found is None:
            profiles = [each.profile for each in shelved]
            pool = loaded.lessons.teach(scorer, scorer.prepare(profiles))
            known = loaded.lessons.evidence
            unmeasured = (p.name for p in profiles if p.known_as is None and not p.answers and p.name not in known)
            found = TaughtPool(pool, loaded.lessons.residuals(scorer, pool), None, frozenset(unmeasured))
            if len(self._pools) >= MAX_POOLS:
                self._pools.clear()
            self._pools[key] = found
            found = self._with_near(key, found, scorer, profiles)
        return found

    def _with_near(
        self, key: PoolKey, taught: TaughtPool, scorer: CapabilityScorer, profiles: Sequence[CapabilityProfile]
    ) -> TaughtPool:
        """The pool with its answers near by: at once where they are few, else once a thread has them."""
        from capability_encoder.near_answers import near_answers

        answers = sum(each.text is not None for profile in profiles for each in profile.answers)
        if answers == 0:
            return taught
        vectors = self._shelf.vectors(scorer)

        def build() -> TaughtPool:
            done = replace(taught, near=near_answers(scorer, taught.pool, profiles, vectors))
            self._pools[key] = done
            return done

        if answers <= MOST_ANSWERS_AT_ONCE:
            return build()
        task = asyncio.get_running_loop().create_task(asyncio.to_thread(build), name="answers near by")
        self._building.add(task)
        task.add_done_callback(self._building.discard)
        return taught


async def _retire(embedder: AsyncEmbedder) -> None:
    """Let requests that are under way have their vectors first."""
    try:
        await asyncio.sleep(PATIENCE_S)
    finally:
        await embedder.close()
