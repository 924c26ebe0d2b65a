"""Trains the routers of a mixture, guarded: early stop on labelled inputs, the best is kept, and never below its start.

Routers that learn from entropy alone may collapse to a few classes; see docs/design/011-mixtures.md.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from merge_backends.errors import MergeError
from merge_backends.moe.gates import gating
from merge_backends.moe.parameters import MixtureParameters
from merge_backends.moe.wemoe import make_static, routers_of

logger = logging.getLogger(__name__)

IGNORED = -100
Predict = Callable[[str, nn.Module, Mapping[str, Tensor]], Tensor]


class AdaptParameters(MixtureParameters):
    """How routers are trained. Defaults of WEMoE; the paper's 1000 steps converge by about 200."""

    learning_rate: float = Field(1e-4, gt=0, le=1, description="Adam's; 1e-3 and few steps were seen to collapse")
    decay: bool = Field(False, description="the learning rate falls linearly, to nothing at the last step")
    steps: int = Field(1000, ge=0, description="at most; each takes one batch of every task")
    evaluate_every: int = Field(25, ge=1, description="steps between looks at the validation inputs")
    patience: int = Field(6, ge=1, description="looks without a better score before it stops")
    batch_reduce: bool = Field(True, description="one merge per batch of a task while training, as in the paper")
    batch_reduce_looks: bool = Field(False, description="the same in the looks: cheaper, and less like one request")
    normalise_entropy: bool = Field(False, description="divide each task's entropy by the log of its classes")


@dataclass(frozen=True, slots=True)
class Batch:
    """Inputs of one task.

    Attributes:
        inputs: what the model is called with; `attention_mask` keeps padding out of the gate's mean.
        labels: `(batch,)` classes, or `(batch, positions)` token ids with -100 where none is asked; None: unlabelled.
        gate_mask: `(batch, positions)`, 1 where the gate looks; for decoders the prompt without its answer.
    """

    inputs: Mapping[str, Tensor]
    labels: Tensor | None = None
    gate_mask: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Score:
    """Mean over tasks on the validation inputs; a row of tokens is right where all its asked tokens are."""

    accuracy: float
    loss: float
    by_task: dict[str, float]


@dataclass(frozen=True, slots=True)
class Look:
    """One look at the validation inputs after `step` steps; `train_loss` is the mean since the last one."""

    step: int
    train_loss: float
    accuracy: float
    loss: float


@dataclass
class AdaptReport:
    """What training did: the score of task arithmetic, of the best routers, and which of them the model now has."""

    task_arithmetic: Score
    best: Score
    best_step: int
    steps: int
    fell_back: bool
    looks: list[Look] = field(default_factory=list)


def adapt(
    model: nn.Module,
    train: Mapping[str, Sequence[Batch]],
    *,
    validation: Mapping[str, Sequence[Batch]],
    predict: Predict | None = None,
    parameters: AdaptParameters | None = None,
    seed: int = 0,
) -> AdaptReport:
    """Train the routers in place: entropy on unlabelled batches, cross-entropy on labelled ones, summed over tasks.

    Args:
        train: batches by task.
        validation: labelled batches by task, other inputs than `train`'s; they choose the stop and nothing else.
        predict: logits `(batch, classes)` or `(batch, positions, vocabulary)` of `(task, model, inputs)`; without it
            the model's own `logits`. Encoders give their pooled output to the task's head here.

    Raises:
        MergeError: no router to train, no batch, or validation without labels.
    """
    parameters = parameters or AdaptParameters()
    predict = predict or own_logits
    routers = routers_of(model)
    if not routers:
        raise MergeError("the model has no routers to train", fix="Only wemoe and e_wemoe learn from inputs.")
    if not train or not all(train.values()) or not validation or not all(validation.values()):
        raise MergeError("a task has no batches", fix="Give at least one training and one validation batch per task.")
    learnt = _copy(routers)
    make_static(model)
    static = score(model, validation, predict, batch_reduce=parameters.batch_reduce_looks)
    _restore(routers, learnt)
    with only_gradients_of(model, routers):
        report = _train(model, routers, train, validation, predict, parameters, static, seed)
    if report.best.accuracy < static.accuracy:
        logger.warning(
            "routers reach %.4f on validation, task arithmetic %.4f: they are turned off",
            report.best.accuracy,
            static.accuracy,
        )
        make_static(model)
        report.fell_back = True
    return report


def score(
    model: nn.Module,
    validation: Mapping[str, Sequence[Batch]],
    predict: Predict | None = None,
    *,
    batch_reduce: bool = False,
) -> Score:
    """Accuracy and cross-entropy per task, each input routed by itself or, reduced, each batch as one."""
    predict = predict or own_logits
    by_task, losses = {}, []
    with torch.no_grad():
        for task, batches in validation.items():
            right = rows = 0
            loss = 0.0
            for batch in batches:
                if batch.labels is None:
                    raise MergeError(f"the validation inputs of task {task!r} have no labels", fix="Label them.")
                with gating(mask=batch.gate_mask, batch_reduce=batch_reduce):
                    logits, labels = aligned(predict(task, model, batch.inputs), batch.labels)
                loss += float(cross_entropy(logits, labels)) * len(labels)
                right += int(is_right(logits, labels).sum())
                rows += len(labels)
            by_task[task] = right / rows
            losses.append(loss / rows)
    return Score(sum(by_task.values()) / len(by_task), sum(losses) / len(losses), by_task)


def aligned(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens are predicted from the position before them; classes as they are."""
    return (logits[:, :-1], labels[:, 1:]) if logits.dim() == 3 else (logits, labels)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over the labels that are asked."""
    return functional.cross_entropy(logits.float().flatten(0, -2), labels.flatten(), ignore_index=IGNORED)


def is_right(logits: Tensor, labels: Tensor) -> Tensor:
    """`(batch,)`: whether the likeliest classes are the labels, at every asked position of a row."""
    right = (logits.argmax(-1) == labels) | (labels == IGNORED)
    return right.flatten(1).all(dim=1) if right.dim() > 1 else right


def entropy(logits: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean Shannon entropy of the predictions in nats; positions with mask 0 do not count."""
    logs = logits.float().log_softmax(-1)
    each = -(logs.exp() * logs).sum(-1)
    if each.dim() == 1 or mask is None:
        return each.mean()
    counted = mask.to(each.dtype)
    return (each * counted).sum() / counted.sum().clamp(min=1)


def _train(
    model: nn.Module,
    routers: Sequence[nn.Module],
    train: Mapping[str, Sequence[Batch]],
    validation: Mapping[str, Sequence[Batch]],
    predict: Predict,
    parameters: AdaptParameters,
    static: Score,
    seed: int,
) -> AdaptReport:
    rng = random.Random(seed)
    optimizer = torch.optim.Adam(
        [parameter for router in routers for parameter in router.parameters()], lr=parameters.learning_rate
    )
    reduced = parameters.batch_reduce_looks
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 1 - step / parameters.steps if parameters.decay else 1.0
    )
    best, kept = score(model, validation, predict, batch_reduce=reduced), _copy(routers)
    report = AdaptReport(static, best, 0, 0, False, [Look(0, float("nan"), best.accuracy, best.loss)])
    losses: list[float] = []
    stale = 0
    for step in range(1, parameters.steps + 1):
        with torch.enable_grad():
            loss = torch.stack(
                [_loss(task, model, rng.choice(batches), predict, parameters) for task, batches in train.items()]
            ).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        losses.append(loss.item())
        report.steps = step
        if step % parameters.evaluate_every and step != parameters.steps:
            continue
        found = score(model, validation, predict, batch_reduce=reduced)
        report.looks.append(Look(step, sum(losses) / len(losses), found.accuracy, found.loss))
        losses.clear()
        stale += 1
        if (found.accuracy, -found.loss) > (report.best.accuracy, -report.best.loss):
            report.best, report.best_step, kept, stale = found, step, _copy(routers), 0
        if stale >= parameters.patience:
            break
    _restore(routers, kept)
    return report


def _loss(task: str, model: nn.Module, batch: Batch, predict: Predict, parameters: AdaptParameters) -> Tensor:
    with gating(mask=batch.gate_mask, batch_reduce=parameters.batch_reduce):
        logits = predict(task, model, batch.inputs)
    if batch.labels is not None:
        return cross_entropy(*aligned(logits, batch.labels))
    mask = batch.gate_mask if batch.gate_mask is not None else batch.inputs.get("attention_mask")
    loss = entropy(logits, mask)
    return loss / torch.log(torch.tensor(float(logits.shape[-1]))) if parameters.normalise_entropy else loss


def own_logits(task: str, model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """What the model itself predicts, whatever the task."""
    logits: Tensor = model(**inputs).logits
    return logits


@contextmanager
def only_gradients_of(model: nn.Module, routers: Sequence[nn.Module]) -> Iterator[None]:
    """Gradients for the routers alone, no dropout; afterwards all is as it was."""
    wanted = {id(parameter) for router in routers for parameter in router.parameters()}
    before = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    was_training = model.training
    model.eval()
    for parameter, _ in before:
        parameter.requires_grad_(id(parameter) in wanted)
    try:
        yield
    finally:
        for parameter, needed in before:
            parameter.requires_grad_(needed)
            parameter.grad = None
        model.train(was_training)


def _copy(routers: Sequence[nn.Module]) -> list[dict[str, Tensor]]:
    return [{name: tensor.detach().clone() for name, tensor in router.state_dict().items()} for router in routers]


def _restore(routers: Sequence[nn.Module], states: list[dict[str, Tensor]]) -> None:
    for router, state in zip(routers, states, strict=True):
        router.load_state_dict(state)
