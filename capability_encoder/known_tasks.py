"""The tasks a trained scorer knows (the categories of its item bank), as an index that taught tasks join."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from capability_encoder.scorer import CapabilityScorer
from capability_encoder.state import remember
from capability_encoder.task_index import FloatArray, TaskIndex
from capability_encoder.task_store import LiveTasks, TaskStore
from capability_encoder.task_tuning import tune_settings

PROTOTYPE_ITEMS = 400
FEWEST_ITEMS = 10
"""Items per category for its prototype, at most; smaller categories are no task of their own."""
TUNING_ITEMS = 32
TUNING_CATEGORIES = 60
"""Items per category and categories that calibration is tuned on, at most: this bounds its time."""


def known_tasks(scorer: CapabilityScorer, *, seed: int = 0) -> TaskIndex:
    """Index of the scorer's categories, with the calibration of new tasks tuned on them (about a second)."""
    rng = np.random.default_rng(seed)
    categories = np.array(scorer.state.items.categories)
    rows, tuning = [], []
    for name, count in zip(*np.unique(categories, return_counts=True), strict=True):
        if count < FEWEST_ITEMS:
            continue
        chosen = rng.permutation(np.flatnonzero(categories == name))
        rows.append(chosen[:PROTOTYPE_ITEMS])
        tuning.append(chosen[:TUNING_ITEMS])
    if len(rows) < 2:
        return TaskIndex([])
    place = {name: number for number, name in enumerate(np.unique(categories))}
    picked = rng.permutation(len(tuning))[:TUNING_CATEGORIES]
    sample = np.concatenate([tuning[number] for number in picked])
    labels = np.array([place[name] for name in categories[sample]])
    settings = tune_settings(_vectors(scorer, sample), labels, seed=seed)
    chosen = np.concatenate(rows)
    return TaskIndex.from_examples(_vectors(scorer, chosen), categories[chosen].tolist(), settings)


def live_tasks(scorer: CapabilityScorer, state: Path | str, embedder_fingerprint: str) -> LiveTasks:
    """Known and taught tasks of a state folder, for a running gateway.

    Args:
        embedder_fingerprint: of the `PromptEmbedder` behind the scorer, which made the taught tasks' vectors.
    """

    def place(embedding: FloatArray) -> FloatArray:
        return remember(embedding, scorer.state.memory_projection)

    return LiveTasks(known_tasks(scorer), TaskStore(state, embedder_fingerprint), place)


def _vectors(scorer: CapabilityScorer, rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> FloatArray:
    vectors = scorer.state.memory[rows].astype(np.float32)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(norms > 0, norms, 1.0), dtype=np.float32)
