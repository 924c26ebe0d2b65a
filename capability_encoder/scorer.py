"""The capability encoder at run time: prompt x models -> calibrated P(correct), with an interval and its reasons.

logit p = ability(model) + difficulty(prompt) + interaction(prompt, model); numpy, onnxruntime and faiss only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from capability_encoder.artifact import SHIPPED, open_artifact
from capability_encoder.embed import PromptEmbedder
from capability_encoder.memory import MemorySettings, OutcomeMemory
from capability_encoder.posterior import (
    Float64Array,
    Gaussian,
    attenuation,
    outer_triangle,
    pack_symmetric,
    sigmoid,
    update,
    update_with_common_error,
)
from capability_encoder.profile import CapabilityProfile, match_answers
from capability_encoder.recent import Recent
from capability_encoder.state import ScorerState, design_of, from_arrays, remember
from capability_encoder.views import PromptViews

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
KIND = "capability-scorer-3"
LAYERS = (3, 4, 5, 6)
"""Encoder layers that the views use: middle ones tell difficulty, the last one finds neighbours."""
_NORMAL_90 = 1.6449
_CLUSTER_NEIGHBOURS = 5
# Inverted lists and how many are searched: the five nearest as from 32 of 683 (.935 of them for ordinary prompts, .96
# for reworded known ones; from 113 of 683: .97), and the index is trained in a fifth of the time.
_LISTS, _PROBES = 256, 20
_MOST_RECENT = 2048
_MOST_PLACES = 16384
_MOST_POSTERIORS = 4096


class Neighbour(NamedTuple):
    """A known prompt near the one asked: its id, category, and cosine similarity."""

    prompt_id: str
    category: str
    similarity: float


class Coordinates(NamedTuple):
    """Design rows of prompts, after doubt about unfamiliar ones.

    Attributes:
        design: `[B, W]`.  novelty: `[B]` in 0..1.
        own: `[B, K]` logits that the own heads of the K known models add.
        item_variance: `[B]` of what the text cannot tell; level_variance: `[B]` the part that prompts like it share.
    """

    design: Float64Array
    item_variance: Float64Array
    level_variance: Float64Array
    novelty: Float64Array
    own: FloatArray

    def logit(self, pool: Pool) -> Float64Array:
        """Expected logit `[B, M]` of the pool's models, before averaging over what is unknown."""
        logit = np.asarray(self.design @ pool.means.T, dtype=np.float64)
        if len(pool._with_own):
            logit[:, pool._with_own] += self.own[:, pool._own_columns]
        return logit


@dataclass(frozen=True, slots=True)
class Pool:
    """Candidates ready to be scored.

    Attributes:
        names: M of them.  means: `[M, W]` and covariances `[M, W, W]` of their posteriors.
        own: `[M]` column of the known model whose own head counts too, -1 for none; None where nobody has one.
    """

    names: tuple[str, ...]
    means: Float64Array
    covariances: Float64Array
    own: IntArray | None = None
    _spreads: FloatArray = field(init=False, repr=False, compare=False)
    _with_own: IntArray = field(init=False, repr=False, compare=False)
    _own_columns: IntArray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_spreads", pack_symmetric(self.covariances))
        own = np.full(len(self.names), -1, dtype=np.int64) if self.own is None else self.own
        object.__setattr__(self, "_with_own", np.flatnonzero(own >= 0))
        object.__setattr__(self, "_own_columns", own[own >= 0])

    def variance(self, design: Float64Array) -> Float64Array:
        """Variance of the logit `[B, M]` that is left of the weights, for design rows `[B, W]`."""
        return np.asarray(np.maximum(outer_triangle(design) @ self._spreads.T, 0.0), dtype=np.float64)

    def __len__(self) -> int:
        return len(self.names)


class ScoreArrays(NamedTuple):
    """Scores of B prompts by M models, each `[B, M]`: probability and 90 % interval."""

    p: FloatArray
    p_low: FloatArray
    p_high: FloatArray


@dataclass(frozen=True, slots=True)
class ScoreBatch:
    """Scores of M models for one prompt, with what drove them.

    Attributes:
        p, p_low, p_high: `[M]` in 0..1, the latter two a 90 % interval of the rate among prompts like this one.
        ability, interaction: `[M]` logits; difficulty: logits, higher is harder.
            logit p = ability + interaction - difficulty, before averaging over what is unknown of the prompt.
        novelty: 0 familiar .. 1 unlike anything known.
        neighbours: nearest known prompts.  clusters: their categories with weights, heaviest first.
    """

    names: tuple[str, ...]
    p: FloatArray
    p_low: FloatArray
    p_high: FloatArray
    ability: FloatArray
    interaction: FloatArray
    difficulty: float
    novelty: float
    neighbours: tuple[Neighbour, ...]
    clusters: tuple[tuple[str, float], ...]


class CapabilityScorer:
    """Scores prompts for any number of candidates. Immutable and safe to share between threads."""

    def __init__(self, state: ScorerState, embedder: PromptEmbedder, *, version: str = "in-memory") -> None:
        self.state = state
        self.version = version
        self.embedder = PromptViews(embedder, state.grams)
        self._row_of = {prompt_id: row for row, prompt_id in enumerate(state.items.ids)}
        self._column_of = {name: column for column, name in enumerate(state.known)}
        with_own = set(np.flatnonzero(np.abs(state.heads.own.near).max(axis=0)).tolist())
        self._own_column = {name: column for name, column in self._column_of.items() if column in with_own}
        vectors = state.memory.astype(np.float32) / 127.0
        lists = min(_LISTS, max(len(vectors) // 39, 1))
        settings = MemorySettings(storage="int8", kind="ivf", lists=lists, probes=min(_PROBES, lists))
        self._memory = OutcomeMemory.build(vectors, settings)
        self._posteriors: dict[CapabilityProfile, Gaussian] = {}
        self._places: dict[str, tuple[Float64Array, float, float, float, FloatArray] | None] = {}
        self._recent: Recent[tuple[Coordinates, tuple[Neighbour, ...]]] = Recent(_MOST_RECENT)

    @classmethod
    def load(cls, folder: Path | str | None = None, embedder: PromptEmbedder | None = None) -> CapabilityScorer:
        """Open an artefact (default: the shipped one).

        Raises:
            ArtifactError: missing, corrupt, of another version, or made for another embedder.
        """
        embedder = embedder or PromptEmbedder.load(layers=LAYERS)
        artifact = open_artifact(folder or SHIPPED, kind=KIND, embedder=embedder.fingerprint)
        groups = {name: artifact.arrays(name) for name in ("grams", "features", "models", "items", "kinds", "memory")}
        return cls(from_arrays(groups, artifact.record("scorer")), embedder, version=artifact.version)

    @property
    def known_models(self) -> tuple[str, ...]:
        """Models whose outcomes the artefact was fitted on."""
        return self.state.known

    @property
    def item_ids(self) -> tuple[str, ...]:
        """Ids of the item bank: answers to these need no text."""
        return self.state.items.ids

    def prepare(self, profiles: Sequence[CapabilityProfile], texts: Mapping[str, str] | None = None) -> Pool:
        """Posterior of each model from what is known of it.

        Args:
            profiles: `known_as` names a model of `known_models`; its answers then add to what the artefact knows.
            texts: prompt texts of answered items that the bank does not hold.
        Raises:
            UnknownItemsError: an answer's item is in neither.
        """
        if texts is None:
            gaussians = [self._posterior_of(profile) for profile in profiles]
        else:
            gaussians = [self._posterior(profile, texts) for profile in profiles]
        width = self.state.width
        means = np.array([gaussian.mean for gaussian in gaussians]).reshape(-1, width)
        own = np.array([self._own_column.get(profile.known_as or "", -1) for profile in profiles], dtype=np.int64)
        means[own >= 0, 2:] *= self.state.calibration.known_share
        return Pool(
            names=tuple(profile.name for profile in profiles),
            means=means,
            covariances=np.array([gaussian.covariance for gaussian in gaussians]).reshape(-1, width, width),
            own=own,
        )

    def score(self, prompt: str | FloatArray, pool: Pool, *, neighbours: int = 5) -> ScoreBatch:
        """Scores of one prompt, given as text or as its vector from `embedder`, with the reasons."""
        views = self.embedder.embed_one(prompt) if isinstance(prompt, str) else prompt
        wanted = max(neighbours, _CLUSTER_NEIGHBOURS)
        key = hashlib.blake2b(views.tobytes(), digest_size=16, salt=wanted.to_bytes(8, "little")).digest()
        place, found = self._recent.get(key, lambda: (self.locate(views[None]), self._neighbours(views, wanted)))
        logit = place.logit(pool)
        scores = self._score(place, pool, logit)
        ability, ease = pool.means[:, 0], place.design[0, 1]
        return ScoreBatch(
            names=pool.names,
            p=scores.p[0],
            p_low=scores.p_low[0],
            p_high=scores.p_high[0],
            ability=ability.astype(np.float32),
            interaction=(logit[0] - ability - ease).astype(np.float32),
            difficulty=-float(ease),
            novelty=float(place.novelty[0]),
            neighbours=found[:neighbours],
            clusters=_weigh_categories(found),
        )

    def _neighbours(self, views: FloatArray, count: int) -> tuple[Neighbour, ...]:
        """The known prompts nearest to one prompt, at most `count`."""
        memory = remember(views[None, : self.embedder.embedding_dimension], self.state.memory_projection)
        near = self._memory.search(memory, count)
        items = self.state.items
        return tuple(
            Neighbour(items.ids[row], items.categories[row], similarity)
            for row, similarity in zip(near.rows[0].tolist(), near.similarity[0].tolist(), strict=True)
            if row >= 0
        )

    def score_many(self, vectors: FloatArray, pool: Pool) -> ScoreArrays:
        """Scores `[B, M]` of vectors `[B, D]` from `embedder`."""
        place = self.locate(vectors)
        return self._score(place, pool, place.logit(pool))

    def locate(self, vectors: FloatArray) -> Coordinates:
        """Where prompts `[B, D]` from `embedder` lie for the models' tokens.

        A prompt of an unknown kind is pulled towards the ease of the aptitude items: its text misleads about its own.
        """
        calibration = self.state.calibration
        raw = self.state.heads.locate(self.state.feature_map.expand(vectors))
        ratio, compared = (each.astype(np.float64) for each in self.state.familiarity.ratios(vectors))
        # Nothing was read of an empty prompt or of one in an unknown language.
        unread = ~vectors[:, : self.embedder.embedding_dimension].any(axis=1)
        ratio[unread] = compared[unread] = np.inf
        doubt = _ramp(ratio, calibration.ease_doubt)
        doubt_directions = _ramp(compared, calibration.direction_doubt)
        keep = 1.0 - doubt * (1.0 - calibration.difficulty_trust)
        difficulty = calibration.centre + keep * (raw.difficulty - calibration.centre)
        trust = (1.0 - doubt_directions * (1.0 - calibration.direction_trust))[:, None]
        level = doubt * calibration.centre_variance
        return Coordinates(
            design=np.concatenate([np.ones((len(vectors), 1)), difficulty[:, None], raw.directions * trust], axis=1),
            item_variance=calibration.item_variance + level,
            level_variance=level,
            novelty=_ramp(ratio, (calibration.direction_doubt[0], calibration.novel)),
            own=(raw.own * trust).astype(np.float32),
        )

    def _score(self, place: Coordinates, pool: Pool, logit: Float64Array) -> ScoreArrays:
        calibration = self.state.calibration
        variance = pool.variance(place.design)
        factor = attenuation(variance + place.item_variance[:, None])
        centre = calibration.intercept + calibration.slope * logit * factor
        shared = calibration.interval_floor**2 + place.level_variance[:, None]
        error = np.sqrt(calibration.interval_scale**2 * variance + shared)
        half = _NORMAL_90 * calibration.slope * factor * error
        return ScoreArrays(*sigmoid(np.stack([centre, centre - half, centre + half])).astype(np.float32))

    def _posterior_of(self, profile: CapabilityProfile) -> Gaussian:
        """`_posterior`, kept. A dictionary, for `lru_cache` over a method makes a cycle and keeps a retired scorer."""
        found = self._posteriors.get(profile)
        if found is None:
            if len(self._posteriors) >= _MOST_POSTERIORS:
                self._posteriors.clear()
            found = self._posteriors[profile] = self._posterior(profile)
        return found

    def _posterior(self, profile: CapabilityProfile, texts: Mapping[str, str] | None = None) -> Gaussian:
        state = self.state
        column = self._column_of.get(profile.known_as) if profile.known_as is not None else None
        start = state.weights[column] if column is not None else state.population.prior(profile)
        matched = match_answers(profile.answers, self._row_of, texts)
        rows = np.array(matched.bank_rows, dtype=np.int64)
        scores = np.array(matched.bank_scores, dtype=np.float64)
        if column is not None and len(rows):
            # What the artefact was fitted on must not count a second time.
            byte, bit = divmod(column, 8)
            fresh = (state.items.answered[rows, byte] >> (7 - bit)) & 1 == 0
            rows, scores = rows[fresh], scores[fresh]
        slope = state.items.slope[rows].astype(np.float64)
        factor = slope * attenuation(slope**2 * state.items.variance[rows])
        design = design_of(state.items.coordinates[rows]) * factor[:, None]
        offset = state.items.offset[rows].astype(np.float64) * factor
        if matched.texts:
            place = self.locate_texts(matched.texts)
            factor = attenuation(place.item_variance)
            shared = np.concatenate([np.zeros(len(offset)), factor])
            design = np.concatenate([design, place.design * factor[:, None]])
            offset = np.concatenate([offset, np.zeros(len(factor))])
            scores = np.concatenate([scores, np.array(matched.text_scores)])
            if texts is None:
                # Items with a text of their own are a suite that nobody else has answered; its level is unknown.
                variance = state.calibration.centre_variance
                return update_with_common_error(start, design, offset, scores, shared, variance)
        return update(start, design, offset, scores)

    def is_placed(self, profile: CapabilityProfile) -> bool:
        """Whether `prepare` needs to embed nothing for this profile. Items that cannot be placed at all count as so."""
        bank, places = self._row_of, self._places
        return all(each.item in bank or each.text is None or each.text in places for each in profile.answers)

    def locate_texts(self, texts: Sequence[str]) -> Coordinates:
        """Places of texts; those of one suite come again with every profile, so they are kept."""
        places = {text: self._places.get(text) for text in texts}
        fresh = [text for text, place in places.items() if place is None]
        if fresh:
            found = self.locate(self.embedder.embed(fresh))
            rows = zip(*found, strict=True)
            placed = dict(zip(fresh, rows, strict=True))
            places.update(placed)
            if len(self._places) + len(placed) > _MOST_PLACES:
                self._places.clear()
            self._places.update(placed)
        return Coordinates(*(np.array(part) for part in zip(*(places[text] for text in texts), strict=True)))


def _ramp(values: Float64Array, ends: tuple[float, float]) -> Float64Array:
    """0 up to the first end, 1 from the second."""
    return np.minimum(np.maximum((values - ends[0]) / (ends[1] - ends[0]), 0.0), 1.0)


def _weigh_categories(neighbours: Sequence[Neighbour]) -> tuple[tuple[str, float], ...]:
    weights: dict[str, float] = {}
    for neighbour in neighbours:
        weights[neighbour.category] = weights.get(neighbour.category, 0.0) + max(neighbour.similarity, 0.0) ** 4
    total = sum(weights.values())
    if total <= 0.0:
        return ()
    ordered = sorted(weights.items(), key=lambda entry: -entry[1])
    return tuple((name, weight / total) for name, weight in ordered)
