"""A small world with known abilities, difficulties and tastes, and the scorer fitted on it; no data set is needed."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from capability_encoder.scorer import CapabilityScorer
from capability_encoder.state import ScorerState
from capability_encoder.training.data import Outcomes
from capability_encoder.training.decomposition import FitSettings
from capability_encoder.training.fit import EncoderSettings, Recorded, fit_state
from capability_encoder.training.interaction import InteractionSettings
from capability_encoder.training.views import PromptTable, Wording
from capability_encoder.views import STRUCTURE_NAMES

WIDTH = 16
PROMPTS = 900
MODELS = 12
SETTINGS = EncoderSettings(
    decomposition=FitSettings(waves=16, interaction=InteractionSettings(landmarks=32, rank=4, penalty=20.0))
)


class PieceEmbedder:
    """Stands where a `PromptEmbedder` stands: vectors are given, word pieces are letters."""

    dimension = WIDTH
    fingerprint = "small"

    def pieces(self, text: str) -> Any:
        return SimpleNamespace(ids=[0, *(ord(letter) for letter in text), 0])


@dataclass(frozen=True)
class SmallWorld:
    """Truth of a world: `logit` `[N, M]`; its recorded prompts and their outcomes."""

    recorded: Recorded
    logit: npt.NDArray[np.float64]
    ability: npt.NDArray[np.float64]

    def fit(self, scores: npt.NDArray[np.float32] | None = None) -> ScorerState:
        everything = np.ones(PROMPTS, dtype=bool)
        outcomes = self.recorded.outcomes
        return fit_state(self.recorded, everything, outcomes.scores if scores is None else scores, SETTINGS)

    def scorer(self, state: ScorerState) -> CapabilityScorer:
        embedder: Any = PieceEmbedder()
        return CapabilityScorer(state, embedder)

    def views(self, state: ScorerState) -> npt.NDArray[np.float32]:
        return self.recorded.table.views(state.grams)


def small_world(seed: int = 0) -> SmallWorld:
    """Three topics; models of even number are better at the first one, the others at the second."""
    rng = np.random.default_rng(seed)
    topic = rng.integers(0, 3, PROMPTS)
    embedding = rng.standard_normal((PROMPTS, WIDTH)) * 0.25
    embedding[np.arange(PROMPTS), topic] += 1.5
    embedding /= np.linalg.norm(embedding, axis=1, keepdims=True)
    ability = np.linspace(-1.2, 1.2, MODELS)
    taste = np.where(np.arange(MODELS) % 2 == 0, 1.0, -1.0)
    form = rng.standard_normal((PROMPTS, len(STRUCTURE_NAMES)))
    lean = (topic == 0).astype(float) - (topic == 1)
    logit = ability + form[:, :1] + 0.5 * rng.standard_normal((PROMPTS, 1)) + 0.8 * lean[:, None] * taste
    scores = (rng.random(logit.shape) < 1.0 / (1.0 + np.exp(-logit))).astype(np.float32)
    asks = tuple("".join(rng.choice(list("abcdefgh"), 12)) for _ in range(PROMPTS))
    labels = np.array([f"topic-{number}" for number in topic])
    outcomes = Outcomes(
        prompt_ids=tuple(f"p{row}" for row in range(PROMPTS)),
        asks=asks,
        vectors=embedding.astype(np.float32),
        models=tuple(f"m{column}" for column in range(MODELS)),
        scores=scores,
        costs=np.full_like(scores, np.nan),
        datasets=np.full(PROMPTS, "small"),
        tasks=labels,
        categories=labels,
        splits=np.full(PROMPTS, "train"),
        groups=np.array([f"g{row}" for row in range(PROMPTS)]),
    )
    embedder: Any = PieceEmbedder()
    table = PromptTable.__new__(PromptTable)
    table.embedding = embedding.astype(np.float32)
    table.structure = form.astype(np.float32)
    table.wording = Wording(asks, embedder)
    recorded = Recorded.__new__(Recorded)
    recorded.outcomes, recorded.facts, recorded.embedder, recorded.table = outcomes, {}, embedder, table
    return SmallWorld(recorded, logit, ability)
