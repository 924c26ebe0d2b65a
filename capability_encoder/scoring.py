"""Score files: prompts and what is known of each model in, P(correct) for every pair out (parquet)."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as arrow
import pyarrow.parquet as parquet

from capability_encoder.profile import Answer, CapabilityProfile
from capability_encoder.scorer import CapabilityScorer, Pool

_ROWS_AT_ONCE = 1024


class ScoreFileError(ValueError):
    """A file to score cannot be used; the message names the file, the column and the fix."""


@dataclass(frozen=True, slots=True)
class Scored:
    """What a run scored: how many prompts and models, which of these the artefact knew by name."""

    prompts: int
    models: int
    known_models: tuple[str, ...]
    version: str


def score_files(prompts: Path, answers: Path, out: Path, *, artifact: Path | None = None, threads: int = 2) -> Scored:
    """Write `prompt_id, model, p, p_low, p_high` for every prompt of `prompts` and every model of `answers`.

    Args:
        prompts: columns `prompt_id, prompt`.
        answers: columns `model, prompt_id, prompt, score`: all that is known of each model. A model that the
            artefact was fitted on starts from what it knows; its answers to other items are added to that.
    Raises:
        ScoreFileError: a file or column is missing, or a prompt id stands twice.
    """
    asked = _columns(prompts, ("prompt_id", "prompt"))
    known = _columns(answers, ("model", "prompt_id", "prompt", "score"))
    ids = [str(prompt_id) for prompt_id in asked["prompt_id"]]
    if len(set(ids)) != len(ids):
        raise ScoreFileError(f"{str(prompts)!r}: a prompt_id stands twice; give each prompt once")
    scorer = CapabilityScorer.load(artifact)
    profiles = profiles_of_answers(known, scorer.known_models)
    texts = {str(p): str(t) for p, t in zip(known["prompt_id"], known["prompt"], strict=True) if t is not None}
    pool = scorer.prepare(profiles, texts)
    schema = arrow.schema([("prompt_id", arrow.string()), ("model", arrow.string())])
    for name in ("p", "p_low", "p_high"):
        schema = schema.append(arrow.field(name, arrow.float32()))
    out.parent.mkdir(parents=True, exist_ok=True)
    with parquet.ParquetWriter(out, schema) as writer, ThreadPoolExecutor(threads) as workers:
        for start in range(0, len(ids), _ROWS_AT_ONCE):
            texts_now = [str(text or "") for text in asked["prompt"][start : start + _ROWS_AT_ONCE]]
            vectors = np.stack(list(workers.map(scorer.embedder.embed_one, texts_now)))
            writer.write_table(_table(scorer, pool, ids[start : start + _ROWS_AT_ONCE], vectors, schema))
    by_name = tuple(profile.name for profile in profiles if profile.known_as is not None)
    return Scored(len(ids), len(profiles), by_name, scorer.version)


def profiles_of_answers(answers: dict[str, list[object]], known_models: Sequence[str]) -> list[CapabilityProfile]:
    """One profile per model, in order of first appearance; ungraded answers (no score) are left out."""
    collected: dict[str, list[Answer]] = {}
    for model, item, score in zip(answers["model"], answers["prompt_id"], answers["score"], strict=True):
        mine = collected.setdefault(str(model), [])
        if score is not None and score == score:
            mine.append(Answer(str(item), float(score)))  # type: ignore[arg-type]
    known = set(known_models)
    return [
        CapabilityProfile(name=name, answers=tuple(mine), known_as=name if name in known else None)
        for name, mine in collected.items()
    ]


def _table(
    scorer: CapabilityScorer, pool: Pool, ids: Sequence[str], vectors: np.ndarray, schema: arrow.Schema
) -> arrow.Table:
    scores = scorer.score_many(vectors, pool)
    columns = [
        arrow.array(np.repeat(np.array(ids), len(pool)), arrow.string()),
        arrow.array(np.tile(np.array(pool.names), len(ids)), arrow.string()),
        *(arrow.array(values.ravel(), arrow.float32()) for values in scores),
    ]
    return arrow.Table.from_arrays(columns, schema=schema)


def _columns(path: Path, names: Sequence[str]) -> dict[str, list[object]]:
    if not path.is_file():
        raise ScoreFileError(f"{str(path)!r} is missing")
    present = parquet.read_schema(path).names
    lacking = [name for name in names if name not in present]
    if lacking:
        raise ScoreFileError(f"{str(path)!r} lacks the column {lacking[0]!r}; it needs {', '.join(names)}")
    columns: dict[str, list[object]] = parquet.read_table(path, columns=list(names)).to_pydict()
    return columns
