"""Kinds of known prompts: how far each reaches, and which of them tell on what models differ."""

from __future__ import annotations

import numpy as np

from capability_encoder.training.kinds import fit_familiarity


def test_a_kind_that_two_models_answered_is_known_for_its_level_only() -> None:
    rng = np.random.default_rng(0)
    kinds = np.repeat(["many", "few"], 400)
    embedding = 0.1 * rng.standard_normal((800, 12)).astype(np.float32)
    embedding[:400, 0] += 1.0
    embedding[400:, 1] += 1.0
    structure = rng.standard_normal((800, 3)).astype(np.float32)
    models = np.where(kinds == "many", 20, 2)
    found = fit_familiarity(embedding, structure, kinds, models)
    near, compared = found.ratios(np.concatenate([embedding, structure], axis=1))
    assert np.quantile(near, 0.9) < 1.1
    np.testing.assert_array_equal(near[:400] <= compared[:400], True)
    assert np.median(compared[:400]) < 1.0 < np.median(compared[400:])
    assert np.median(near[400:]) < 1.0
