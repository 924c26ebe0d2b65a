"""From a plan to a mixture's folder: builds it in memory, and saves it with its lineage."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from merge_backends import digests, moe
from merge_backends.calibration import IGNORED, TaskData
from merge_backends.calibration_files import load_calibration
from merge_backends.errors import RecipeError, UnknownNameError
from merge_backends.lineage import make_lineage
from merge_backends.methods import parse_parameters
from merge_backends.moe.adapt import AdaptParameters, Batch, adapt
from merge_backends.moe.front import FrontParameters, train_front
from merge_backends.moe.mixture import size_of
from merge_backends.moe.recognise import RecogniseParameters, recognise
from merge_backends.moe.store import save_mixture, stored_tensors
from merge_backends.plan import Plan
from merge_backends.router_check import fit_router_check
from merge_backends.skeleton import empty_model

Tasks = Mapping[str, Sequence[Batch]]
LABELS, RECOGNISE = "labels", "recognise"


def build_mixture(
    plan: Plan, target: Path, *, root: Path, created: str, copies: Mapping[str, Path], stages: Mapping[str, Any]
) -> dict[str, Any]:
    """Builds and saves; the lineage is inside `mixture.json`.

    Routers start at task arithmetic and learn from the recipe's `data`, a quarter of whose batches is for validation;
    without data they stay there. The same goes for the gates of a Pareto mixture.

    Raises:
        MergeError: the models are not of a shape that mixtures know.
    """
    assert plan.base is not None
    began = time.monotonic()
    model = empty_model(plan.base.checkpoint)
    experts = [expert.weights for expert in plan.experts]
    settings = plan.settings.model_dump() if plan.settings else None
    built = moe.build(plan.recipe.method, model, plan.base.weights, experts, settings, seed=plan.recipe.seed)
    learnt = train(plan, built, root) if plan.recipe.has_data and moe.find(plan.recipe.method).needs_data else {}
    contents = [(name, digests.tensor_digest(name, tensor)) for name, tensor in stored_tensors(built).items()]
    size = size_of(built).parameters
    metrics = {"seconds": round(time.monotonic() - began, 3), "parameters": size, **learnt}
    record = make_lineage(plan, digest=digests.combine(contents), created=created, metrics=metrics, stages=stages)
    save_mixture(target, built, lineage=record, copies=[path for name, path in copies.items() if "/" not in name])
    return record


def train(plan: Plan, model: Any, root: Path) -> dict[str, Any]:
    """Trains what the mixture learns with; what came of it.

    Raises:
        RecipeError: a task has fewer than two batches, or classes without labels.
    """
    tasks = _tasks(plan, root)
    learn = {name: [one for n, one in enumerate(batches) if n % 4 != 1] for name, batches in tasks.items()}
    validation = {name: [one for n, one in enumerate(batches) if n % 4 == 1] for name, batches in tasks.items()}
    return (train_gates if plan.recipe.method == "pareto" else train_routers)(plan, model, learn, validation)


def train_routers(plan: Plan, model: Any, learn: Tasks, validation: Tasks) -> dict[str, Any]:
    """Trains the routers and fits the check that turns them off outside the domain.

    They learn from labels as the papers', or with `method: recognise` whose task a text is from; either way the
    validation batches decide whether they stay on.
    """
    given, seed = dict(plan.recipe.adaptation), plan.recipe.seed
    way = given.pop("method", LABELS)
    if way not in (LABELS, RECOGNISE):
        raise UnknownNameError("way to train routers", str(way), (LABELS, RECOGNISE))
    taught: dict[str, Any] = {}
    if way == RECOGNISE:
        lessons = parse_parameters(RecogniseParameters, given, owner="`adaptation`")
        error = recognise(model, learn, parameters=lessons, seed=seed).error
        taught = {"router_steps": lessons.steps, "router_error": error}
        settings = AdaptParameters(steps=0)
    else:
        settings = parse_parameters(AdaptParameters, given, owner="`adaptation`")
    report = adapt(model, learn, validation=validation, parameters=settings, seed=seed)
    fit_router_check(model, learn)
    return {
        "validation_accuracy": report.best.accuracy,
        "validation_accuracy_task_arithmetic": report.task_arithmetic.accuracy,
        "router_steps": report.steps,
        "routers_turned_off": report.fell_back,
        **taught,
    }


def train_gates(plan: Plan, model: Any, learn: Tasks, validation: Tasks) -> dict[str, Any]:
    """Trains the gates of a Pareto mixture over preferences drawn at random."""
    settings = parse_parameters(FrontParameters, plan.recipe.adaptation, owner="`adaptation`")
    report = train_front(model, learn, validation=validation, parameters=settings, seed=plan.recipe.seed)
    return {
        "validation_loss": report.end,
        "validation_loss_before": report.start,
        "validation_loss_unit": settings.unit,
        "temperatures": list(report.temperatures),
        "gate_steps": len(report.losses),
        "gates_put_back": not report.kept,
    }


def _tasks(plan: Plan, root: Path) -> Tasks:
    assert plan.base is not None
    causal = "CausalLM" in plan.base.checkpoint.architecture or "LMHead" in plan.base.checkpoint.architecture
    tasks = {task.name: batches_of(task, language_model=causal) for task in load_calibration(plan, root).tasks}
    if len(tasks) < len(plan.experts):
        raise RecipeError("Two experts' folders have the same name.", "Rename one: tasks are told apart by it.")
    short = next((name for name, batches in tasks.items() if len(batches) < 2), None)
    if short is not None:
        raise RecipeError(f"The data of {short!r} makes one batch only.", "Give more texts, or a smaller `batch`.")
    unlabelled = next((name for name, batches in tasks.items() if any(one.labels is None for one in batches)), None)
    if unlabelled is not None:
        raise RecipeError(f"The texts of {unlabelled!r} have no labels.", "They are judged by labelled texts.")
    return tasks


def batches_of(task: TaskData, *, language_model: bool) -> list[Batch]:
    """A task's batches for the routers; the labels of a language model's texts are their own tokens."""
    made = []
    for number, inputs in enumerate(task.batches):
        labels = task.labels[number] if task.labels is not None else None
        if language_model:
            labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, IGNORED)
        made.append(Batch(inputs, labels))
    return made
