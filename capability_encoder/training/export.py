"""Train on recorded outcomes and write the artefact that ships, with everything it was fitted on in its manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from capability_encoder.artifact import Artifact, Manifest, write_artifact
from capability_encoder.embed import PromptEmbedder
from capability_encoder.scorer import KIND
from capability_encoder.state import ScorerState, to_arrays
from capability_encoder.training.data import (
    STRESS_PREFIX,
    UNLICENSED_PREFIX,
    Outcomes,
    load_models,
    load_outcomes,
)
from capability_encoder.training.fit import EncoderSettings, Recorded, fit_state
from capability_encoder.training.vectors import write_vectors
from capability_encoder.training.views import load_embedder

DATA_FILES = ("prompts.parquet", "outcomes.parquet", "models.parquet")
LICENCES = {
    "mmlu_pro": "Apache-2.0 (TIGER-AI-Lab/MMLU-Pro)",
    "crux": "Apache-2.0 (WildEval/ZeroEval)",
    "gsm": "Apache-2.0 (WildEval/ZeroEval)",
    "mmlu_redux": "Apache-2.0 (WildEval/ZeroEval), CC-BY-4.0 (aryopg/mmlu-redux)",
    "zebra_grid": "Apache-2.0 (WildEval/ZeroEval)",
    "alpaca_eval": "Apache-2.0 (tatsu-lab/alpaca_eval)",
    "routerbench_*": "MIT (withmartian/routerbench)",
    "routellm_*": "Apache-2.0 (lm-sys/RouteLLM)",
    "all-MiniLM-L6-v2": "Apache-2.0",
}


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training run made."""

    folder: Path
    version: str
    prompts: int
    outcomes: int
    models: int
    size_mib: float


def train_encoder(
    data: Path,
    out: Path,
    *,
    cache: Path,
    seed: int = 0,
    settings: EncoderSettings | None = None,
    without: Sequence[str] = (UNLICENSED_PREFIX, STRESS_PREFIX),
    hold_out: bool = False,
) -> Trained:
    """Fit on the outcomes of `data` and write the artefact to `out`; same data and seed, same bytes.

    Args:
        cache: folder of the prompts' vectors; filled first where it does not hold them.
        hold_out: leave out dev and test prompts and the unseen models, as the evaluation protocol does: for
            artefacts that are measured on them.
        without: data sets whose names begin so are left out.
    """
    embedder = load_embedder()
    prepare_cache(data, cache, embedder)
    outcomes = load_outcomes(data, cache, drop_prefixes=tuple(without))
    facts = load_models(data)
    recorded = Recorded(outcomes, facts, cache, embedder)
    rows, scores = np.ones(len(outcomes), dtype=bool), outcomes.scores
    if hold_out:
        from capability_encoder.training.protocol import FIT_SPLITS, visible_scores

        rows = np.isin(outcomes.splits, FIT_SPLITS)
        scores = visible_scores(outcomes, [name for name, known in facts.items() if known.split == "unseen"])
        outcomes = replace(outcomes, scores=scores).rows(rows)
    state = fit_state(recorded, rows, scores, settings, seed=seed)
    artifact = save_state(
        state,
        out,
        embedder=embedder,
        seed=seed,
        command=f"orbweaver encoder train --seed {seed}" + (" --hold-out" if hold_out else ""),
        data=describe_data(data, outcomes),
    )
    size = sum(path.stat().st_size for path in artifact.folder.iterdir()) / 2**20
    measured = int(outcomes.measured.sum())
    return Trained(out, artifact.version, len(outcomes), measured, len(state.known), round(size, 2))


def save_state(
    state: ScorerState, out: Path, *, embedder: PromptEmbedder, seed: int, command: str, data: dict[str, Any]
) -> Artifact:
    """Write a state as an artefact."""
    groups, records = to_arrays(state)
    manifest = Manifest(
        kind=KIND,
        embedder=embedder.fingerprint,
        files={},
        seed=seed,
        command=command,
        data=data,
        licences=LICENCES,
    )
    return write_artifact(out, manifest, arrays=groups, records=records)


def describe_data(data: Path, outcomes: Outcomes) -> dict[str, Any]:
    """What a fit on `outcomes` has seen: file hashes, prompts and outcomes per data set, splits, models."""
    measured = outcomes.measured
    return {
        "files": {name: hashlib.sha256((data / name).read_bytes()).hexdigest() for name in DATA_FILES},
        "datasets": {
            str(name): {
                "prompts": int((outcomes.datasets == name).sum()),
                "outcomes": int(measured[outcomes.datasets == name].sum()),
            }
            for name in np.unique(outcomes.datasets)
        },
        "splits": sorted(str(split) for split in np.unique(outcomes.splits)),
        "models": list(outcomes.models),
    }


def prepare_cache(data: Path, cache: Path, embedder: PromptEmbedder) -> None:
    """Embed all prompts of `data` into `cache` unless it holds them already, by this embedder."""
    ready = cache / "READY"
    if not ready.is_file():
        write_vectors(data, cache, threads=2)
