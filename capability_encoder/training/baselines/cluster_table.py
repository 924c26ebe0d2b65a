"""k-means over the embedding and a table of accuracy per cluster, raw or with empirical Bayes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np

from capability_encoder.training.baselines.columns import Columns, Population, probabilities, read_population
from capability_encoder.training.baselines.neighbours import nearest
from capability_encoder.training.baselines.registry import baseline
from capability_encoder.training.data import FloatArray, IntArray, Outcomes

_COUNTS = (16, 32, 64, 128, 256)


def spherical_kmeans(vectors: FloatArray, count: int, *, seed: int, sweeps: int = 25) -> FloatArray:
    """Unit centroids `[count, D]` by cosine k-means, seeded with k-means++; an emptied cluster takes a random row."""
    rng = np.random.default_rng(seed)
    count = min(count, len(vectors))
    centroids = vectors[[int(rng.integers(len(vectors)))]]
    distance = 1.0 - (vectors @ centroids[0])
    for _ in range(count - 1):
        weights = np.clip(distance, 0.0, None).astype(np.float64) + 1e-12
        choice = int(rng.choice(len(vectors), p=weights / weights.sum()))
        centroids = np.vstack([centroids, vectors[choice]])
        distance = np.minimum(distance, 1.0 - vectors @ vectors[choice])
    for _ in range(sweeps):
        owner = (vectors @ centroids.T).argmax(axis=1)
        membership = np.zeros((count, len(vectors)), dtype=np.float32)
        membership[owner, np.arange(len(vectors))] = 1.0
        sums = membership @ vectors
        empty = membership.sum(axis=1) == 0
        sums[empty] = vectors[rng.integers(len(vectors), size=int(empty.sum()))]
        updated = sums / np.linalg.norm(sums, axis=1, keepdims=True).clip(min=1e-12)
        if np.allclose(updated, centroids, atol=1e-6):
            break
        centroids = updated
    return np.asarray(centroids, dtype=np.float32)


def cluster_sums(owner: IntArray, count: int, values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Sum of `values [N, M]` per cluster `[count, M]`, and members per cluster `[count]`."""
    membership = np.zeros((count, len(owner)), dtype=np.float32)
    membership[owner, np.arange(len(owner))] = 1.0
    return membership @ values, membership.sum(axis=1)


class ClusterTable:
    """Mean score per cluster, averaged over the `nearest_clusters` closest centroids."""

    def __init__(self, *, clusters: int = 64, nearest_clusters: int = 1) -> None:
        self._clusters, self._nearest = clusters, nearest_clusters

    def fit(self, train: Outcomes, seed: int) -> Self:
        self._columns = Columns(train.models)
        self._centroids = spherical_kmeans(train.vectors, self._clusters, seed=seed)
        owner = (train.vectors @ self._centroids.T).argmax(axis=1)
        self._table = self._fill(owner, len(self._centroids), read_population(train))
        return self

    def _fill(self, owner: IntArray, count: int, population: Population) -> FloatArray:
        sums, members = cluster_sums(owner, count, population.filled)
        means = sums / np.maximum(members, 1.0)[:, None]
        return np.where(members[:, None] > 0, means, population.strength[None, :]).astype(np.float32)

    def predict(self, vectors: FloatArray, models: Sequence[str]) -> FloatArray:
        columns = self._columns.of(models)
        places, _ = nearest(np.asarray(vectors, dtype=np.float32), self._centroids, self._nearest)
        return probabilities(self._table[places].mean(axis=1)[:, columns])


@baseline(
    "kmeans_table",
    summary="k-means clusters with the raw accuracy of each model (Avengers, UniRoute)",
    paper="Avengers (AAAI 2026); UniRoute, arXiv:2502.08773",
    grid=[{"clusters": c, "nearest_clusters": n} for c in _COUNTS for n in (1, 3)],
    seeded=True,
)
def kmeans_table(clusters: int = 64, nearest_clusters: int = 1) -> ClusterTable:
    """The raw table; Avengers averages the three nearest clusters, UniRoute takes one."""
    return ClusterTable(clusters=clusters, nearest_clusters=nearest_clusters)


@baseline(
    "kmeans_table_eb",
    summary="the same table, each cell shrunk by empirical Bayes",
    grid=[{"clusters": c, "nearest_clusters": n} for c in _COUNTS for n in (1, 3)],
    seeded=True,
)
class ShrunkenClusterTable(ClusterTable):
    """Shrinks each model's deviation in a cluster towards 0 by the share of variance that is signal.

    A cell is cluster effect + model effect + interaction; the interaction of model m in cluster c, observed with
    sampling variance v / n_c, is multiplied by t_m / (t_m + v / n_c), t_m estimated by moments over the clusters.
    """

    def _fill(self, owner: IntArray, count: int, population: Population) -> FloatArray:
        filled = population.filled
        sums, members = cluster_sums(owner, count, filled)
        members_at_least_one = np.maximum(members, 1.0)[:, None]
        means = sums / members_at_least_one
        overall = filled.mean(axis=0)
        level = means.mean(axis=1, keepdims=True) - overall.mean()
        additive = overall[None, :] + level
        squares, _ = cluster_sums(owner, count, filled**2)
        noise = np.clip(squares / members_at_least_one - means**2, 1e-4, None).mean(axis=0) / members_at_least_one
        interaction = means - additive
        present = members > 1
        weight = members[present] / max(float(members[present].sum()), 1.0)
        spread = (weight[:, None] * (interaction[present] ** 2 - noise[present])).sum(axis=0).clip(min=0.0)
        keep = spread[None, :] / np.maximum(spread[None, :] + noise, 1e-9)
        shrunken = additive + keep * interaction
        return np.where(members[:, None] > 0, shrunken, population.strength[None, :]).astype(np.float32)
