"""Builds one row of the table: a static merge or a mixture of the prepared experts, with the time it took."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from merge_backends import moe
from merge_backends.calibration import CalibrationData, TaskData
from merge_backends.errors import MergeError
from merge_backends.methods import entry, parse_parameters
from merge_backends.moe.adapt import AdaptParameters, Predict, adapt
from merge_backends.moe.adapt import Batch as AdaptBatch
from merge_backends.moe.mixed import computed_factored
from merge_backends.moe.mixture import size_of
from merge_backends.moe.recognise import RecogniseParameters, recognise
from merge_backends.moe.store import save_mixture
from merge_backends.study.candidates import Candidate, Objective
from merge_backends.study.data import Batch, Rows, StudyTask, batches
from merge_backends.study.encoder import empty_encoder, half_precision, sentence_vectors
from merge_backends.study.heads import Head
from merge_backends.study.prepare import Prepared

CALIBRATION_ROWS = 256
BATCH = 16
SMALL_BATCH = 8
# Rows per task at which router training looks, every so many steps: looks cost as much as the steps between them.
LOOK_ROWS = 32
# The same where it looks twice only, before and after.
CHECKED_ROWS = 96


@dataclass(frozen=True)
class Built:
    """A candidate's model.

    Attributes:
        encoder: ready to encode.
        seconds: of the merge alone, adaptation of coefficients by the method included.
        adapt_seconds: of training routers.
        parameters: numbers in the model; nbytes: what they take in memory.
        notes: what the adaptation reported.
    """

    encoder: nn.Module
    seconds: float
    adapt_seconds: float
    parameters: int
    nbytes: int
    notes: dict[str, Any] = field(default_factory=dict)


def encoder_of(prepared: Prepared, weights: Mapping[str, torch.Tensor]) -> nn.Module:
    """An encoder with these weights; tensors that are not among them (position ids) are computed by the model."""
    encoder = empty_encoder(prepared.setting.base)
    missing = encoder.load_state_dict(dict(weights), strict=False)
    assert not missing.unexpected_keys
    return encoder


def build_static(prepared: Prepared, candidate: Candidate, settings: Mapping[str, Any]) -> Built:
    """The method's merged weights in an encoder; methods that look at data see unlabelled validation texts."""
    method = entry(candidate.method)
    parameters = parse_parameters(method.parameters, settings, owner=f"merge method {candidate.method!r}")
    data = calibration(prepared) if method.needs_data else None
    experts = [expert.weights for expert in prepared.experts]
    base = prepared.base
    started = time.monotonic()
    with half_precision(prepared.setting.half and candidate.method == "adamerging"):
        merged = dict(method.merge(base, experts, parameters, seed=prepared.setting.seed, data=data))
    seconds = time.monotonic() - started
    encoder = encoder_of(prepared, merged)
    size = size_of(encoder)
    return Built(encoder, seconds, 0.0, size.parameters, size.nbytes)


def calibration(prepared: Prepared) -> CalibrationData:
    """The first validation texts of every task without their labels, and the frozen heads."""
    tasks = []
    for task, head in zip(prepared.tasks, prepared.heads, strict=True):
        cut = [_inputs(batch) for batch in _mixed_batches(task.validation.take(CALIBRATION_ROWS))]
        tasks.append(TaskData(task.name, cut, None, _head_of(head)))
    return CalibrationData(empty_encoder(prepared.setting.base), tasks)


def _head_of(head: Head) -> Any:
    def logits(output: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        hidden = output.last_hidden_state.float()
        weight = batch["attention_mask"].unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * weight).sum(1) / weight.sum(1).clamp_min(1)
        return head.logits(nn.functional.normalize(mean, dim=-1))

    return logits


def _mixed_batches(rows: Rows, size: int = BATCH) -> list[Batch]:
    """Batches in a fixed random order: sorted by length, the first ones would hold the short texts only."""
    return list(batches(rows, size, generator=torch.Generator().manual_seed(0)))


def _inputs(batch: Batch) -> dict[str, torch.Tensor]:
    return {"input_ids": batch.inputs, "attention_mask": batch.mask}


def build_mixture(prepared: Prepared, candidate: Candidate, settings: Mapping[str, Any]) -> Built:
    """The mixture in an encoder; with an objective its routers are trained and checked against the static merge."""
    experts = [expert.weights for expert in prepared.experts]
    started = time.monotonic()
    encoder = moe.build(
        candidate.method,
        empty_encoder(prepared.setting.base),
        prepared.base,
        experts,
        settings,
        seed=prepared.setting.seed,
    ).eval()
    seconds = time.monotonic() - started
    notes: dict[str, Any] = {}
    adapt_seconds = 0.0
    if candidate.objective != "none":
        started = time.monotonic()
        notes = train_routers(prepared, encoder, candidate.objective, candidate.routers)
        adapt_seconds = time.monotonic() - started
    size = size_of(encoder)
    return Built(encoder, seconds, adapt_seconds, size.parameters, size.nbytes, notes)


def disk_bytes(prepared: Prepared, candidate: Candidate, settings: Mapping[str, Any]) -> int:
    """Bytes of the saved mixture, base included; what its routers have learnt does not change the size."""
    untrained = Candidate(candidate.name, candidate.method, candidate.kind)
    built = build_mixture(prepared, untrained, settings)
    with tempfile.TemporaryDirectory(dir=prepared.setting.cache) as folder:
        target = Path(folder) / "mixture"
        save_mixture(target, built.encoder)
        return sum(path.stat().st_size for path in target.iterdir())


def train_routers(
    prepared: Prepared, encoder: nn.Module, objective: Objective, routers: Mapping[str, Any]
) -> dict[str, Any]:
    """Trains on the objective's texts; labelled validation texts choose when to stop.

    Raises:
        MergeError: rows that no expert saw were asked for, and a task has none.
    """
    heads = dict(zip((task.name for task in prepared.tasks), prepared.heads, strict=True))

    def predict(task: str, model: nn.Module, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        with half_precision(prepared.setting.half):
            vectors = sentence_vectors(model, inputs["input_ids"], inputs["attention_mask"])
        return heads[task].logits(vectors)

    if objective == "task":
        return _train_recognition(prepared, encoder, RecogniseParameters(**routers), predict)
    parameters = AdaptParameters(**routers)
    labelled = objective != "entropy"
    size = BATCH if objective == "cross_entropy" else SMALL_BATCH
    train = {task.name: _adapt_batches(_adaptation_rows(task, objective), labelled, size) for task in prepared.tasks}
    size = BATCH if parameters.batch_reduce_looks else 64
    looks = {task.name: _adapt_batches(_looks(task, objective, parameters), True, size=size) for task in prepared.tasks}
    encoder.set_attn_implementation("eager")  # the fused attention's gradient takes a quarter longer per step on a CPU
    report = adapt(encoder, train, validation=looks, predict=predict, parameters=parameters, seed=prepared.setting.seed)
    return {
        "objective": objective,
        "training": parameters.model_dump(),
        "task_arithmetic": report.task_arithmetic.accuracy,
        "best": report.best.accuracy,
        "best_step": report.best_step,
        "steps": report.steps,
        "fell_back": report.fell_back,
        "looks": [asdict(look) for look in report.looks],
    }


def _train_recognition(
    prepared: Prepared, encoder: nn.Module, parameters: RecogniseParameters, predict: Predict
) -> dict[str, Any]:
    """Routers learn whose task a text is from; labelled validation texts, routed each by itself, may turn them off."""
    train = {task.name: _adapt_batches(_adaptation_rows(task, "task"), False, SMALL_BATCH) for task in prepared.tasks}
    checked = {task.name: _adapt_batches(task.validation.take(CHECKED_ROWS), True, 64) for task in prepared.tasks}
    seed = prepared.setting.seed
    learnt = recognise(encoder, train, call=predict, parameters=parameters, seed=seed)
    dtype = torch.bfloat16 if prepared.setting.half else torch.float32
    with computed_factored(encoder, dtype):
        report = adapt(
            encoder, train, validation=checked, predict=predict, parameters=AdaptParameters(steps=0), seed=seed
        )
    return {
        "objective": "task",
        "training": parameters.model_dump(),
        "task_arithmetic": report.task_arithmetic.accuracy,
        "best": report.best.accuracy,
        "fell_back": report.fell_back,
        "error": learnt.error,
        "found": {str(layer): round(share, 4) for layer, share in learnt.found.items()},
    }


def _adaptation_rows(task: StudyTask, objective: Objective) -> Rows:
    """An expert is certain of its own train rows, so all objectives but one learn from others."""
    if objective == "cross_entropy":
        return task.train.take(CALIBRATION_ROWS)
    if objective == "entropy":
        return _half(task.validation, first=True)
    if not len(task.unseen):
        raise MergeError(
            f"Task {task.name!r} has no train rows that no expert saw.", "Give --train-rows a lower number."
        )
    return task.unseen


def _looks(task: StudyTask, objective: Objective, parameters: AdaptParameters) -> Rows:
    """All validation rows where a look is cheap, else a few; none that training saw, unlabelled, before."""
    rows = _half(task.validation, first=False) if objective == "entropy" else task.validation
    return rows if parameters.batch_reduce_looks else _half(task.validation, first=False).take(LOOK_ROWS)


def _half(rows: Rows, *, first: bool) -> Rows:
    middle = len(rows) // 2
    part = slice(0, middle) if first else slice(middle, None)
    return Rows(rows.tokens[part], rows.labels[part])


def labelled_batches(rows: Rows, size: int) -> list[AdaptBatch]:
    """Batches with their labels, in a fixed random order."""
    return _adapt_batches(rows, True, size)


def _adapt_batches(rows: Rows, labelled: bool, size: int = BATCH) -> list[AdaptBatch]:
    return [
        AdaptBatch(_inputs(batch), rows.labels[batch.index] if labelled else None)
        for batch in _mixed_batches(rows, size)
    ]
