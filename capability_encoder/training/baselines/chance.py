"""Random routing: the floor."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Self

import numpy as np

from capability_encoder.training.baselines.columns import Columns
from capability_encoder.training.baselines.registry import baseline
from capability_encoder.training.data import FloatArray, Outcomes


@baseline("random", summary="a model drawn at random for each prompt", seeded=True)
class Chance:
    """Uniform scores, drawn from the prompt and the seed: the same prompt gets the same draw in any batch."""

    def fit(self, train: Outcomes, seed: int) -> Self:
        self._columns = Columns(train.models)
        self._key = seed.to_bytes(8, "little", signed=True)
        return self

    def predict(self, vectors: FloatArray, models: Sequence[str]) -> FloatArray:
        columns = self._columns.of(models)
        draws = np.empty((len(vectors), len(self._columns.names)), dtype=np.float32)
        for row, vector in enumerate(np.ascontiguousarray(vectors, dtype=np.float32)):
            digest = hashlib.blake2b(vector.tobytes(), key=self._key, digest_size=8).digest()
            draws[row] = np.random.default_rng(int.from_bytes(digest, "little")).random(draws.shape[1])
        return draws[:, columns]
