"""Recorded answers of real models as an `AnswerSource`, and their outcomes on test prompts, from the shared folder."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from aptitude_tests.item import LETTERS, Item, Suite
from aptitude_tests.render import render_text
from aptitude_tests.source import AskFailure, Completion, Question
from capability_encoder.profile import CapabilityProfile

FloatArray = npt.NDArray[np.float64]
_FACTS = ("family", "params_total_b", "params_active_b", "release_date")


class RecordedSource:
    """Answers the items of a suite as a recorded model did; items that it never answered are refused."""

    def __init__(self, model: str, suite: Suite, scores: Mapping[str, float]) -> None:
        self.identity = f"recorded/{model}"
        self.asked = 0
        self._items = {render_text(item): item for item in suite.items}
        self._scores = scores

    async def ask(self, question: Question, limit_s: float) -> Completion:
        self.asked += 1
        item = self._items.get(question.fields["messages"][0]["content"])
        if item is None or item.id not in self._scores:
            raise AskFailure("refused", "no recorded answer of this model to this prompt")
        letter = str(item.gold) if self._scores[item.id] >= 0.5 else _wrong_letter(item)
        return Completion(f"Answer: {letter}", (), "stop", len(item.question) // 4, 3, None, 0.2)


def _wrong_letter(item: Item) -> str:
    return random.Random(item.id).choice([letter for letter in LETTERS[: len(item.options)] if letter != item.gold])


@dataclass(frozen=True)
class Recorded:
    """Recorded models of one status.

    Attributes:
        aptitude: by model, scores of suite items by prompt id.
        facts: by model, what is publicly known of it.
        test_prompts: N texts; `test_scores`: by model `[N]`, NaN where not recorded.
    """

    aptitude: Mapping[str, Mapping[str, float]]
    facts: Mapping[str, CapabilityProfile]
    test_prompts: tuple[str, ...]
    test_scores: Mapping[str, FloatArray]


def unseen_models(data: Path, dataset: str = "mmlu_pro") -> Recorded:
    """The models that no artefact was fitted on, with their outcomes on the public test prompts of a data set."""
    import pyarrow.parquet as parquet

    routing = data / "routing"
    rows = parquet.read_table(routing / "models.parquet").to_pylist()
    unseen = {row["model"]: row for row in rows if row["split"] == "unseen"}
    columns = ["prompt_id", "prompt", "split", "dataset"]
    prompts = parquet.read_table(routing / "prompts.parquet", columns=columns).to_pylist()
    test = [row for row in prompts if row["dataset"] == dataset and row["split"] == "test"]
    place = {row["prompt_id"]: number for number, row in enumerate(test)}
    items = {row["prompt_id"] for row in prompts if row["dataset"] == dataset and row["split"] == "aptitude"}
    aptitude: dict[str, dict[str, float]] = {}
    scores: dict[str, FloatArray] = {}
    table = parquet.read_table(routing / "outcomes.parquet", columns=["prompt_id", "model", "score"])
    for prompt, model, score in zip(*(table[name].to_pylist() for name in table.column_names), strict=True):
        if model not in unseen:
            continue
        if prompt in items:
            aptitude.setdefault(model, {})[prompt] = score
        elif prompt in place:
            scores.setdefault(model, np.full(len(test), np.nan))[place[prompt]] = score
    names = sorted(set(aptitude) & set(scores))
    facts = {
        name: CapabilityProfile(
            name,
            **{fact: unseen[name][fact] for fact in _FACTS if unseen[name][fact] is not None},
            price_in=unseen[name]["price_in_usd_per_1m"],
            price_out=unseen[name]["price_out_usd_per_1m"],
        )
        for name in names
    }
    return Recorded(
        {name: aptitude[name] for name in names},
        facts,
        tuple(row["prompt"] for row in test),
        {name: scores[name] for name in names},
    )


def rank_correlation(one: FloatArray, other: FloatArray) -> float:
    """Spearman's, without ties."""
    ranks = [np.argsort(np.argsort(values)).astype(float) for values in (one, other)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])
