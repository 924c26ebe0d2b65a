"""What production taught, put to use: tokens updated by grades, and a re-rank by evidence near the prompt.

The re-rank is Model Spider's second stage (NeurIPS 2023, section 4.3) with graded answers as the model-specific
evidence: a model that did better (or worse) than predicted on similar prompts is moved up (or down).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from capability_encoder.online import Evidence, learn
from capability_encoder.posterior import Gaussian, attenuation
from capability_encoder.scorer import CapabilityScorer, Pool

FloatArray = npt.NDArray[np.float32]

GRADE_WEIGHT = 0.5
"""A grade counts half as much as a graded aptitude answer: users' thumbs are noisier than exact scorers."""
SHARPNESS = 24.0
"""Weight of a graded prompt: exp(SHARPNESS * (cosine - 1)); a cosine of 0.9 counts a tenth."""
SHRINKAGE = 8.0
"""Pseudo-count of grades that agree with the prediction: single grades move little."""
MOST_SHIFT = 0.25


class Residuals(NamedTuple):
    """One model's graded prompts: unit embeddings `[n, E]`, and score minus predicted p `[n]`."""

    embeddings: FloatArray
    errors: FloatArray


@dataclass(frozen=True, slots=True)
class Lessons:
    """Grades as a pool can use them, by model name."""

    evidence: Mapping[str, Evidence]

    def teach(self, scorer: CapabilityScorer, pool: Pool) -> Pool:
        """The pool with every token updated by its model's grades (conjugate Bayesian step, no retraining)."""
        means, covariances = pool.means.copy(), pool.covariances.copy()
        for column, name in enumerate(pool.names):
            evidence = self.evidence.get(name)
            if evidence is None:
                continue
            place = scorer.locate(evidence.vectors)
            factor = attenuation(place.item_variance)
            prior = Gaussian(means[column], covariances[column])
            beside = (place.logit(pool) - place.design @ pool.means.T)[:, column]
            token = learn(prior, place.design * factor[:, None], beside * factor, evidence.scores, weight=GRADE_WEIGHT)
            means[column], covariances[column] = token.mean, token.covariance
        return replace(pool, means=means, covariances=covariances)

    def residuals(self, scorer: CapabilityScorer, pool: Pool) -> dict[str, Residuals]:
        """What a taught pool still gets wrong on its graded prompts."""
        width = scorer.embedder.embedding_dimension
        found = {}
        for column, name in enumerate(pool.names):
            evidence = self.evidence.get(name)
            if evidence is not None:
                p = scorer.score_many(evidence.vectors, pool).p[:, column]
                errors = (evidence.scores - p).astype(np.float32)
                found[name] = Residuals(_unit(evidence.vectors[:, :width]), errors)
        return found


def local_shift(residuals: Residuals, embedding: FloatArray) -> float:
    """How much p moves for a prompt `[E]`: the weighted mean error of similar graded prompts, shrunken to 0.

    Returns:
        A value in -MOST_SHIFT..MOST_SHIFT; near 0 where nothing similar was graded.
    """
    weights = np.exp(SHARPNESS * (residuals.embeddings @ _unit(embedding) - 1.0))
    shift = float(weights @ residuals.errors) / (float(weights.sum()) + SHRINKAGE)
    return max(-MOST_SHIFT, min(MOST_SHIFT, shift))


def _unit(vectors: FloatArray) -> FloatArray:
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, 1e-9), dtype=np.float32)
