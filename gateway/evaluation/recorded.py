"""A pool of recorded models: prompts that all of them answered, with score, answer length and price of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gateway.errors import ConfigError

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Prompt:
    """One recorded prompt. `reference` is the gold answer where there is one; `group` ties near-duplicates."""

    id: str
    text: str
    dataset: str
    group: str
    answer_type: str
    reference: str | None
    options: int


@dataclass(frozen=True, slots=True)
class Model:
    """What is published of a model. Prices are USD per million tokens; `suite` is the aptitude suite it answered."""

    name: str
    price_in: float | None
    price_out: float | None
    family: str | None
    params_total_b: float | None
    suite: str | None


@dataclass(frozen=True)
class RecordedPool:
    """Prompts `[n]` x models `[M]`.

    Attributes:
        scores: `[n, M]` in 0..1.
        answers: `[n, M]` recorded answer texts.
        ambiguous: `[n]` whether the same text is recorded under another id too.
        trained: `[M]` mean score on the training prompts of the same data sets; what the best single model is
            chosen by. NaN where there are none.
    """

    models: tuple[Model, ...]
    prompts: tuple[Prompt, ...]
    scores: FloatArray
    answers: tuple[tuple[str, ...], ...]
    ambiguous: tuple[bool, ...]
    trained: FloatArray

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(model.name for model in self.models)

    def rows(self, kept: Sequence[int]) -> RecordedPool:
        """The same pool with some of its prompts."""
        return replace(
            self,
            prompts=tuple(self.prompts[row] for row in kept),
            scores=self.scores[list(kept)],
            answers=tuple(self.answers[row] for row in kept),
            ambiguous=tuple(self.ambiguous[row] for row in kept),
        )

    @property
    def best(self) -> int:
        """Column of the best single model as an operator would have chosen it: on training prompts."""
        means = self.trained if not np.isnan(self.trained).any() else self.scores.mean(axis=0)
        return int(np.argmax(means))


def load_pool(data: Path, names: Sequence[str], *, split: str = "test", limit: int | None = None) -> RecordedPool:
    """Read a pool from a folder with prompts, outcomes, responses, models and aptitude (parquet).

    Args:
        names: the pool's models; every prompt that all of them answered is taken.
        limit: at most so many prompts, spread evenly over the split.
    Raises:
        ConfigError: a file or a model is missing, or no prompt was answered by all.
    """
    if len(set(names)) < 2:
        raise ConfigError(f"A pool needs at least two models, and {list(names)} was given.", param="models")
    facts = {row["model"]: row for row in _rows(data, "models")}
    strangers = [name for name in names if name not in facts]
    if strangers:
        raise ConfigError(f"{strangers[0]!r} is not in {data / 'models.parquet'}.", hint=_known(facts), param="models")
    prompts = {row["prompt_id"]: row for row in _rows(data, "prompts")}
    answers = {
        (row["prompt_id"], row["model"]): row["response"] for row in _rows(data, "responses") if row["model"] in names
    }
    outcomes = [row for row in _rows(data, "outcomes") if row["model"] in names]
    scores = {(row["prompt_id"], row["model"]): float(row["score"]) for row in outcomes}
    texts = Counter(row["prompt"].strip() for row in prompts.values())
    complete = [
        prompt_id
        for prompt_id in sorted({prompt_id for prompt_id, _ in answers})
        if prompts[prompt_id]["split"] == split
        and all((prompt_id, name) in answers and (prompt_id, name) in scores for name in names)
    ]
    if not complete:
        raise ConfigError(f"No {split} prompt of {data} was answered by all of {', '.join(names)}.", param="models")
    if limit is not None and limit < len(complete):
        complete = [complete[int(i)] for i in np.linspace(0, len(complete) - 1, limit)]
    datasets = {prompts[prompt_id]["dataset"] for prompt_id in complete}
    trained = [
        [float(row["score"]) for row in outcomes if row["model"] == name and _is_training(prompts, row, datasets)]
        for name in names
    ]
    suites = _suites(data, outcomes)
    return RecordedPool(
        models=tuple(_model(facts[name], suites.get(name)) for name in names),
        prompts=tuple(_prompt(prompts[prompt_id]) for prompt_id in complete),
        scores=np.array([[scores[prompt_id, name] for name in names] for prompt_id in complete]),
        answers=tuple(tuple(answers[prompt_id, name] for name in names) for prompt_id in complete),
        ambiguous=tuple(texts[prompts[prompt_id]["prompt"].strip()] > 1 for prompt_id in complete),
        trained=np.array([np.mean(found) if found else np.nan for found in trained]),
    )


def _is_training(prompts: dict[str, dict[str, Any]], row: dict[str, Any], datasets: set[str]) -> bool:
    prompt = prompts[row["prompt_id"]]
    return prompt["split"] in ("train", "aptitude") and prompt["dataset"] in datasets


def _suites(data: Path, outcomes: list[dict[str, Any]]) -> dict[str, str]:
    """Model -> the suite most of whose items it answered; only suites of which it answered at least half."""
    items: dict[str, set[str]] = {}
    for row in _rows(data, "aptitude"):
        items.setdefault(row["suite"], set()).add(row["prompt_id"])
    found: dict[str, str] = {}
    for suite, ids in sorted(items.items(), key=lambda pair: len(pair[1])):
        counts = Counter(row["model"] for row in outcomes if row["prompt_id"] in ids)
        found |= {name: suite.replace("_", "-") for name, count in counts.items() if count >= len(ids) / 2}
    return found


def _prompt(row: dict[str, Any]) -> Prompt:
    return Prompt(
        id=row["prompt_id"],
        text=row["prompt"],
        dataset=row["dataset"],
        group=row["group_id"] or row["prompt_id"],
        answer_type=row["answer_type"],
        reference=row["reference"],
        options=int(row["n_options"] or 0),
    )


def _model(row: dict[str, Any], suite: str | None) -> Model:
    def price(side: str) -> float | None:
        listed = row.get(f"price_{side}_usd_per_1m")
        return listed if listed is not None else row.get(f"price_{side}_est")

    return Model(row["model"], price("in"), price("out"), row.get("family"), row.get("params_total_b"), suite)


def _rows(data: Path, name: str) -> list[dict[str, Any]]:
    import pyarrow.parquet as parquet

    path = data / f"{name}.parquet"
    if not path.is_file():
        raise ConfigError(
            f"{path} is not there.", hint="--data names a folder with prompts, outcomes, ...", param="data"
        )
    found: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
    return found


def _known(facts: dict[str, Any]) -> str:
    return f"It holds {len(facts)} models, among them {', '.join(sorted(facts)[:8])}."
