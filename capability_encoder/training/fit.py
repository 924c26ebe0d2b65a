"""Outcomes -> `ScorerState`: the whole fit, deterministic for a seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from capability_encoder.embed import PromptEmbedder
from capability_encoder.profile import CapabilityProfile
from capability_encoder.state import Calibration, Items, ScorerState, remember
from capability_encoder.training.data import FloatArray, ModelFacts, Outcomes
from capability_encoder.training.decomposition import FitSettings, decompose, fit_feature_map
from capability_encoder.training.hierarchy import design_rows, evidence_of, fit_hierarchy
from capability_encoder.training.kinds import fit_familiarity
from capability_encoder.training.views import PromptTable

MEMORY_DIMENSION = 96
APTITUDE = "aptitude"
"""Split of the prompts that make up the aptitude suites, one suite per data set."""
#: Fewer outcomes than this do not make a model known by name.
FEWEST_KNOWN = 30


@dataclass(frozen=True, slots=True)
class EncoderSettings:
    """All knobs of a fit; see docs/experiments.md for how the defaults were chosen."""

    decomposition: FitSettings = field(default_factory=FitSettings)
    calibration: Calibration = field(default_factory=Calibration)
    pseudo_models: float = 2.0


class Recorded:
    """Recorded outcomes with the views of their prompts and the facts of their models."""

    def __init__(
        self, outcomes: Outcomes, facts: Mapping[str, ModelFacts], cache: Path, embedder: PromptEmbedder
    ) -> None:
        self.outcomes = outcomes
        self.facts = facts
        self.embedder = embedder
        self.table = PromptTable(outcomes, cache, embedder)

    def profiles(self, names: Sequence[str]) -> list[CapabilityProfile]:
        """Profiles without answers: what is published about each model."""
        return [profile_of(name, self.facts.get(name)) for name in names]


def profile_of(name: str, facts: ModelFacts | None) -> CapabilityProfile:
    """A model's published facts as a profile."""
    if facts is None:
        return CapabilityProfile(name)
    return CapabilityProfile(
        name=name,
        family=facts.family,
        params_total_b=facts.params_total_b,
        params_active_b=facts.params_active_b,
        price_in=facts.price_in,
        price_out=facts.price_out,
        release_date=facts.release_date,
    )


def fit_state(
    recorded: Recorded,
    rows: npt.NDArray[np.bool_],
    scores: FloatArray,
    settings: EncoderSettings | None = None,
    *,
    seed: int = 0,
) -> ScorerState:
    """Fit on the prompts in `rows`.

    Args:
        rows: mask over the recorded prompts.
        scores: `[N, M]` like the recorded ones, with NaN wherever the fit may not look.
    """
    # Sums over threads come out in another order on another run; one thread makes the artefact the same bit for bit.
    with threadpool_limits(limits=1):
        return _fit_state(recorded, rows, scores, settings or EncoderSettings(), seed)


def _fit_state(
    recorded: Recorded, rows: npt.NDArray[np.bool_], scores: FloatArray, settings: EncoderSettings, seed: int
) -> ScorerState:
    table, outcomes = recorded.table, recorded.outcomes
    index = np.flatnonzero(rows & ~np.isnan(scores).all(axis=1))
    mask = np.zeros(len(outcomes), dtype=bool)
    mask[index] = True
    grams = table.wording.fit(mask, seed=seed)
    views = table.views(grams)[index]
    feature_map = fit_feature_map(views, table.structure_columns, settings.decomposition, seed=seed)
    known = scores[index]
    datasets = outcomes.datasets[index]
    parts = decompose(
        feature_map.expand(views),
        known,
        datasets,
        outcomes.categories[index],
        outcomes.groups[index],
        np.where(outcomes.splits[index] == APTITUDE, datasets, ""),
        table.embedding.shape[1],
        settings.decomposition,
        seed=seed,
    )
    columns = np.flatnonzero((~np.isnan(known)).sum(axis=0) >= FEWEST_KNOWN)
    names = tuple(outcomes.models[column] for column in columns)
    design = design_rows(parts.difficulty, parts.directions)
    evidence = [evidence_of(design, parts.difficulty, parts.additive, known, int(column)) for column in columns]
    hierarchy = fit_hierarchy(evidence, recorded.profiles(names), pseudo_models=settings.pseudo_models)
    projection = memory_projection(table.embedding[index])
    kinds = np.array([f"{a}|{b}" for a, b in zip(datasets, outcomes.categories[index], strict=True)])
    memory = remember(table.embedding[index], projection)
    return ScorerState(
        grams=grams,
        feature_map=feature_map,
        heads=replace(parts.heads, own=parts.heads.own.of(columns)),
        population=hierarchy.population,
        known=names,
        weights=hierarchy.posteriors,
        items=Items(
            ids=tuple(outcomes.prompt_ids[row] for row in index),
            categories=tuple(str(category) for category in outcomes.categories[index]),
            coordinates=np.column_stack([parts.difficulty, parts.directions]).astype(np.float32),
            offset=(parts.additive.ease - parts.difficulty).astype(np.float32),
            variance=parts.additive.variance.astype(np.float32),
            slope=parts.additive.slope.astype(np.float32),
            answered=np.packbits(~np.isnan(known[:, columns]), axis=1),
        ),
        familiarity=fit_familiarity(
            table.embedding[index], table.structure[index], kinds, (~np.isnan(known)).sum(axis=1)
        ),
        memory_projection=projection,
        memory=np.rint(memory * 127.0).astype(np.int8),
        calibration=replace(
            settings.calibration,
            item_variance=parts.item_variance,
            centre=_expected_ease(parts.difficulty, outcomes.splits[index] == APTITUDE),
        ),
    )


def _expected_ease(ease: npt.NDArray[np.float64], is_aptitude: npt.NDArray[np.bool_]) -> float:
    """Of a prompt of an unknown kind: as easy as the aptitude items by which models are known, on average.

    Then a model is expected to do on it what its aptitude test says. The median of the data sets' means, used before,
    was the level of whichever data set stood in the middle.
    """
    return float((ease[is_aptitude] if is_aptitude.any() else ease).mean())


def memory_projection(embedding: FloatArray) -> FloatArray:
    """Principal directions `[E, Q]` of the embeddings, the common direction kept: it tells text from noise."""
    moments = (embedding.T @ embedding).astype(np.float64) / len(embedding)
    values, vectors = np.linalg.eigh(moments)
    top = vectors[:, np.argsort(-values)[: min(MEMORY_DIMENSION, len(values))]]
    signs = np.sign(top[np.abs(top).argmax(axis=0), np.arange(top.shape[1])])
    return np.asarray(top * signs, dtype=np.float32)
