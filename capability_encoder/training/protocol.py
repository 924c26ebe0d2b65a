"""The evaluation protocol: which outcomes a fit may look at, how models are made known, and what a pool holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from capability_encoder.profile import Answer, CapabilityProfile
from capability_encoder.scorer import CapabilityScorer, Pool, ScoreArrays
from capability_encoder.training.bootstrap import Resampler
from capability_encoder.training.data import (
    STRESS_PREFIX,
    UNLICENSED_PREFIX,
    AptitudeItem,
    FloatArray,
    IntArray,
    Outcomes,
    load_aptitude,
    load_models,
    load_outcomes,
    load_pools,
)
from capability_encoder.training.fit import Recorded, fit_state, profile_of
from capability_encoder.training.views import load_embedder

BoolArray = npt.NDArray[np.bool_]
#: What any fit may use; dev chooses settings, test is measured once.
FIT_SPLITS = ("train", "aptitude")
UNSEEN_SUITE = "mmlu_pro_50x20"
REDUX_SUITE = "mmlu_redux_30x20"


def visible_scores(outcomes: Outcomes, unseen: Iterable[str] = (), without_datasets: Iterable[str] = ()) -> FloatArray:
    """Scores `[N, M]` that a fit may look at: no dev or test prompt, no unseen model, no data set held out."""
    scores = outcomes.scores.copy()
    hidden = ~np.isin(outcomes.splits, FIT_SPLITS) | np.isin(outcomes.datasets, sorted(set(without_datasets)))
    scores[hidden] = np.nan
    scores[:, np.isin(np.array(outcomes.models), sorted(set(unseen)))] = np.nan
    return scores


@dataclass(frozen=True, slots=True)
class Contenders:
    """One pool on one split: prompts that all its models answered.

    Attributes:
        rows: `[n]` prompts.  columns: `[M]` models.  best: place of the best single model on train.
    """

    name: str
    datasets: tuple[str, ...]
    models: tuple[str, ...]
    rows: IntArray
    columns: IntArray
    best: int


class Protocol:
    """Recorded outcomes under the protocol; everything an evaluation asks of them."""

    def __init__(self, recorded: Recorded, aptitude: Sequence[AptitudeItem], *, seed: int = 0) -> None:
        self.recorded = recorded
        self.outcomes = recorded.outcomes
        self.seed = seed
        self._row_of = self.outcomes.row_of()
        self._items: dict[str, list[str]] = {}
        for item in aptitude:
            self._items.setdefault(item.suite, []).append(item.prompt_id)

    @classmethod
    def load(cls, data: Path, cache: Path, *, seed: int = 0) -> Protocol:
        """Public data without the unlicensed and the stress sets; vectors from the cache."""
        from capability_encoder.training.export import prepare_cache

        embedder = load_embedder()
        prepare_cache(data, cache, embedder)
        outcomes = load_outcomes(data, cache, drop_prefixes=(UNLICENSED_PREFIX, STRESS_PREFIX))
        recorded = Recorded(outcomes, load_models(data), cache, embedder)
        return cls(recorded, load_aptitude(data), seed=seed)

    @cached_property
    def fit_rows(self) -> BoolArray:
        """Prompts a fit may use."""
        return np.isin(self.outcomes.splits, FIT_SPLITS)

    @cached_property
    def unseen(self) -> tuple[str, ...]:
        """Models that the protocol holds back from the fit."""
        facts = self.recorded.facts
        return tuple(n for n in self.outcomes.models if n in facts and facts[n].split == "unseen")

    @cached_property
    def unseen_with_suite(self) -> tuple[str, ...]:
        """Unseen models that answered most of the mmlu_pro aptitude suite (one lacks two subjects)."""
        items = self.suite_rows(UNSEEN_SUITE)
        return tuple(
            name for name in self.unseen if self.outcomes.measured[items, self.column(name)].sum() > 0.5 * len(items)
        )

    def column(self, name: str) -> int:
        """Column of a model."""
        return self.outcomes.models.index(name)

    def suite_rows(self, *suites: str) -> IntArray:
        """Prompts of aptitude suites, in suite order."""
        return np.array(
            [self._row_of[p] for suite in suites for p in self._items.get(suite, []) if p in self._row_of],
            dtype=np.int64,
        )

    def fit(self, unseen: Iterable[str] = (), without_datasets: Sequence[str] = ()) -> FittedScorer:
        """A scorer fitted under the protocol; see `visible_scores`."""
        scores = visible_scores(self.outcomes, unseen, without_datasets)
        rows = self.fit_rows & ~np.isin(self.outcomes.datasets, list(without_datasets))
        state = fit_state(self.recorded, rows, scores, seed=self.seed)
        return FittedScorer(CapabilityScorer(state, self.recorded.embedder), self)

    def answers(
        self, name: str, rows: IntArray, count: int | None = None, rng: np.random.Generator | None = None
    ) -> CapabilityProfile:
        """A model as a newcomer: published facts and `count` random answers among `rows` (all where None)."""
        column = self.column(name)
        measured = rows[self.outcomes.measured[rows, column]]
        if count is not None and count < len(measured):
            measured = (rng or np.random.default_rng(self.seed)).choice(measured, count, replace=False)
        graded = tuple(
            Answer(self.outcomes.prompt_ids[row], float(self.outcomes.scores[row, column])) for row in measured
        )
        return replace(profile_of(name, self.recorded.facts.get(name)), answers=graded)

    def pool(self, name: str, datasets: Sequence[str], models: Sequence[str], split: str = "test") -> Contenders:
        """The prompts of a split that all models answered, with the best single model of train (and aptitude)."""
        columns = np.array([self.column(model) for model in models], dtype=np.int64)
        here = np.isin(self.outcomes.datasets, list(datasets))
        whole = ~np.isnan(self.outcomes.scores[:, columns]).any(axis=1)
        known = self.outcomes.scores[here & self.fit_rows][:, columns]
        return Contenders(
            name,
            tuple(datasets),
            tuple(models),
            np.flatnonzero(here & whole & (self.outcomes.splits == split)),
            columns,
            int(np.nanmean(known, axis=0).argmax()),
        )

    def pools(self, data: Path, split: str = "test") -> list[Contenders]:
        """P1 to P6 as published beside the data."""
        return [self.pool(name, [dataset], models, split) for name, (dataset, models) in load_pools(data).items()]

    def cost_pool(self, split: str = "test") -> Contenders:
        """P7: all models of the data sets that state costs."""
        priced = ~np.isnan(self.outcomes.costs)
        names = [n for column, n in enumerate(self.outcomes.models) if priced[:, column].any()]
        datasets = sorted({str(d) for d in self.outcomes.datasets[priced.any(axis=1)]})
        return self.pool("P7", datasets, names, split)

    def scores_of(self, rows: IntArray, names: Sequence[str]) -> FloatArray:
        """Scores `[n, M]` of some prompts and models."""
        columns = np.array([self.column(name) for name in names], dtype=np.int64)
        return self.outcomes.scores[np.ix_(rows, columns)]

    def truth(self, pool: Contenders) -> FloatArray:
        """Scores `[n, M]` of a pool."""
        return self.outcomes.scores[np.ix_(pool.rows, pool.columns)]

    def resampler(self, rows: IntArray, draws: int) -> Resampler:
        """Bootstrap weights of some prompts: groups together, stratified by data set."""
        return Resampler(self.outcomes.groups[rows], self.outcomes.datasets[rows], draws=draws, seed=self.seed)


class FittedScorer:
    """A scorer with the views of all recorded prompts in its own coordinates."""

    def __init__(self, scorer: CapabilityScorer, protocol: Protocol) -> None:
        self.scorer = scorer
        self._views = protocol.recorded.table.views(scorer.state.grams)

    def by_name(self, names: Sequence[str]) -> Pool:
        """Models known from the fit.

        Raises:
            ValueError: a model was not in the fit.
        """
        strangers = [name for name in names if name not in self.scorer.known_models]
        if strangers:
            raise ValueError(f"{strangers[0]!r} was not in the fit: give its answers instead")
        return self.scorer.prepare([CapabilityProfile(name, known_as=name) for name in names])

    def coordinates(self, rows: IntArray) -> FloatArray:
        """Coordinates `[n, 1 + R]` of recorded prompts, as the features of `encoder_head`."""
        return self.scorer.locate(self._views[rows]).design[:, 1:].astype(np.float32)

    def score(self, rows: IntArray, pool: Pool) -> ScoreArrays:
        """Scores `[n, M]` of recorded prompts."""
        return self.scorer.score_many(self._views[rows], pool)
