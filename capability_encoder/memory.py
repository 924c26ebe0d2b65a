"""FAISS indexes: the outcome memory (prompts with known outcomes) and the index of model tokens.

An index is a value that never changes under a reader: a rebuilt one replaces it in one assignment (`Live`).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import faiss
import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

FLAT_UP_TO = 20_000
"""Memories up to this size are searched exactly; larger ones by inverted lists."""
Storage = Literal["float32", "float16", "int8"]
_QUANTISERS = {"float16": "SQfp16", "int8": "SQ8"}


class Neighbours(NamedTuple):
    """Rows `[B, k]` (-1 where fewer were found) and cosine similarities `[B, k]`, nearest first."""

    rows: IntArray
    similarity: FloatArray


@dataclass(frozen=True, slots=True)
class MemorySettings:
    """How an outcome memory is built.

    Attributes:
        kind: `flat` is exact, `ivf` probes some of the inverted lists, `auto` chooses by size.
        storage: bytes per dimension 4, 2 or 1; scores of `int8` differ by about 0.01.
        lists: number of inverted lists; 0 = about 4 sqrt(N).
        probes: lists searched per query; 0 = a sixth, at most 256: recall@250 above 0.95 up to 1,000,000 vectors.
        seed: of the clustering; the same vectors and seed give the same index.
        gpu: search on the GPU if the installed faiss has one.
    """

    kind: Literal["auto", "flat", "ivf"] = "auto"
    storage: Storage = "float32"
    lists: int = 0
    probes: int = 0
    seed: int = 0
    gpu: bool = True


class OutcomeMemory:
    """Nearest known prompts by cosine similarity. Vectors must have unit length; rows are positions in the build."""

    def __init__(self, index: Any, recent: FloatArray, settings: MemorySettings) -> None:
        self._index = index
        self._recent = recent
        self.settings = settings
        self.dimension = int(index.d)

    def __len__(self) -> int:
        return int(self._index.ntotal) + len(self._recent)

    @classmethod
    def build(cls, vectors: FloatArray, settings: MemorySettings | None = None) -> OutcomeMemory:
        """Index `[N, D]` unit vectors; N may be 0."""
        settings = settings or MemorySettings()
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        index = _build_index(vectors, settings)
        return cls(index, np.zeros((0, vectors.shape[1]), dtype=np.float32), settings)

    def appended(self, vectors: FloatArray) -> OutcomeMemory:
        """A memory with further rows at its end, searched exactly; shares the old index, so it costs microseconds."""
        recent = np.concatenate([self._recent, np.ascontiguousarray(vectors, dtype=np.float32)])
        return OutcomeMemory(self._index, recent, self.settings)

    def rebuilt(self) -> OutcomeMemory:
        """The same rows in one fresh index: run it off the event loop, then swap it in with `Live.swap`."""
        if not len(self._recent):
            return self
        stored = _on_cpu(self._index).reconstruct_n(0, self._index.ntotal)
        return OutcomeMemory.build(np.concatenate([stored, self._recent]), self.settings)

    def search(self, vectors: FloatArray, k: int) -> Neighbours:
        """The k nearest rows of each of `[B, D]` vectors; padded with row -1 and similarity -1 if there are fewer."""
        queries = np.ascontiguousarray(np.atleast_2d(vectors), dtype=np.float32)
        rows = np.full((len(queries), k), -1, dtype=np.int64)
        similarity = np.full((len(queries), k), -1.0, dtype=np.float32)
        stored = min(k, int(self._index.ntotal))
        if stored:
            found_similarity, found_rows = self._index.search(queries, stored)
            rows[:, :stored] = found_rows
            similarity[:, :stored] = np.where(found_rows >= 0, found_similarity, -1.0)
        if not len(self._recent):
            return Neighbours(rows, similarity)
        recent = queries @ self._recent.T
        recent_rows = np.broadcast_to(np.arange(len(self._recent)) + self._index.ntotal, recent.shape)
        all_similarity = np.concatenate([similarity, recent], axis=1)
        all_rows = np.concatenate([rows, recent_rows], axis=1)
        order = np.argsort(-all_similarity, axis=1, kind="stable")[:, :k]
        return Neighbours(np.take_along_axis(all_rows, order, 1), np.take_along_axis(all_similarity, order, 1))


class TokenIndex:
    """Exact maximum inner product over model tokens: first pass of Model Spider, for any size of zoo.

    Tokens may hold a last column that stands for the model's ability; queries then end in 1.
    """

    def __init__(self, names: Sequence[str], tokens: FloatArray) -> None:
        if len(names) != len(tokens):
            raise ValueError(f"{len(names)} names for {len(tokens)} tokens")
        if len(set(names)) != len(names):
            raise ValueError("two tokens have the same model name")
        self.names = tuple(names)
        self._tokens = np.ascontiguousarray(tokens, dtype=np.float32)
        self._index = faiss.IndexFlatIP(self._tokens.shape[1])
        self._index.add(self._tokens)

    def __len__(self) -> int:
        return len(self.names)

    def replaced(self, name: str, token: FloatArray | None) -> TokenIndex:
        """A new index with one model's token set, or removed for `None`; the old one stays valid for its readers."""
        kept = [row for row, known in enumerate(self.names) if known != name]
        names = [self.names[row] for row in kept]
        tokens = self._tokens[kept]
        if token is not None:
            names.append(name)
            tokens = np.concatenate([tokens, np.asarray(token, dtype=np.float32)[None]])
        return TokenIndex(names, tokens)

    def search(self, query: FloatArray, k: int) -> list[tuple[str, float]]:
        """The k models with the largest inner product with `query` `[D]`, best first."""
        products, rows = self._index.search(np.ascontiguousarray(query, dtype=np.float32)[None], min(k, len(self)))
        return [(self.names[row], float(product)) for row, product in zip(rows[0], products[0], strict=True)]


Value = TypeVar("Value")


class Live(Generic[Value]):
    """A value that readers take as a whole and one writer at a time replaces: readers never see half a change."""

    def __init__(self, value: Value) -> None:
        self._value = value
        self._writing = threading.Lock()

    def get(self) -> Value:
        """The value of this moment; keep it for the whole of one request."""
        return self._value

    def swap(self, value: Value) -> Value:
        """Replace the value; gives the old one."""
        with self._writing:
            old, self._value = self._value, value
            return old


def _build_index(vectors: FloatArray, settings: MemorySettings) -> Any:
    count, dimension = vectors.shape
    kind = settings.kind if settings.kind != "auto" else "flat" if count <= FLAT_UP_TO else "ivf"
    coding = _QUANTISERS.get(settings.storage, "Flat")
    if count == 0 or kind == "flat":
        index = _make_index(dimension, coding)
    else:
        lists = settings.lists or max(1, min(int(4 * np.sqrt(count)), count // 39 or 1))
        index = _make_index(dimension, f"IVF{lists},{coding}")
        index.cp.seed = settings.seed + 1
        index.cp.min_points_per_centroid = 1
        index.cp.max_points_per_centroid = 64
        index.nprobe = min(lists, settings.probes or max(48, min(256, lists // 6)))
    if count:
        if not index.is_trained:
            index.train(vectors)
        index.add(vectors)
        if isinstance(index, faiss.IndexIVF):
            index.make_direct_map()
    return _on_gpu(index) if settings.gpu and count else index


def _make_index(dimension: int, description: str) -> Any:
    """A faiss index over inner products; what faiss gives back is already of its most derived class."""
    return faiss.index_factory(dimension, description, faiss.METRIC_INNER_PRODUCT)


def _on_gpu(index: Any) -> Any:
    """The index on the first GPU where the installed faiss has one, else as it is."""
    if getattr(faiss, "get_num_gpus", lambda: 0)() == 0:
        return index
    return faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)


def _on_cpu(index: Any) -> Any:
    if getattr(faiss, "get_num_gpus", lambda: 0)() == 0:
        return index
    return faiss.index_gpu_to_cpu(index)
