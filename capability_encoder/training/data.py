"""Recorded outcomes of real models as arrays: what every trainer, baseline and report of this package reads.

`Outcomes` is a value: selecting rows or models gives a new one over the same memory where possible.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
TextArray = npt.NDArray[np.str_]

#: No licence file: measured only, nothing trained on it is shipped.
UNLICENSED_PREFIX = "routerdc_"
#: Labels depend on the answer format: a stress set, kept out of headline numbers and of the shipped fit.
STRESS_PREFIX = "llmrouter_"


class DataError(ValueError):
    """The data folder or the cached vectors cannot be used; the message says what would fix it."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What is published about a model. Sizes in billions of parameters, prices in USD per million tokens."""

    name: str
    family: str | None
    params_total_b: float | None
    params_active_b: float | None
    price_in: float | None
    price_out: float | None
    release_date: str | None
    split: str


@dataclass(frozen=True, slots=True)
class AptitudeItem:
    """One item of an aptitude suite; `task` is one of the suite's 50 (or 30) tasks."""

    suite: str
    task: str
    prompt_id: str


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Scores of `M` models on `N` prompts.

    Attributes:
        prompt_ids: N ids.
        asks: N prompt texts, as recorded.
        vectors: `[N, D]` float32, unit length, from the run-time embedder (`PromptEmbedder`).
        models: M names, the columns of `scores` and `costs`.
        scores: `[N, M]` float32 in 0..1, NaN where the model was not measured.
        costs: `[N, M]` float32, USD per call, NaN where unknown.
        datasets, tasks, categories, splits, groups: `[N]` labels; `groups` joins near-duplicates.
    """

    prompt_ids: tuple[str, ...]
    asks: tuple[str, ...]
    vectors: FloatArray
    models: tuple[str, ...]
    scores: FloatArray
    costs: FloatArray
    datasets: TextArray
    tasks: TextArray
    categories: TextArray
    splits: TextArray
    groups: TextArray

    def __len__(self) -> int:
        return len(self.prompt_ids)

    @property
    def measured(self) -> npt.NDArray[np.bool_]:
        """`[N, M]`, true where a score is known."""
        return ~np.isnan(self.scores)

    def rows(self, chosen: npt.NDArray[np.bool_] | IntArray | Sequence[int]) -> Outcomes:
        """The chosen prompts, by mask or by index, in the order given."""
        index = np.asarray(chosen)
        index = np.flatnonzero(index) if index.dtype == np.bool_ else index.astype(np.int64)
        return replace(
            self,
            prompt_ids=tuple(self.prompt_ids[i] for i in index),
            asks=tuple(self.asks[i] for i in index),
            vectors=self.vectors[index],
            scores=self.scores[index],
            costs=self.costs[index],
            datasets=self.datasets[index],
            tasks=self.tasks[index],
            categories=self.categories[index],
            splits=self.splits[index],
            groups=self.groups[index],
        )

    def of_models(self, names: Sequence[str]) -> Outcomes:
        """The columns of `names`, in that order; an unknown name raises DataError."""
        place = {name: column for column, name in enumerate(self.models)}
        unknown = [name for name in names if name not in place]
        if unknown:
            raise DataError(f"no outcomes for {unknown!r}; known models are named in models.parquet")
        columns = [place[name] for name in names]
        return replace(self, models=tuple(names), scores=self.scores[:, columns], costs=self.costs[:, columns])

    def where(
        self, *, splits: Iterable[str] | None = None, datasets: Iterable[str] | None = None, min_models: int = 0
    ) -> Outcomes:
        """Prompts of the given splits and data sets with at least `min_models` scores among the present models."""
        keep = np.ones(len(self), dtype=bool)
        if splits is not None:
            keep &= np.isin(self.splits, sorted(set(splits)))
        if datasets is not None:
            keep &= np.isin(self.datasets, sorted(set(datasets)))
        if min_models:
            keep &= self.measured.sum(axis=1) >= min_models
        return self.rows(keep)

    def without_scores_of(self, names: Iterable[str], *, except_rows: npt.NDArray[np.bool_]) -> Outcomes:
        """A copy in which the models in `names` keep only the scores of `except_rows` (a mask over prompts)."""
        scores = self.scores.copy()
        costs = self.costs.copy()
        hidden = np.isin(np.array(self.models), sorted(set(names)))
        block = np.ix_(~except_rows, hidden)
        scores[block] = np.nan
        costs[block] = np.nan
        return replace(self, scores=scores, costs=costs)

    def row_of(self) -> dict[str, int]:
        """Row index by prompt id."""
        return {prompt_id: row for row, prompt_id in enumerate(self.prompt_ids)}


def load_outcomes(data: Path, cache: Path, *, drop_prefixes: Sequence[str] = ()) -> Outcomes:
    """All recorded outcomes joined with the cached vectors.

    Args:
        data: folder with prompts.parquet and outcomes.parquet.
        cache: folder with `minilm.npy` `[N, D]` and `ids.json` (the prompt id of each row).
        drop_prefixes: data sets whose name begins so are left out.
    Raises:
        DataError: a file is missing, or a prompt has no vector.
    """
    prompts = _read_table(data / "prompts.parquet")
    outcomes = _read_table(data / "outcomes.parquet")
    datasets = np.array(prompts["dataset"], dtype=np.str_)
    keep = np.ones(len(datasets), dtype=bool)
    for prefix in drop_prefixes:
        keep &= ~np.char.startswith(datasets, prefix)
    index = np.flatnonzero(keep)
    ids = [str(prompts["prompt_id"][i]) for i in index]
    row_of = {prompt_id: row for row, prompt_id in enumerate(ids)}
    pairs = [
        (row_of[p], m, s, c)
        for p, m, s, c in zip(
            outcomes["prompt_id"], outcomes["model"], outcomes["score"], outcomes["cost_usd"], strict=True
        )
        if p in row_of
    ]
    models = tuple(sorted({str(m) for _, m, _, _ in pairs}))
    column_of = {name: column for column, name in enumerate(models)}
    scores = np.full((len(ids), len(models)), np.nan, dtype=np.float32)
    costs = np.full_like(scores, np.nan)
    for row, model, score, cost in pairs:
        scores[row, column_of[str(model)]] = score
        if cost is not None:
            costs[row, column_of[str(model)]] = cost

    def labels(column: str) -> TextArray:
        return np.array([str(prompts[column][i]) for i in index], dtype=np.str_)

    return Outcomes(
        prompt_ids=tuple(ids),
        asks=tuple(str(prompts["prompt"][i]) for i in index),
        vectors=load_vectors(cache, ids),
        models=models,
        scores=scores,
        costs=costs,
        datasets=datasets[index],
        tasks=labels("task"),
        categories=labels("category"),
        splits=labels("split"),
        groups=labels("group_id"),
    )


def load_vectors(cache: Path, ids: Sequence[str]) -> FloatArray:
    """Cached vectors of the given prompt ids, `[len(ids), D]` float32.

    Raises:
        DataError: the cache is absent or lacks an id.
    """
    vectors_file, ids_file = cache / "minilm.npy", cache / "ids.json"
    if not (vectors_file.is_file() and ids_file.is_file()):
        raise DataError(f"no cached vectors in {str(cache)!r}: run `orbweaver encoder embed` to make them")
    known = {str(prompt_id): row for row, prompt_id in enumerate(json.loads(ids_file.read_text()))}
    missing = [prompt_id for prompt_id in ids if prompt_id not in known]
    if missing:
        raise DataError(f"{len(missing)} prompts have no cached vector, first {missing[0]!r}: embed them again")
    table = np.load(vectors_file, mmap_mode="r")
    return np.ascontiguousarray(table[[known[prompt_id] for prompt_id in ids]], dtype=np.float32)


def load_models(data: Path) -> dict[str, ModelFacts]:
    """Published facts of each model by name; estimated prices stand in where no list price is known."""
    table = _read_table(data / "models.parquet")
    facts: dict[str, ModelFacts] = {}
    for row in range(len(table["model"])):
        name = str(table["model"][row])
        facts[name] = ModelFacts(
            name=name,
            family=table["family"][row],
            params_total_b=_number(table["params_total_b"][row]),
            params_active_b=_number(table["params_active_b"][row]),
            price_in=_number(table["price_in_est"][row]),
            price_out=_number(table["price_out_est"][row]),
            release_date=table["release_date"][row],
            split=str(table["split"][row]),
        )
    return facts


def load_aptitude(data: Path) -> list[AptitudeItem]:
    """Items of all aptitude suites, in file order."""
    table = _read_table(data / "aptitude.parquet")
    return [
        AptitudeItem(suite=str(s), task=str(t), prompt_id=str(p))
        for s, t, p in zip(table["suite"], table["task"], table["prompt_id"], strict=True)
    ]


def load_pools(data: Path) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Evaluation pools: name to (data set, models)."""
    raw = json.loads((data / "pools.json").read_text())
    return {name: (str(pool["dataset"]), tuple(pool["models"])) for name, pool in raw.items()}


def _read_table(path: Path) -> dict[str, list[Any]]:
    import pyarrow.parquet as parquet  # 0.3 s to import: only the trainers pay for it

    if not path.is_file():
        raise DataError(f"{str(path)!r} is missing: --data must name the folder of the routing data")
    table: dict[str, list[Any]] = parquet.read_table(path).to_pydict()
    return table


def _number(value: Any) -> float | None:
    return None if value is None or value != value else float(value)
