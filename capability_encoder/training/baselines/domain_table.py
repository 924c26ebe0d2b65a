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
    """Mean score of each model in each domain, pulled towards the model's strength by `prior` pseudo-outcomes."""

    def __init__(self, labels: TextArray, train: Outcomes, *, prior: float) -> None:
        population = read_population(train)
        self.strength = population.strength
        self.names, inverse = np.unique(labels, return_inverse=True)
        self.rows = np.empty((len(self.names), len(train.models)), dtype=np.float32)
        for place in range(len(self.names)):
            block = population.filled[inverse == place]
            total = block.sum(axis=0) + prior * self.strength
            self.rows[place] = total / (len(block) + prior)

    def of(self, labels: TextArray) -> FloatArray:
        """Row of each label; the models' strengths for a label that was not in training."""
        place = np.searchsorted(self.names, labels).clip(max=len(self.names) - 1)
        known = self.names[place] == labels
        return np.where(known[:, None], self.rows[place], self.strength[None, :]).astype(np.float32)


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


@baseline(
    "domain_table",
    summary="accuracy per domain, the domain predicted from the embedding",
    grid=[{"prior": p, "soft": soft} for soft in (True, False) for p in _PRIORS],
)
class PredictedDomain:
    """A ridge classifier of the domain over the embedding, then the table; `soft` mixes rows by probability."""

    def __init__(self, *, prior: float = 0.0, soft: bool = True, penalty: float = 10.0, temperature: float = 0.1):
        self._prior, self._soft, self._penalty, self._temperature = prior, soft, penalty, temperature

    def fit(self, train: Outcomes, seed: int) -> Self:
        self._columns = Columns(train.models)
        labels = domain_labels(train, "domain")
        self._table = AccuracyTable(labels, train, prior=self._prior)
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
