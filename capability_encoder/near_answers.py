"""Aptitude answers near the prompt: what a candidate did on the most similar items moves its p.

A model's token says how good it is at kinds of prompts that the artefact knows. A specialist may differ in kinds that
it does not know; there its own answers to similar items say more. How much they count is not assumed: each
candidate's answers are predicted from its other answers first, and count only as far as that helped.
Model Spider's re-rank (NeurIPS 2023, section 4.3) with aptitude answers as the model-specific evidence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from capability_encoder.profile import CapabilityProfile
from capability_encoder.scorer import CapabilityScorer, Pool, ScoreBatch

FloatArray = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]

NEIGHBOURS = 16
SHARPNESSES = (3.0, 6.0, 12.0, 24.0)
"""Tried: an answer weighs exp(sharpness * (its cosine - the nearest one's)); at 12, 0.1 of cosine behind is a third."""
UNRELATED, RELATED = 0.35, 0.65
"""Cosines of the last layer up to which a prompt has nothing to do with an item, and from which it is like it."""
STRENGTHS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Pseudo-counts of the token's own prediction that are tried; the answers near by are counted against it."""
LEAST_GAIN = 4.0
"""Log-likelihood that answers near by must gain on a candidate's own answers before they count at all."""
FEWEST_ANSWERS = 20
_LAYER = 384
_NORMAL_90 = 1.6449


class TextVectors:
    """Vectors of item texts as the scorer sees them, kept in half precision. Safe to read while a thread adds."""

    def __init__(self, scorer: CapabilityScorer) -> None:
        # Not the scorer itself: what is kept here may outlive it.
        self._embedder = scorer.embedder
        self._vectors: dict[str, npt.NDArray[np.float16]] = {}

    def holds(self, texts: Sequence[str]) -> bool:
        """Whether all of them are there."""
        return all(text in self._vectors for text in texts)

    def add(self, texts: Sequence[str]) -> None:
        """Embed what is not there yet; some milliseconds each, so this is for a thread."""
        for text in texts:
            if text not in self._vectors:
                self._vectors[text] = self._embedder.embed_one(text).astype(np.float16)

    def of(self, texts: Sequence[str]) -> FloatArray:
        """`[n, D]` of texts that are there."""
        return np.stack([self._vectors[text] for text in texts]).astype(np.float32)


@dataclass(frozen=True, slots=True)
class NearFit:
    """How much answers near by count.

    Attributes:
        sharpness: of the weights.
        strength: `[M]` pseudo-count of the token's own prediction; infinite where answers near by do not help.
    """

    sharpness: float
    strength: FloatArray


@dataclass(frozen=True, slots=True)
class NearAnswers:
    """Text answers of the candidates of one pool.

    Attributes:
        directions: `[T, 384]` unit vectors of the distinct item texts.
        scores, answered: `[M, T]` mean score of each candidate on each text, and how often it answered (0 or more).
        fit: how much they count.
    """

    directions: FloatArray
    scores: FloatArray
    answered: FloatArray
    fit: NearFit

    def refine(self, batch: ScoreBatch, vector: FloatArray, embedding_dimension: int) -> ScoreBatch:
        """The batch with p and its interval moved towards the candidate's answers near the prompt `[D]`."""
        direction = last_layer(vector[None], embedding_dimension)[0]
        cosines = self.directions @ direction
        near = np.argpartition(-cosines, min(NEIGHBOURS, len(cosines) - 1))[:NEIGHBOURS]
        weights = near_weights(cosines[near], self.fit.sharpness)[None, :] * self.answered[:, near]
        p, evidence = blend(batch.p, self.fit.strength, weights, self.scores[:, near])
        share = evidence / (self.fit.strength + evidence)
        spread = _NORMAL_90 * np.sqrt(p * (1.0 - p) / (1.0 + evidence))
        low = p - (1.0 - share) * (batch.p - batch.p_low) - share * spread
        high = p + (1.0 - share) * (batch.p_high - batch.p) + share * spread
        return replace(batch, p=p, p_low=_probability(low), p_high=_probability(high))


def near_answers(
    scorer: CapabilityScorer, pool: Pool, profiles: Sequence[CapabilityProfile], vectors: TextVectors
) -> NearAnswers | None:
    """What the pool's candidates answered on items with texts; None where that helps to predict none of them.

    Args:
        profiles: of the pool's candidates, in its order. Texts that `vectors` does not hold are left out.
    """
    answers = [_by_text(profile) for profile in profiles]
    texts = sorted({text for each in answers for text in each})
    texts = [text for text in texts if vectors.holds([text])]
    if len(texts) < FEWEST_ANSWERS:
        return None
    features = vectors.of(texts)
    directions = last_layer(features, scorer.embedder.embedding_dimension)
    predicted = scorer.score_many(features, pool).p.T
    shape = (len(pool), len(texts))
    scores, answered = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=np.float32)
    column_of = {text: column for column, text in enumerate(texts)}
    for row, each in enumerate(answers):
        for text, found in each.items():
            if text in column_of:
                scores[row, column_of[text]] = float(np.mean(found))
                answered[row, column_of[text]] = len(found)
    cosines = directions @ directions.T
    np.fill_diagonal(cosines, -1.0)
    fit = fit_near(cosines, predicted, scores, answered)
    return None if np.isinf(fit.strength).all() else NearAnswers(directions, scores, answered, fit)


def fit_near(cosines: FloatArray, predicted: FloatArray, scores: FloatArray, answered: FloatArray) -> NearFit:
    """How answers are best predicted from the candidate's other answers: one sharpness and strength for the pool.

    A candidate for which that gains less than `LEAST_GAIN` keeps to its token.

    Args:
        cosines: `[T, T]` between items, below -0.5 on the diagonal so that no item predicts itself.
        predicted: `[M, T]` p of the tokens, which have seen these answers: the comparison favours them.
        scores, answered: `[M, T]` as in `NearAnswers`.
    """
    near = np.argsort(-cosines, axis=1)[:, :NEIGHBOURS]
    near_cosines = np.take_along_axis(cosines, near, axis=1)
    taken = (answered > 0) & (answered.astype(bool).sum(axis=1) >= FEWEST_ANSWERS)[:, None]
    token = np.where(taken, _likelihood(predicted, scores), 0.0).sum(axis=1)
    best, fit = 0.0, NearFit(SHARPNESSES[0], np.full(len(scores), np.inf, dtype=np.float32))
    for sharpness in SHARPNESSES:
        weights = near_weights(near_cosines, sharpness)
        known = weights[None] * answered[:, near]
        evidence = known.sum(axis=2)
        right = (known * scores[:, near]).sum(axis=2)
        for strength in STRENGTHS:
            p = (strength * predicted + right) / (strength + evidence)
            gain = np.where(taken, _likelihood(p, scores), 0.0).sum(axis=1) - token
            helped = gain >= LEAST_GAIN
            if gain[helped].sum() > best:
                best = float(gain[helped].sum())
                fit = NearFit(sharpness, np.where(helped, strength, np.inf).astype(np.float32))
    return fit


def near_weights(cosines: FloatArray, sharpness: float) -> FloatArray:
    """Weights `[..., K]` of the nearest answers: relative to the nearest, all scaled by whether it is related."""
    nearest = cosines.max(axis=-1, keepdims=True)
    related = np.clip((nearest - UNRELATED) / (RELATED - UNRELATED), 0.0, 1.0)
    return np.asarray(related * np.exp(sharpness * (cosines - nearest)), dtype=np.float32)


def blend(
    p: FloatArray, strength: FloatArray, weights: FloatArray, scores: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """`[N]` p after weighted answers `[N, K]`, and the evidence `[N]` (the sum of weights).

    The mean of a beta distribution whose prior holds `strength` answers that agree with `p`.
    """
    evidence = weights.sum(axis=1)
    counts = np.isfinite(strength)
    prior = np.where(counts, strength, 1.0)
    blended = (prior * p + (weights * scores).sum(axis=1)) / (prior + evidence)
    return np.where(counts, blended, p).astype(np.float32), evidence.astype(np.float32)


def last_layer(vectors: FloatArray, embedding_dimension: int) -> FloatArray:
    """Unit vectors `[B, 384]` of the embedder's last layer, which finds neighbours best, of scorer vectors `[B, D]`."""
    layer = vectors[:, max(0, embedding_dimension - _LAYER) : embedding_dimension]
    norms = np.linalg.norm(layer, axis=1, keepdims=True)
    return np.asarray(layer / np.maximum(norms, 1e-9), dtype=np.float32)


def _by_text(profile: CapabilityProfile) -> Mapping[str, list[float]]:
    found: dict[str, list[float]] = {}
    for answer in profile.answers:
        if answer.text is not None:
            found.setdefault(answer.text, []).append(answer.score)
    return found


def _likelihood(p: FloatArray, scores: FloatArray) -> Float64Array:
    kept = np.clip(p, 0.02, 0.98).astype(np.float64)
    return np.asarray(scores * np.log(kept) + (1.0 - scores) * np.log(1.0 - kept), dtype=np.float64)


def _probability(values: npt.NDArray[np.floating[Any]]) -> FloatArray:
    return np.asarray(np.clip(values, 0.0, 1.0), dtype=np.float32)
