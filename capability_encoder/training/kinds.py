"""Known prompts -> `Familiarity`: the kinds of prompts the scorer was fitted on, and how far each reaches."""

from __future__ import annotations

import numpy as np

from capability_encoder.familiarity import Familiarity
from capability_encoder.training.data import FloatArray, IntArray, TextArray

DIRECTIONS = 48
#: Share of the pooled covariance that is kept to its diagonal: kinds have fewer prompts than the space has dimensions.
SHRINKAGE = 0.3
FEWEST_PROMPTS = 25
#: Kinds whose prompts fewer models answered tell how hard they are, but not on what models differ.
FEWEST_MODELS = 6
_REACH = 0.95
_PSEUDO_PROMPTS = 50


def fit_familiarity(embedding: FloatArray, structure: FloatArray, kinds: TextArray, models: IntArray) -> Familiarity:
    """Fit centres and radii of all kinds with enough prompts; the rest counts as one kind.

    Args:
        embedding: `[N, E]`.  structure: `[N, S]`.  kinds: `[N]` labels, as `data set|category`.
        models: `[N]` how many models answered each prompt.
    """
    mean = embedding.mean(axis=0)
    centred = embedding - mean
    values, vectors = np.linalg.eigh((centred.T @ centred).astype(np.float64) / len(centred))
    kept = np.argsort(-values)[: min(DIRECTIONS, len(values))]
    top = vectors[:, kept] * np.sign(vectors[np.abs(vectors[:, kept]).argmax(axis=0), kept])
    directions = (top / np.sqrt(np.maximum(values[kept], 1e-12))).astype(np.float32)
    form_mean = structure.mean(axis=0)
    form_scale = structure.std(axis=0) + 1e-6
    points = np.concatenate([centred @ directions, np.clip((structure - form_mean) / form_scale, -5.0, 5.0)], axis=1)
    names, counts = np.unique(kinds, return_counts=True)
    large = set(names[counts >= FEWEST_PROMPTS])
    label = np.array([kind if kind in large else "" for kind in kinds])
    names, member = np.unique(label, return_inverse=True)
    centres = np.stack([points[member == place].mean(axis=0) for place in range(len(names))])
    gaps = (points - centres[member]).astype(np.float64)
    covariance = gaps.T @ gaps / len(gaps)
    covariance = (1.0 - SHRINKAGE) * covariance + SHRINKAGE * np.diag(np.diag(covariance))
    covariance += 1e-6 * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    whiten = np.linalg.cholesky(np.linalg.inv(covariance)).astype(np.float32)
    distances = np.linalg.norm((points - centres[member]) @ whiten, axis=1)
    overall = float(np.quantile(distances, _REACH))
    sizes = np.bincount(member)
    own = np.array([np.quantile(distances[member == place], _REACH) for place in range(len(names))])
    radii = (sizes * own + _PSEUDO_PROMPTS * overall) / (sizes + _PSEUDO_PROMPTS)
    return Familiarity(
        mean=mean.astype(np.float32),
        directions=directions,
        form_mean=form_mean.astype(np.float32),
        form_scale=form_scale.astype(np.float32),
        whiten=whiten,
        centres=(centres @ whiten).astype(np.float32),
        radii=radii.astype(np.float32),
        compared=np.bincount(member, models) >= FEWEST_MODELS * sizes,
    )
