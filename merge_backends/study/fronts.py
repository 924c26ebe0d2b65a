"""Pareto MoE against linear task arithmetic on two or three tasks: gates trained, both fronts measured on test rows.

`front_figures` compares them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from torch import nn

from merge_backends import moe
from merge_backends.errors import MergeError
from merge_backends.moe.front import FrontParameters, train_front
from merge_backends.moe.pareto import lattice, set_preference
from merge_backends.study.build import BATCH, labelled_batches
from merge_backends.study.encoder import empty_encoder, encode, half_precision, sentence_vectors
from merge_backends.study.prepare import Prepared, Setting, prepare

log = logging.getLogger(__name__)
KINDS = ("linear", "pareto")


@dataclass(frozen=True)
class FrontSizes:
    """How much a front costs.

    Attributes:
        steps: of training the gates.
        points: preferences along an edge of the simplex for two tasks, both corners included; for three a lattice of
            a third as many steps along each edge, and the centre.
        train_rows: per task, of those that no expert saw.
        test_rows: per task, at most; two near fronts need more of them than the table does.
        learning_rate: Adam's at the first step.
        unit, hold, temper: as in `FrontParameters`.
    """

    steps: int = 200
    points: int = 11
    train_rows: int = 1024
    test_rows: int = 2000
    learning_rate: float = 5e-3
    unit: Literal["root", "chance", "nats"] = "root"
    hold: float = 3.0
    temper: bool = True


def study_front(setting: Setting, tasks: tuple[str, ...], sizes: FrontSizes) -> dict[str, Any]:
    """The record of one seed: trains the gates and measures both fronts on test rows; kept in the cache.

    Linear task arithmetic at preference r is base + sum of r_k tau_k, so its corners are the experts themselves and its
    middle is their average. Pareto MoE gates every tensor, by block, and starts there.

    Raises:
        MergeError: a task has no train rows that no expert saw.
    """
    own = replace(setting, tasks=tasks, sizes=replace(setting.sizes, test=sizes.test_rows))
    prepared = prepare(own)
    for task in prepared.tasks:
        if not len(task.unseen):
            raise MergeError(
                f"Task {task.name!r} has no train rows that no expert saw.", "Give --train-rows a lower number."
            )
    key = json.dumps([prepared.identity, asdict(sizes), setting.seed, 3])
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
    preferences = preferences_of(len(names), sizes.points)
    record: dict[str, Any] = {"tasks": names, "seed": prepared.setting.seed, "sizes": asdict(sizes)}
    model = mixture_of_experts(prepared)
    for kind in KINDS:
        if kind == "pareto":
            record |= train_gates(prepared, model, sizes)
        record[kind] = [_measured(prepared, model, preference) for preference in preferences]
        log.info("front %s of %s: %s", kind, names, [point["accuracy"] for point in record[kind]])
    return record


def mixture_of_experts(prepared: Prepared) -> nn.Module:
    """Pareto MoE before training: its gates pass the preference on, which is base + sum of r_k tau_k."""
    experts = [expert.weights for expert in prepared.experts]
    settings = {"partial": False, "identity": True}
    seed = prepared.setting.seed
    return moe.build("pareto", empty_encoder(prepared.setting.base), prepared.base, experts, settings, seed=seed).eval()


def train_gates(prepared: Prepared, model: nn.Module, sizes: FrontSizes) -> dict[str, Any]:
    """Trains the gates on rows that no expert saw; all validation rows decide whether they are kept."""
    heads = {task.name: head for task, head in zip(prepared.tasks, prepared.heads, strict=True)}

    def predict(task: str, merged: nn.Module, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        with half_precision(prepared.setting.half):
            vectors = sentence_vectors(merged, inputs["input_ids"], inputs["attention_mask"])
        return heads[task].logits(vectors)

    train = {task.name: labelled_batches(task.unseen.take(sizes.train_rows), BATCH) for task in prepared.tasks}
    check = {task.name: labelled_batches(task.validation, 64) for task in prepared.tasks}
    parameters = FrontParameters(
        steps=sizes.steps,
        learning_rate=sizes.learning_rate,
        unit=sizes.unit,
        hold=sizes.hold,
        temper=sizes.temper,
    )
    started = time.monotonic()
    trained = train_front(
        model, train, validation=check, predict=predict, parameters=parameters, seed=prepared.setting.seed
    )
    return {
        "train_seconds": round(time.monotonic() - started, 1),
        "kept": trained.kept,
        "loss_before": round(trained.start, 4),
        "loss_after": round(trained.end, 4),
        "temperatures": [round(each, 3) for each in trained.temperatures],
    }


def _measured(prepared: Prepared, model: nn.Module, preference: tuple[float, ...]) -> dict[str, Any]:
    """Accuracy and cross-entropy of one preference by task, and the same row by row; on validation rows the means."""
    set_preference(model, preference, exact=True)
    point: dict[str, Any] = {"preference": preference, "accuracy": [], "loss": [], "correct": {}, "losses": {}}
    point["validation"] = {"accuracy": [], "loss": []}
    for task, head in zip(prepared.tasks, prepared.heads, strict=True):
        logits = head.logits(encode(model, task.validation, half=prepared.setting.half))
        right = logits.argmax(-1) == task.validation.labels
        point["validation"]["accuracy"].append(float(right.float().mean()))
        point["validation"]["loss"].append(float(nn.functional.cross_entropy(logits, task.validation.labels)))
        logits = head.logits(encode(model, task.test, half=prepared.setting.half))
        right = logits.argmax(-1) == task.test.labels
        losses = nn.functional.cross_entropy(logits, task.test.labels, reduction="none")
        point["accuracy"].append(float(right.float().mean()))
        point["loss"].append(float(losses.mean()))
        point["correct"][task.name] = "".join("1" if row else "0" for row in right.tolist())
        point["losses"][task.name] = [round(loss, 4) for loss in losses.tolist()]
    return point


def preferences_of(tasks: int, points: int) -> list[tuple[float, ...]]:
    """An even walk along the edge for two tasks; a lattice of a third as many steps a side and the centre for three."""
    if tasks == 2:
        return [(1 - step / (points - 1), step / (points - 1)) for step in range(points)]
    spread = list(lattice(tasks, max(2, (points - 1) // 3)))
    centre = (1 / tasks,) * tasks
    return spread if centre in spread else [*spread, centre]
