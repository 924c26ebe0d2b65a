"""Views of all recorded prompts from the cached layer states, and the projection of their wording."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy.sparse as sparse
from sklearn.utils.extmath import randomized_svd

from capability_encoder.asks import find_ask
from capability_encoder.embed import PromptEmbedder
from capability_encoder.training.data import DataError, FloatArray, Outcomes
from capability_encoder.views import STRUCTURE_NAMES, GramProjection, gram_ids, structure

#: Middle layers tell difficulty better than the last one, which is tuned to topic; the last one finds neighbours.
LAYERS = (3, 4, 5, 6)
BUCKETS = 2**15
GRAM_RANK = 96
_RARE = 2


def load_embedder(folder: Path | None = None) -> PromptEmbedder:
    """The embedder with the layers that the views use."""
    return PromptEmbedder.load(folder, layers=LAYERS)


def embedding_view(cache: Path, ids: Sequence[str], embedder: PromptEmbedder) -> FloatArray:
    """Embeddings `[N, E]` of the given prompt ids from cached layer states.

    Raises:
        DataError: the cache is absent, lacks an id, or belongs to another embedder.
    """
    states_file, ids_file, meta_file = (cache / name for name in ("minilm_layers.npy", "ids.json", "meta.json"))
    for file in (states_file, ids_file, meta_file):
        if not file.is_file():
            raise DataError(f"{str(file)!r} is missing: run `python -m capability_encoder.training.vectors`")
    place = {str(prompt_id): row for row, prompt_id in enumerate(json.loads(ids_file.read_text()))}
    missing = [prompt_id for prompt_id in ids if prompt_id not in place]
    if missing:
        raise DataError(f"{len(missing)} prompts have no cached vector, first {missing[0]!r}: embed them again")
    states = np.load(states_file, mmap_mode="r")
    rows = np.array([place[prompt_id] for prompt_id in ids], dtype=np.int64)
    parts = [
        embedder.combine(np.asarray(states[rows[start : start + 2048]], dtype=np.float32))
        for start in range(0, len(rows), 2048)
    ]
    return np.concatenate(parts) if parts else np.zeros((0, embedder.dimension), dtype=np.float32)


class Wording:
    """Hashed grams of prompts as a sparse matrix, computed once per data set."""

    def __init__(self, asks: Sequence[str], embedder: PromptEmbedder) -> None:
        grams = [gram_ids(embedder.pieces(text).ids[1:-1] if text else (), BUCKETS) for text in asks]
        starts = np.concatenate([[0], np.cumsum([len(found) for found, _ in grams])])
        self.counts = sparse.csr_matrix(
            (
                np.concatenate([weights for _, weights in grams]),
                np.concatenate([found for found, _ in grams]),
                starts,
            ),
            shape=(len(grams), BUCKETS),
        )

    def fit(self, rows: npt.NDArray[np.bool_], *, seed: int, rank: int = GRAM_RANK) -> GramProjection:
        """Principal directions of the wording of the prompts in `rows` (no outcome is looked at)."""
        counts = self.counts[np.flatnonzero(rows)]
        seen = np.bincount(counts.indices, minlength=BUCKETS)
        idf = np.where(seen >= _RARE, np.log((1 + counts.shape[0]) / (1 + seen)) + 1.0, 0.0).astype(np.float32)
        rank = min(rank, counts.shape[0] - 1)
        _, _, directions = randomized_svd(_unit_rows(counts, idf), rank, n_iter=3, random_state=seed)
        table = directions.T
        scale = np.maximum(np.abs(table).max(axis=0), 1e-9) / 127.0
        return GramProjection(idf=idf, table=np.rint(table / scale).astype(np.int8), scale=scale.astype(np.float32))

    def project(self, grams: GramProjection) -> FloatArray:
        """`[N, R]` of all prompts, as `GramProjection.project` gives for one."""
        table = grams.table.astype(np.float32) * grams.scale
        return np.asarray(_unit_rows(self.counts, grams.idf) @ table, dtype=np.float32)


class PromptTable:
    """Everything about recorded prompts that does not depend on outcomes."""

    def __init__(self, outcomes: Outcomes, cache: Path, embedder: PromptEmbedder) -> None:
        asks = [find_ask(ask).text for ask in outcomes.asks]
        self.embedding = embedding_view(cache, outcomes.prompt_ids, embedder)
        self.structure = np.stack([structure(text) for text in asks])
        self.wording = Wording(asks, embedder)

    def views(self, grams: GramProjection) -> FloatArray:
        """`[N, V]`, as `PromptViews.embed` gives them."""
        return np.concatenate([self.embedding, self.structure, self.wording.project(grams)], axis=1)

    @property
    def structure_columns(self) -> tuple[int, int]:
        """First and last column of the structure view."""
        first = self.embedding.shape[1]
        return first, first + len(STRUCTURE_NAMES)


def _unit_rows(counts: sparse.csr_matrix, idf: FloatArray) -> sparse.csr_matrix:
    weighted = sparse.csr_matrix(counts @ sparse.diags(idf))
    norms = np.sqrt(np.asarray(weighted.multiply(weighted).sum(axis=1)).ravel())
    return sparse.csr_matrix(sparse.diags(1.0 / np.maximum(norms, 1e-9)) @ weighted, dtype=np.float32)
