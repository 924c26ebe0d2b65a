"""Weights of all known models and the population they come from, by empirical Bayes (EM over Laplace posteriors)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from capability_encoder.population import FACTS, Population, facts_row
from capability_encoder.posterior import Float64Array, Gaussian, attenuation, sigmoid, update
from capability_encoder.profile import CapabilityProfile
from capability_encoder.training.data import FloatArray
from capability_encoder.training.decomposition import Additive

#: Models with fewer outcomes take part in nothing but their own posterior.
FEWEST_OUTCOMES = 100
#: Deviation of a newcomer's ability around what its facts say, against that of the models of the fit; chosen on dev.
NEWCOMER_DEVIATION = 1.5


class Evidence(NamedTuple):
    """One model's outcomes, ready for `posterior.update`: design `[n, W]`, offsets `[n]`, scores `[n]`."""

    design: Float64Array
    offsets: Float64Array
    scores: Float64Array


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """The population and the posterior of each training model (by column)."""

    population: Population
    posteriors: tuple[Gaussian, ...]


def design_rows(difficulty: Float64Array, directions: Float64Array) -> Float64Array:
    """Rows `(1, difficulty, directions)` `[N, 2 + R]`."""
    return np.column_stack([np.ones(len(difficulty)), difficulty, directions])


def evidence_of(
    design: Float64Array, difficulty: Float64Array, additive: Additive, scores: FloatArray, column: int
) -> Evidence:
    """A training model's outcomes with item offsets that its own outcome did not shape.

    An item measured on two models owes half of its calibrated ease to each: left in, every outcome would explain
    itself. One Newton step takes the model's own outcome out again.
    """
    rows = np.flatnonzero(~np.isnan(scores[:, column]))
    answers = scores[rows, column].astype(np.float64)
    slope = additive.slope[rows]
    p = sigmoid(slope * (additive.ease[rows] + additive.strength[column]))
    precision = np.maximum(1.0 / additive.variance[rows] - slope**2 * p * (1.0 - p), 1e-3)
    ease = additive.ease[rows] - slope * (answers - p) / precision
    return item_evidence(design[rows], ease - difficulty[rows], 1.0 / precision, slope, answers)


def item_evidence(
    design: Float64Array, offset: Float64Array, variance: Float64Array, slope: Float64Array, answers: Float64Array
) -> Evidence:
    """Answers to items whose offset is known up to a variance, which is averaged out."""
    factor = slope * attenuation(slope**2 * variance)
    return Evidence(design * factor[:, None], offset * factor, answers)


def fit_hierarchy(
    evidence: Sequence[Evidence],
    profiles: Sequence[CapabilityProfile],
    *,
    sweeps: int = 8,
    pseudo_models: float = 2.0,
) -> Hierarchy:
    """EM: posteriors of all models given the population, then the population given the posteriors.

    Args:
        evidence, profiles: outcomes and facts of each model.
        pseudo_models: weight of the starting covariance, in models.
    """
    width = evidence[0].design.shape[1]
    facts = np.array([facts_row(profile) for profile in profiles])
    # With nothing known, a model follows the population's difficulty one to one and has no direction of its own.
    anchor = np.zeros((len(FACTS), width))
    anchor[0, 1] = 1.0
    effects = anchor
    start = np.diag(np.concatenate([[1.0, 0.02], np.full(width - 2, 0.01)]))
    covariance = start
    rich = [column for column, known in enumerate(evidence) if len(known.scores) >= FEWEST_OUTCOMES]
    posteriors: tuple[Gaussian, ...] = ()
    for _ in range(sweeps):
        posteriors = tuple(
            update(Gaussian(row @ effects, covariance), *known) for row, known in zip(facts, evidence, strict=True)
        )
        means = np.array([posteriors[column].mean for column in rich])
        known_facts = facts[rich]
        penalty = np.diag([0.5] + [2.0] * (len(FACTS) - 1))
        effects = anchor + np.linalg.solve(
            known_facts.T @ known_facts + penalty, known_facts.T @ (means - known_facts @ anchor)
        )
        gaps = means - known_facts @ effects
        spread = gaps.T @ gaps + sum(posteriors[column].covariance for column in rich)
        covariance = (spread + pseudo_models * start) / (len(rich) + pseudo_models)
    # Facts say less of the next model than of those they were fitted on: its own answers must weigh more.
    widen = np.ones(width)
    widen[0] = NEWCOMER_DEVIATION
    return Hierarchy(Population(effects, covariance * np.outer(widen, widen)), posteriors)
