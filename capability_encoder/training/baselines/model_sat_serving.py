"""Model-SAT's serving form as a router of its own: aptitude answers through the capability encoder, numpy at the end.

The trainer (`training/model_sat.py`) reads helpers of this package, so it is imported when the method is fitted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np

from capability_encoder.encoder_head import EncoderHead
from capability_encoder.population import facts_row
from capability_encoder.profile import CapabilityProfile
from capability_encoder.training.baselines.columns import Columns
from capability_encoder.training.baselines.registry import baseline
from capability_encoder.training.data import FloatArray, Outcomes


@baseline(
    "model_sat_serving",
    summary="set encoder over aptitude answers, connector, inner product; cross-entropy plus Plackett-Luce",
    paper="Model-SAT (AAAI 2025), a set encoder in the place of the language model",
    grid=[{"steps": 200, "listwise": 0.3}, {"steps": 1200, "listwise": 0.1}],
    seeded=True,
)
class ServingModelSat:
    """A model is its answers to the aptitude items of the training outcomes (to all of them where there are none)."""

    def __init__(self, steps: int = 200, listwise: float = 0.3) -> None:
        self._steps, self._listwise = steps, listwise

    def fit(self, train: Outcomes, seed: int) -> Self:
        from capability_encoder.training.model_sat import SatSettings, material_of, train_head

        self._columns = Columns(train.models)
        facts = np.array([facts_row(CapabilityProfile(name)) for name in train.models], dtype=np.float32)
        categories = sorted({str(name) for name in train.categories})
        material = material_of(train, train.vectors, facts, categories)
        settings = SatSettings(steps=self._steps, listwise=self._listwise)
        self.head: EncoderHead = train_head(material, settings, seed=seed)
        rows = np.flatnonzero(material.suite) if material.suite.any() else np.arange(len(train))
        instructions = [material.instruction(column, rows) for column in range(len(train.models))]
        self._models = self.head.model_vectors(instructions)
        return self

    def predict(self, vectors: FloatArray, models: Sequence[str]) -> FloatArray:
        logits = self.head.logits(vectors, self._models[self._columns.of(models)])
        return np.asarray(0.5 * (1.0 + np.tanh(0.5 * logits)), dtype=np.float32)
