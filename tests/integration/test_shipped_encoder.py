"""The artefact that ships: whole, of this version, small, and as good on known prompts as it should be."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from capability_encoder.artifact import SHIPPED
from capability_encoder.profile import CapabilityProfile
from capability_encoder.scorer import KIND, LAYERS, CapabilityScorer

pytest.importorskip("onnxruntime")
FOLDER = Path(SHIPPED)
DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "routing"


@pytest.fixture(scope="module")
def scorer() -> CapabilityScorer:
    return CapabilityScorer.load()


def test_every_file_has_the_hash_the_manifest_names() -> None:
    manifest = json.loads((FOLDER / "manifest.json").read_text())
    assert manifest["kind"] == KIND
    assert {path.name for path in FOLDER.iterdir()} == {*manifest["files"], "manifest.json"}
    for name, digest in manifest["files"].items():
        assert sha256((FOLDER / name).read_bytes()).hexdigest() == digest, name


def test_nothing_was_trained_on_rows_without_a_licence() -> None:
    manifest = json.loads((FOLDER / "manifest.json").read_text())
    assert manifest["data"]["datasets"]
    assert not any(name.startswith(("routerdc_", "llmrouter_")) for name in manifest["data"]["datasets"])


def test_artefacts_stay_under_forty_mebibytes() -> None:
    assert sum(path.stat().st_size for path in FOLDER.parent.rglob("*") if path.is_file()) <= 40 * 2**20


def test_the_scorer_loads_with_its_own_embedder(scorer: CapabilityScorer) -> None:
    assert len(scorer.known_models) > 100
    assert scorer.embedder.embed_one("What is 2 + 2?").shape == (scorer.embedder.dimension,)
    assert LAYERS == (3, 4, 5, 6)


def test_an_empty_prompt_counts_as_unknown(scorer: CapabilityScorer) -> None:
    pool = scorer.prepare([CapabilityProfile(name, known_as=name) for name in scorer.known_models[:3]])
    scored = scorer.score("", pool)
    assert scored.novelty == 1.0
    assert np.isfinite(scored.p).all()


@pytest.mark.skipif(not DATA.is_dir(), reason="the routing data is not here")
def test_known_models_are_told_apart_on_recorded_prompts(scorer: CapabilityScorer) -> None:
    from capability_encoder.training.data import _read_table, load_pools

    prompts, outcomes = _read_table(DATA / "prompts.parquet"), _read_table(DATA / "outcomes.parquet")
    wanted = [
        (str(key), str(text))
        for key, text, dataset, split in zip(
            prompts["prompt_id"], prompts["prompt"], prompts["dataset"], prompts["split"], strict=True
        )
        if dataset == "mmlu_pro" and split == "test"
    ][::7]
    names = load_pools(DATA)["P1"][1]
    row = {key: place for place, (key, _) in enumerate(wanted)}
    scores = np.full((len(wanted), len(names)), np.nan)
    for key, model, score in zip(outcomes["prompt_id"], outcomes["model"], outcomes["score"], strict=True):
        if key in row and model in names:
            scores[row[key], names.index(model)] = score
    pool = scorer.prepare([CapabilityProfile(name, known_as=name) for name in names])
    p = scorer.score_many(scorer.embedder.embed([text for _, text in wanted]), pool).p
    # The shipped fit has seen these outcomes: this guards against a broken artefact and measures nothing.
    assert np.nanmean((scores - p) ** 2) <= 0.2145
    right, wrong = (scores == 1)[:, :, None], (scores == 0)[:, None, :]
    pairs = right & wrong
    rows = pairs.any(axis=(1, 2))
    agree = ((p[:, :, None] > p[:, None, :]) & pairs).sum(axis=(1, 2))[rows] / pairs.sum(axis=(1, 2))[rows]
    assert agree.mean() >= 0.73
