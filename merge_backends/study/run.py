"""Runs the merging study: every method tuned on validation rows, tested once, each row kept as soon as it is known."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from merge_backends.study.build import Built, build_mixture, build_static, disk_bytes, encoder_of
from merge_backends.study.candidates import CANDIDATES, Candidate
from merge_backends.study.evaluate import Correct, as_lists, average, correct_of_task, correct_rows
from merge_backends.study.prepare import Prepared, Setting, prepare

log = logging.getLogger(__name__)
SCALE_SETTING = "lambda"
# Rows per task on which settings are compared: comparisons cost as much as tests, and there are more of them.
COMPARED_ROWS = 150
# Test rows per task of mixtures that merge per text, at tens of milliseconds each; probe and experts are compared with
# them on the same rows.
ROUTED_ROWS = 500


@dataclass(frozen=True)
class Row:
    """One tested row of the table.

    Attributes:
        settings: what validation chose.
        tried: validation accuracy (average over tasks, 0..1) of each setting, where there was a choice.
        parameters: numbers in the model; nbytes: their bytes in memory.
        correct: task -> "1" and "0" per test row.
        disk: bytes when saved.
    """

    name: str
    settings: dict[str, Any]
    tried: list[dict[str, Any]]
    seconds: float
    adapt_seconds: float
    parameters: int
    nbytes: int
    notes: dict[str, Any]
    correct: dict[str, str]
    disk: int = 0


def run_study(setting: Setting, candidates: Sequence[Candidate]) -> dict[str, Any]:
    """The study's record for one seed, ready for JSON; rows already known from an earlier run are not made again."""
    prepared = prepare(setting)
    rows = [_kept(prepared, name, _reference, name) for name in ("probe", "individual")]
    scale: float | None = None
    for candidate in candidates:
        if candidate.objective != "none" and scale is None:
            scale = _best_scale(prepared)
        row = _kept(prepared, candidate.name, _tested, candidate, scale if candidate.objective != "none" else None)
        rows.append(_with_disk(prepared, candidate, row))
    return {
        "seed": setting.seed,
        "tasks": {task.name: _counts(task) for task in prepared.tasks},
        "sizes": asdict(setting.sizes),
        "training": asdict(setting.training),
        "expert_seconds": [round(expert.seconds, 1) for expert in prepared.experts],
        "rows": [asdict(row) for row in rows],
    }


def _counts(task: Any) -> dict[str, int]:
    sizes = {split: len(getattr(task, split)) for split in ("train", "validation", "test")}
    return {"classes": task.classes, **sizes}


def _best_scale(prepared: Prepared) -> float:
    """Weight that task arithmetic was given on validation; mixtures start from it."""
    row = _kept(prepared, "task_arithmetic", _tested, CANDIDATES["task_arithmetic"], None)
    return float(row.settings[SCALE_SETTING])


def _kept(prepared: Prepared, name: str, make: Any, *arguments: Any) -> Row:
    """The row from the cache, or made now and kept; its key is everything it depends on."""
    described = [_described(argument) for argument in arguments]
    canonical = json.dumps([prepared.identity, name, described, 1], sort_keys=True, default=str)
    path = prepared.setting.cache / "rows" / f"{name}-{hashlib.sha256(canonical.encode()).hexdigest()[:16]}.json"
    if path.exists():
        return Row(**json.loads(path.read_text()))
    started = time.monotonic()
    row: Row = make(prepared, *arguments)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(row)))
    log.info("%s: test %.4f in %.0f s, %s", name, _mean(row), time.monotonic() - started, row.settings)
    return row


def _described(argument: Any) -> Any:
    return asdict(argument) if isinstance(argument, Candidate) else argument


def _with_disk(prepared: Prepared, candidate: Candidate, row: Row) -> Row:
    """The row with its size on disk: a static merge is stored as it is in memory, a mixture is saved and weighed."""
    if candidate.kind == "static":
        return replace(row, disk=row.nbytes)
    key = hashlib.sha256(json.dumps([candidate.method, row.settings], sort_keys=True).encode()).hexdigest()[:16]
    path = prepared.setting.cache / "rows" / f"disk-{prepared.identity[:16]}-{key}.json"
    if not path.exists():
        path.write_text(json.dumps(disk_bytes(prepared, candidate, row.settings)))
    return replace(row, disk=int(json.loads(path.read_text())))


def _mean(row: Row) -> float:
    return sum(rows.count("1") / len(rows) for rows in row.correct.values()) / len(row.correct)


def _reference(prepared: Prepared, name: str) -> Row:
    """The frozen encoder ("probe"), or each task with its own expert ("individual")."""
    half, correct = prepared.setting.half, Correct()
    count = sum(value.numel() for value in prepared.base.values())
    encoder = encoder_of(prepared, prepared.base)
    for task, head, expert in zip(prepared.tasks, prepared.heads, prepared.experts, strict=True):
        if name == "individual":
            encoder = encoder_of(prepared, expert.weights)
        correct[task.name] = correct_of_task(encoder, task, head, "test", half=half)
    copies = len(prepared.experts) if name == "individual" else 1
    return Row(name, {}, [], 0.0, 0.0, copies * count, 4 * copies * count, {}, as_lists(correct))


def _tested(prepared: Prepared, candidate: Candidate, scale: float | None) -> Row:
    """Chooses the setting on validation rows, then looks at the test rows once."""
    half = prepared.setting.half
    best: tuple[float, dict[str, Any], Built] | None = None
    tried = []
    compared = [replace(task, validation=task.validation.take(COMPARED_ROWS)) for task in prepared.tasks]
    for given in candidate.settings:
        settings = {**given, **({"init_lambda": scale} if scale is not None else {})}
        built = _build(prepared, candidate, settings)
        found = 0.0
        if len(candidate.settings) > 1:
            found = average(correct_rows(built.encoder, compared, prepared.heads, "validation", half=half))
            tried.append({"settings": settings, "validation": round(found, 4)})
        log.info("%s %s: validation %.4f, %.1f s", candidate.name, settings, found, built.seconds)
        if best is None or found > best[0]:
            best = (found, settings, built)
    assert best is not None
    _, settings, built = best
    tested = prepared.tasks
    if candidate.objective != "none":
        tested = tuple(replace(task, test=task.test.take(ROUTED_ROWS)) for task in tested)
    correct = correct_rows(built.encoder, tested, prepared.heads, "test", half=half)
    return Row(
        candidate.name,
        settings,
        tried,
        round(built.seconds, 3),
        round(built.adapt_seconds, 1),
        built.parameters,
        built.nbytes,
        built.notes,
        as_lists(correct),
    )


def _build(prepared: Prepared, candidate: Candidate, settings: Mapping[str, Any]) -> Built:
    if candidate.kind == "mixture":
        return build_mixture(prepared, candidate, settings)
    return build_static(prepared, candidate, settings)
