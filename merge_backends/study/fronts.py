"""Pareto MoE against linear task arithmetic on two or three tasks: both fronts, hypervolume, monotonicity."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn

from merge_backends import moe
from merge_backends.moe.front import (
    FrontParameters,
    Point,
    evaluate_front,
    hypervolume,
    monotonicity,
    non_dominated,
    train_front,
)
from merge_backends.study.build import BATCH, labelled_batches
from merge_backends.study.data import Rows
from merge_backends.study.encoder import empty_encoder, half_precision, sentence_vectors
from merge_backends.study.prepare import Prepared, Setting, prepare

log = logging.getLogger(__name__)
# Validation rows per task, at most half, that decide whether trained gates are kept; the others may train them.
CHECK = 100


@dataclass(frozen=True)
class FrontSizes:
    """How much a front costs.

    Attributes:
        steps: of training the gates.
        points: preferences along an edge of the simplex, both corners included.
        train_rows, test_rows: per task.
        start_linear: gates start as linear task arithmetic; otherwise every task vector starts at `scale`.
        held_out: train the gates on validation rows, which no expert has seen, and not on the experts' train rows.
    """

    steps: int = 150
    points: int = 5
    train_rows: int = 500
    test_rows: int = 400
    scale: float = 0.6
    start_linear: bool = True
    held_out: bool = True
    learning_rate: float = 1e-2


def study_front(setting: Setting, tasks: tuple[str, ...], sizes: FrontSizes) -> dict[str, Any]:
    """Trains the gates and measures both fronts on test rows; kept in the cache.

    Linear task arithmetic at preference r is base + sum of r_k tau_k, so its corners are the experts themselves and its
    middle is their average. Pareto MoE gates every tensor, by block.
    """
    prepared = prepare(replace(setting, tasks=tasks))
    key = json.dumps([prepared.identity, asdict(sizes), setting.seed, 1])
    path = setting.cache / "fronts" / f"{'-'.join(tasks)}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
    if path.exists():
        found: dict[str, Any] = json.loads(path.read_text())
        return found
    record = _study(prepared, sizes)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record))
    return record


def _study(prepared: Prepared, sizes: FrontSizes) -> dict[str, Any]:
    names = [task.name for task in prepared.tasks]
    heads = dict(zip(names, prepared.heads, strict=True))
    half = prepared.setting.half

    def predict(task: str, model: nn.Module, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        with half_precision(half):
            vectors = sentence_vectors(model, inputs["input_ids"], inputs["attention_mask"])
        return heads[task].logits(vectors)

    rows = {
        task.name: _after(task.validation, _checked(task.validation)) if sizes.held_out else task.train
        for task in prepared.tasks
    }
    train = {name: labelled_batches(found.take(sizes.train_rows), BATCH) for name, found in rows.items()}
    check = {
        task.name: labelled_batches(task.validation.take(_checked(task.validation)), 64) for task in prepared.tasks
    }
    test = {task.name: labelled_batches(task.test.take(sizes.test_rows), 64) for task in prepared.tasks}
    settings = {"init_lambda": sizes.scale, "partial": False, "grid": 4 * (sizes.points - 1)}
    fronts: dict[str, list[Point]] = {}
    preferences = _preferences(len(names), sizes.points)
    report: dict[str, Any] = {}
    for kind in ("linear", "pareto"):
        model = _mixture(prepared, settings, linear=kind == "linear" or sizes.start_linear)
        if kind == "pareto":
            started = time.monotonic()
            parameters = FrontParameters(steps=sizes.steps, learning_rate=sizes.learning_rate)
            trained = train_front(
                model, train, validation=check, predict=predict, parameters=parameters, seed=prepared.setting.seed
            )
            report |= {"train_seconds": round(time.monotonic() - started, 1), "kept": trained.kept}
            report |= {"loss_before": round(trained.start, 4), "loss_after": round(trained.end, 4)}
        fronts[kind] = evaluate_front(model, test, predict=predict, preferences=preferences)
        log.info("front %s of %s: %s", kind, names, [point.accuracy for point in fronts[kind]])
    return {"tasks": names, "seed": prepared.setting.seed, "sizes": asdict(sizes), **report, **_figures(fronts)}


def _checked(rows: Rows) -> int:
    return min(CHECK, len(rows) // 2)


def _after(rows: Rows, count: int) -> Rows:
    """All rows but the first `count`."""
    return Rows(rows.tokens[count:], rows.labels[count:])


def _mixture(prepared: Prepared, settings: Mapping[str, Any], *, linear: bool) -> nn.Module:
    """Pareto MoE before training; with `linear`, gates that pass the preference on: base + sum of r_k tau_k."""
    experts = [expert.weights for expert in prepared.experts]
    own = {**settings, "identity": True} if linear else dict(settings)
    return moe.build(
        "pareto", empty_encoder(prepared.setting.base), prepared.base, experts, own, seed=prepared.setting.seed
    ).eval()


def _preferences(tasks: int, points: int) -> list[tuple[float, ...]]:
    """An even walk along the edge for two tasks; corners, edge middles and the centre for three."""
    if tasks == 2:
        return [(1 - step / (points - 1), step / (points - 1)) for step in range(points)]
    corners = [tuple(float(each == one) for each in range(tasks)) for one in range(tasks)]
    middles = [tuple(0.5 * float(each != one) for each in range(tasks)) for one in range(tasks)]
    return [*corners, *middles, (1 / tasks,) * tasks]


def _figures(fronts: Mapping[str, Sequence[Point]]) -> dict[str, Any]:
    """Hypervolumes above the worst accuracy of either front, domination at equal weights, monotonicity."""
    both = [point.accuracy for points in fronts.values() for point in points]
    floor = [min(each[axis] for each in both) for axis in range(len(both[0]))]
    middle = {kind: _middle(points) for kind, points in fronts.items()}
    return {
        **{kind: [asdict(point) for point in points] for kind, points in fronts.items()},
        "reference": floor,
        "hypervolume": {
            kind: round(hypervolume([point.accuracy for point in points], floor), 6) for kind, points in fronts.items()
        },
        "monotone": {kind: [round(share, 3) for share in monotonicity(points)] for kind, points in fronts.items()},
        "dominates_at_equal_weights": any(
            all(mine >= theirs for mine, theirs in zip(point.accuracy, middle["linear"].accuracy, strict=True))
            and point.accuracy != middle["linear"].accuracy
            for point in fronts["pareto"]
        ),
        "on_the_joint_front": {
            kind: sum(
                index < len(fronts["linear"]) if kind == "linear" else index >= len(fronts["linear"])
                for index in non_dominated([p.accuracy for k in ("linear", "pareto") for p in fronts[k]])
            )
            for kind in fronts
        },
    }


def _middle(points: Sequence[Point]) -> Point:
    """The point of (most nearly) equal preferences."""
    return min(points, key=lambda point: max(point.preference) - min(point.preference))
