"""How many answers are read right: on labelled replies, and on recorded replies of real models beside their scores."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from aptitude_tests.extraction.choice import extract_choice
from aptitude_tests.suite_data import split_prompt
from tests.bench.report import Figure, Options
from tests.support.extraction import is_extracted_right, labelled_replies, last_capital_letter

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "routing"
SEED = 20261121


def run(options: Options) -> list[Figure]:
    """Shares in percent; the recorded replies only where the shared folder is."""
    labels = labelled_replies()
    figures = [
        _share("extraction, labelled replies", labels, is_extracted_right, bar=98.0),
        *(
            _share(
                f"extraction, {split} labels",
                [label for label in labels if label["split"] == split],
                is_extracted_right,
                bar=98.0,
            )
            for split in ("dev", "held_out")
        ),
    ]
    for kind in ("choice", "number", "text", "code", "json"):
        chosen = [label for label in labels if label["type"] == kind]
        figures.append(_share(f"extraction, {kind}", chosen, is_extracted_right))
        if kind == "choice":
            figures.append(_share("last capital letter, choice", chosen, _is_baseline_right, note="baseline"))
    return figures + _recorded(options.scaled(3000, 27_550))


def _share(
    name: str,
    labels: Sequence[dict[str, Any]],
    is_right: Callable[[dict[str, Any]], bool],
    *,
    bar: float | None = None,
    note: str = "",
) -> Figure:
    began = time.perf_counter()
    right = sum(map(is_right, labels))
    spent = (time.perf_counter() - began) / len(labels)
    note = note or f"{right} of {len(labels)}, {1e6 * spent:.0f} us each"
    return Figure(name, 100 * right / len(labels), "%", bar, more_is_better=True, note=note)


def _is_baseline_right(label: dict[str, Any]) -> bool:
    return last_capital_letter(label["reply"]) == label["expected"]


def _recorded(count: int) -> list[Figure]:
    """Agreement of our verdicts with the recorded scores of MMLU-Pro replies; the records err too."""
    if not (DATA / "responses.parquet").is_file():
        return []
    import pyarrow.parquet as parquet

    replies = parquet.read_table(DATA / "responses.parquet", filters=[("pool", "=", "mmlu_pro_pool")]).to_pylist()
    replies = random.Random(SEED).sample(replies, min(count, len(replies)))
    wanted = {reply["prompt_id"] for reply in replies}
    chosen = [("prompt_id", "in", wanted)]
    columns = ["prompt_id", "prompt", "n_options", "reference"]
    questions = {
        row["prompt_id"]: split_prompt(row["prompt"], int(row["n_options"]), row["reference"])
        for row in parquet.read_table(DATA / "prompts.parquet", columns=columns, filters=chosen).to_pylist()
    }
    scores = {
        (row["prompt_id"], row["model"]): row["score"]
        for row in parquet.read_table(DATA / "outcomes.parquet", filters=chosen).to_pylist()
    }
    ours = baseline = none = 0
    for reply in replies:
        question, recorded = questions[reply["prompt_id"]], scores[reply["prompt_id"], reply["model"]]
        found = extract_choice(reply["response"], question.options)
        none += found is None
        ours += (found == question.letter) == (recorded >= 0.5)
        baseline += (last_capital_letter(reply["response"]) == question.letter) == (recorded >= 0.5)
    total = len(replies) / 100
    note = f"{len(replies)} replies, {none / total:.1f} % without an answer"
    return [
        Figure("extraction, agreement with recorded scores", ours / total, "%", more_is_better=True, note=note),
        Figure("last capital letter, the same", baseline / total, "%", more_is_better=True, note="baseline"),
    ]
