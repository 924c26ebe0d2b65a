"""Tables of accuracy per domain: with the true task (a bound), with the true or with the predicted domain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

import numpy as np

from capability_encoder.training.baselines.columns import Columns, probabilities, read_population
from capability_encoder.training.baselines.registry import baseline
from capability_encoder.training.data import FloatArray, Outcomes, TextArray

_PRIORS = (0.0, 5.0, 20.0, 80.0)


def domain_labels(prompts: Outcomes, level: Literal["dataset", "domain", "task"]) -> TextArray:
    """`dataset`, `dataset/category` or `dataset/task` of each prompt."""
    if level == "dataset":
        return prompts.datasets
    fine = prompts.categories if level == "domain" else prompts.tasks
    return np.char.add(np.char.add(prompts.datasets, "/"), fine)


class AccuracyTable:
    """Mean score of each model in each domain, pulled by `prior` pseudo-outcomes towards what is expected of it.

    With `measured_only` a cell averages the model's own outcomes (a model known by few answers has few), and the
    pull is towards its strength plus the domain's ease; otherwise gaps are filled from the population first, and the
    pull is towards its strength.
    """

    def __init__(self, labels: TextArray, train: Outcomes, *, prior: float, measured_only: bool = False) -> None:
        population = read_population(train)
        self.names, inverse = np.unique(labels, return_inverse=True)
        membership = np.eye(len(self.names), dtype=np.float32)[inverse]
        values = np.nan_to_num(train.scores, nan=0.0) if measured_only else population.filled
        weights = train.measured.astype(np.float32) if measured_only else np.ones_like(values)
        self.strength = _own_means(values, weights, population.strength) if measured_only else population.strength
        members = membership.sum(axis=0)[:, None]
        ease = (membership.T @ population.filled).mean(axis=1, keepdims=True) / members - population.filled.mean()
        expected = np.clip(population.strength[None, :] + ease, 0.0, 1.0) if measured_only else self.strength[None, :]
        count = membership.T @ weights + prior
        total = membership.T @ (values * weights) + prior * expected
        fallback = np.broadcast_to(self.strength[None, :], total.shape)
        self.rows = np.where(count > 0, total / np.maximum(count, 1e-9), fallback).astype(np.float32)

    def of(self, labels: TextArray) -> FloatArray:
        """Row of each label; the models' strengths for a label that was not in training."""
        place = np.searchsorted(self.names, labels).clip(max=len(self.names) - 1)
        known = self.names[place] == labels
        return np.where(known[:, None], self.rows[place], self.strength[None, :]).astype(np.float32)


def _own_means(values: FloatArray, weights: FloatArray, otherwise: FloatArray) -> FloatArray:
    """Plain mean of each model's own outcomes; `otherwise` for a model without any."""
    count = weights.sum(axis=0)
    means = (values * weights).sum(axis=0) / np.maximum(count, 1.0)
    return np.where(count > 0, means, otherwise).astype(np.float32)


class KnownDomain:
    """Looks the true label of the prompt up; no router knows it, so this is a bound."""

    def __init__(self, *, level: Literal["dataset", "domain", "task"], prior: float = 0.0) -> None:
        self._level, self._prior = level, prior

    def fit(self, train: Outcomes, seed: int) -> Self:
        self._columns = Columns(train.models)
        self._table = AccuracyTable(domain_labels(train, self._level), train, prior=self._prior)
        return self

    def predict(self, vectors: FloatArray, models: Sequence[str]) -> FloatArray:
        self._columns.of(models)
        raise ValueError(f"this bound needs the true {self._level} of the prompts: call predict_informed")

    def predict_informed(self, prompts: Outcomes, models: Sequence[str]) -> FloatArray:
        return self._table.of(domain_labels(prompts, self._level))[:, self._columns.of(models)]


@baseline("dataset_best", summary="best model per true data set", sees="task")
def dataset_best() -> KnownDomain:
    """The dataset oracle of LLMRouterBench ("Max Expert")."""
    return KnownDomain(level="dataset")


@baseline("task_best", summary="best model per true task", sees="task", grid=[{"prior": p} for p in _PRIORS])
def task_best(prior: float = 0.0) -> KnownDomain:
    """Per-task best, over the finest labels of the data."""
    return KnownDomain(level="task", prior=prior)


@baseline("domain_table_true", summary="accuracy per true domain", sees="task", grid=[{"prior": p} for p in _PRIORS])
def domain_table_true(prior: float = 0.0) -> KnownDomain:
    """A table over `dataset/category`."""
    return KnownDomain(level="domain", prior=prior)


class PredictedDomain:
    """A ridge classifier of the label over the embedding, then the table; `soft` mixes rows by probability."""

    def __init__(
        self,
        *,
        level: Literal["domain", "task"] = "domain",
        prior: float = 0.0,
        soft: bool = True,
        measured_only: bool = False,
        penalty: float = 10.0,
        temperature: float = 0.1,
    ) -> None:
        self._level, self._prior, self._soft, self._measured_only = level, prior, soft, measured_only
        self._penalty, self._temperature = penalty, temperature

    def fit(self, train: Outcomes, seed: int) -> Self:
        self._columns = Columns(train.models)
        labels = domain_labels(train, self._level)
        self._table = AccuracyTable(labels, train, prior=self._prior, measured_only=self._measured_only)
        targets = (labels[:, None] == self._table.names[None, :]).astype(np.float64)
        self._centre = train.vectors.mean(axis=0)
        centred = (train.vectors - self._centre).astype(np.float64)
        gram = centred.T @ centred + self._penalty * np.eye(centred.shape[1])
        self._offset = targets.mean(axis=0).astype(np.float32)
        self._weights = np.linalg.solve(gram, centred.T @ (targets - targets.mean(axis=0))).astype(np.float32)
        return self

    def memberships(self, vectors: FloatArray) -> FloatArray:
        """Probability of each domain `[B, domains]`."""
        scores = (vectors - self._centre) @ self._weights + self._offset
        if not self._soft:
            return np.asarray(np.eye(scores.shape[1])[scores.argmax(axis=1)], dtype=np.float32)
        scores = scores / self._temperature
        mass = np.exp(scores - scores.max(axis=1, keepdims=True))
        return np.asarray(mass / mass.sum(axis=1, keepdims=True), dtype=np.float32)

    def predict(self, vectors: FloatArray, models: Sequence[str]) -> FloatArray:
        columns = self._columns.of(models)
        return probabilities(self.memberships(vectors) @ self._table.rows[:, columns])


@baseline(
    "domain_table",
    summary="accuracy per domain, the domain predicted from the embedding",
    grid=[{"prior": p, "soft": soft} for soft in (True, False) for p in _PRIORS],
)
def domain_table(prior: float = 0.0, soft: bool = True) -> PredictedDomain:
    """A table over `dataset/category`."""
    return PredictedDomain(level="domain", prior=prior, soft=soft)


@baseline(
    "task_table_raw",
    summary="accuracy per task from the model's own answers only, task predicted (aptitude table as it is)",
    paper="Model-SAT's aptitude vector, UniRoute's error vector",
)
def task_table_raw() -> PredictedDomain:
    """What a model answered is all that counts: honest with a thousand answers, wild with twenty."""
    return PredictedDomain(level="task", soft=False, measured_only=True)


@baseline(
    "task_table_eb",
    summary="the same, each cell pulled towards the model's strength and the task's ease",
    grid=[{"prior": p, "soft": soft} for soft in (True, False) for p in (20.0, 5.0, 80.0)],
)
def task_table_eb(prior: float = 20.0, soft: bool = True) -> PredictedDomain:
    """The aptitude table with empirical-Bayes shrinkage."""
    return PredictedDomain(level="task", prior=prior, soft=soft, measured_only=True)
