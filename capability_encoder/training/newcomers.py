"""Models that the fit never saw, known by a few aptitude answers: Brier and routed gain per number of answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from capability_encoder.scorer import ScoreArrays
from capability_encoder.training.baselines import entry
from capability_encoder.training.bootstrap import Resampler, mean_interval, two_way_interval
from capability_encoder.training.data import FloatArray, IntArray
from capability_encoder.training.protocol import FIT_SPLITS, UNSEEN_SUITE, FittedScorer, Protocol
from capability_encoder.training.report_schema import OnboardingCurve, OnboardingPoint

COUNTS = (0, 20, 50, 200, 1000)
DATASET = "mmlu_pro"
#: Baselines that can be refitted on a handful of a new model's answers.
REFITTED = ("task_table_raw", "task_table_eb", "kmeans_table_eb")


class Newcomers(NamedTuple):
    """The unseen models with their test prompts, and the aptitude items they answered."""

    models: tuple[str, ...]
    rows: IntArray
    truth: FloatArray
    items: IntArray
    resampler: Resampler


class Known(NamedTuple):
    """Predictions for newcomers known by `answers` answers, one per draw of the answers."""

    answers: int
    predicted: list[FloatArray]
    best: list[int]


def newcomers(protocol: Protocol, draws: int) -> Newcomers:
    """The `split=unseen` models with the mmlu_pro suite, on the public test prompts."""
    outcomes = protocol.outcomes
    models = protocol.unseen_with_suite
    rows = np.flatnonzero((outcomes.datasets == DATASET) & (outcomes.splits == "test"))
    return Newcomers(
        models,
        rows,
        protocol.scores_of(rows, models),
        protocol.suite_rows(UNSEEN_SUITE),
        protocol.resampler(rows, draws),
    )


def known_by_answers(
    protocol: Protocol, fitted: FittedScorer, new: Newcomers, *, draws: int, counts: Sequence[int] = COUNTS
) -> tuple[list[Known], ScoreArrays]:
    """Ours for every count; and the last draw at 50 answers with its intervals."""
    found = []
    at_fifty: ScoreArrays | None = None
    for count in counts:
        predicted, best = [], []
        for draw in range(draws if 0 < count < len(new.items) else 1):
            rng = np.random.default_rng((protocol.seed, count, draw))
            profiles = [protocol.answers(name, new.items, count, rng) for name in new.models]
            scores = fitted.score(new.rows, fitted.scorer.prepare(profiles))
            predicted.append(scores.p)
            means = [float(np.mean([a.score for a in p.answers])) if p.answers else 0.0 for p in profiles]
            best.append(int(np.argmax(means)))
            if count == 50:
                at_fifty = scores
        found.append(Known(count, predicted, best))
    assert at_fifty is not None, "50 is one of the counts"
    return found, at_fifty


def refitted(protocol: Protocol, new: Newcomers, name: str, *, draws: int) -> list[Known]:
    """A baseline of the registry refitted with the newcomers' answers beside all that seen models answered."""
    outcomes = protocol.outcomes
    seen = [n for n in outcomes.models if n not in protocol.unseen]
    base = outcomes.where(splits=FIT_SPLITS, datasets=[DATASET])
    known = [n for n in seen if base.measured[:, outcomes.models.index(n)].sum() > 500]
    base = base.of_models([*known, *new.models])
    ids = {prompt_id: row for row, prompt_id in enumerate(base.prompt_ids)}
    items = np.array([ids[outcomes.prompt_ids[row]] for row in new.items])
    found = []
    for count in (c for c in COUNTS if c):
        predicted = []
        for draw in range(draws if count < len(items) else 1):
            rng = np.random.default_rng((protocol.seed, count, draw))
            scores = base.scores.copy()
            for column in range(len(known), len(base.models)):
                kept = rng.choice(items, min(count, len(items)), replace=False)
                hidden = np.ones(len(base), dtype=bool)
                hidden[kept] = False
                scores[hidden, column] = np.nan

            method = entry(name).make(**entry(name).grid[0]).fit(replace(base, scores=scores), protocol.seed)
            predicted.append(method.predict(outcomes.vectors[new.rows], new.models))
        found.append(Known(count, predicted, []))
    return found


def curve(method: str, new: Newcomers, known: Sequence[Known], *, seed: int) -> OnboardingCurve:
    """Brier with prompts and models resampled; routed gain over the best model by the same answers."""
    whole = ~np.isnan(new.truth).any(axis=1)
    points = []
    for each in known:
        errors = np.mean([(p - new.truth) ** 2 for p in each.predicted], axis=0).astype(np.float64)
        gains = [
            np.where(whole, _picked(new.truth, p.argmax(axis=1)) - new.truth[:, best], np.nan)
            for p, best in zip(each.predicted, each.best, strict=False)
        ]
        gain = mean_interval(new.resampler, np.mean(gains, axis=0), scale=100.0) if gains and each.answers else None
        points.append(
            OnboardingPoint(
                answers=each.answers, brier=two_way_interval(new.resampler, errors, seed=seed), routed_gain=gain
            )
        )
    return OnboardingCurve(
        method=method, population=f"{len(new.models)} unseen models on mmlu_pro test", points=tuple(points)
    )


def _picked(truth: FloatArray, choice: IntArray) -> FloatArray:
    return truth[np.arange(len(truth)), choice]
