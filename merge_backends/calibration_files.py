"""Example texts named in a recipe (`data:` beside a model), read and tokenised for the methods that learn from them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import Field

from merge_backends.calibration import CalibrationData, TaskData
from merge_backends.errors import RecipeError
from merge_backends.methods import Parameters, parse_parameters
from merge_backends.skeleton import empty_model
from merge_backends.sources import OpenModel, located

if TYPE_CHECKING:
    from merge_backends.plan import Plan


class DataFile(Parameters):
    """What `data:` may say. A plain word is the file's name."""

    file: str = Field(description="JSON lines or Parquet, one text per row; relative to the recipe")
    text: str = Field("text", description="column of the text")
    label: str = Field("label", description="column of the class number; may be missing from the file")
    limit: int = Field(256, ge=1, description="rows that are read")
    batch: int = Field(16, ge=1, description="texts per batch")
    length: int = Field(128, ge=2, description="tokens per text at most")


def load_calibration(plan: Plan, root: Path) -> CalibrationData:
    """The texts of every expert, in the experts' order, and a model to run them through.

    Raises:
        RecipeError: an expert has no `data`, a file cannot be read, or holds no text.
    """
    reference = plan.base or plan.experts[0]
    given = {source.model: source.data for part in plan.recipe.slices for source in part.sources}
    tasks = []
    for expert in plan.experts:
        named = given.get(expert.reference) or next(
            (data for model, data in given.items() if plan.models[model] is expert), None
        )
        if named is None:
            raise RecipeError(
                f"The merge method {plan.recipe.method!r} learns from example texts, and {expert.name!r} has none.",
                "Write `data: texts.jsonl` beside each model.",
            )
        tasks.append(_task(expert, parse_parameters(DataFile, named, owner="`data`"), plan.tokenizer, root))
    return CalibrationData(empty_model(reference.checkpoint), tasks)


def read_rows(path: Path) -> list[Mapping[str, Any]]:
    """Rows of a JSON lines or Parquet file.

    Raises:
        RecipeError: it cannot be read.
    """
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet as parquet

            rows: list[Mapping[str, Any]] = parquet.read_table(path).to_pylist()
            return rows
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise RecipeError(f"The data file {str(path)!r} cannot be read: {error}.", "Give JSON lines.") from None


def _task(expert: OpenModel, spec: DataFile, tokenizer_of: OpenModel, root: Path) -> TaskData:
    from transformers import AutoTokenizer

    rows = read_rows(located(spec.file, root))[: spec.limit]
    texts = [row.get(spec.text) if isinstance(row, Mapping) else None for row in rows]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise RecipeError(f"Not every row of {spec.file!r} has a {spec.text!r}.", "Name the column with `text:`.")
    labels = [row.get(spec.label) for row in rows]
    labelled = all(type(label) is int for label in labels)
    tokenizer = AutoTokenizer.from_pretrained(str(tokenizer_of.checkpoint.path), local_files_only=True)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    batches, answers = [], []
    for start in range(0, len(texts), spec.batch):
        encoded = tokenizer(
            texts[start : start + spec.batch],
            padding=True,
            truncation=True,
            max_length=spec.length,
            return_tensors="pt",
        )
        batches.append({name: encoded[name] for name in ("input_ids", "attention_mask")})
        answers.append(torch.tensor(labels[start : start + spec.batch]) if labelled else None)
    return TaskData(expert.name, batches, [one for one in answers if one is not None] or None)
