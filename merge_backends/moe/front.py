"""Training of Pareto gates over random preferences, and the front they reach: points, domination, hypervolume."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from merge_backends.errors import MergeError
from merge_backends.moe.adapt import Batch, Predict, aligned, cross_entropy, own_logits, score
from merge_backends.moe.exact_pareto import exact_pareto_weights
from merge_backends.moe.parameters import MixtureParameters
from merge_backends.moe.pareto import ParetoWeights, lattice, set_preference, weights_of

Floats = NDArray[np.float64]
_POWERS = {"nats": 0.0, "root": 0.5, "chance": 1.0}
"""Of the cross-entropy of guessing among a task's classes, by name of the unit."""


class FrontParameters(MixtureParameters):
    """How Pareto gates are trained; the paper's values."""

    method: Literal["linear", "epo"] = Field("linear", description="sum of preference times loss, or exact Pareto")
    learning_rate: float = Field(1e-2, gt=0, le=1, description="Adam's, falling as a cosine to a tenth")
    steps: int = Field(2000, ge=1)
    concentration: float = Field(1.0, gt=0, description="alpha of the Dirichlet that preferences are drawn from")
    unit: Literal["root", "chance", "nats"] = Field(
        "root",
        description="of losses: as they are (nats, the paper's), 1 for guessing among the task's classes (chance), or "
        "halfway between, the root of guessing's (our step)",
    )
    hold: float = Field(
        3.0, ge=0, description="weight of what a task loses against the plain merge of the same preference (our step)"
    )
    temper: bool = Field(True, description="learn a temperature per task beside the gates (our step), then forget it")


@dataclass(frozen=True, slots=True)
class Point:
    """What one preference reaches: accuracy and cross-entropy by task."""

    preference: tuple[float, ...]
    accuracy: tuple[float, ...]
    loss: tuple[float, ...]


@dataclass
class FrontReport:
    """`start` and `end` are the mean of preference times loss over the corners, edges and middle of the simplex.

    Both in the unit of the parameters and with the temperatures `(tasks,)` that were learnt.
    """

    start: float
    end: float
    kept: bool
    temperatures: tuple[float, ...] = ()
    infeasible: int = 0
    losses: list[float] = field(default_factory=list)


class _Merged(nn.Module):  # type: ignore[misc]
    """The model with other weights, for one call."""

    def __init__(self, model: nn.Module, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self.inner = [model]
        self.weights = weights

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return torch.func.functional_call(self.inner[0], self.weights, args, kwargs)


def train_front(
    model: nn.Module,
    train: Mapping[str, Sequence[Batch]],
    *,
    validation: Mapping[str, Sequence[Batch]],
    predict: Predict | None = None,
    parameters: FrontParameters | None = None,
    seed: int = 0,
) -> FrontReport:
    """Train the gates of a Pareto mixture on labelled batches, one task per expert, in the experts' order.

    Each step draws a preference and takes a batch of each task. Gates that end worse than they began on the
    validation inputs are put back. The model ends at equal preferences.

    Three steps are ours. Losses count over the root of guessing's: a task of 150 classes has losses several times those
    of one of two and would take the whole front to itself; over guessing's own it would be left behind. A temperature
    per task, the same for all preferences, takes up how sure the answers are; without it the gates learn to scale the
    task vectors until losses fall while the answers stay as wrong as they were. And what a task loses (without a
    temperature, as the model will be used) against the plain merge, base + sum of preference times task vector, counts
    on top: no task is to be worse than without gates.

    Raises:
        MergeError: not one task per expert, or batches without labels.
    """
    parameters = parameters or FrontParameters()
    weights = weights_of(model)
    if len(train) != weights.experts or list(train) != list(validation):
        raise MergeError(f"{len(train)} tasks for {weights.experts} experts", fix="Give one task per expert, in order.")
    learnt = list(weights.gates.parameters())
    before = {name: tensor.detach().clone() for name, tensor in weights.gates.state_dict().items()}
    yardstick = _Yardstick(list(train), predict or own_logits, parameters, next(weights.gates.parameters()).device)
    report = FrontReport(0.0, 0.0, True)
    optimizer = torch.optim.Adam([*learnt, yardstick.logs], lr=parameters.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, parameters.steps, eta_min=parameters.learning_rate / 10
    )
    rng, dice = random.Random(seed), np.random.default_rng(seed)
    model.eval()
    for _ in range(parameters.steps):
        preference = dice.dirichlet([parameters.concentration] * weights.experts)
        drawn = {task: rng.choice(some) for task, some in train.items()}
        with torch.enable_grad():
            losses, as_used = _losses(model, weights, preference, drawn, yardstick)
        mixed = preference
        if parameters.method == "epo":
            mixed, is_feasible = _exact(losses, learnt, preference)
            report.infeasible += not is_feasible
        total = (losses * torch.as_tensor(mixed, dtype=losses.dtype, device=losses.device)).sum()
        if parameters.hold:
            with torch.no_grad():
                _, without_gates = _losses(model, weights, preference, drawn, yardstick, plain=True)
            total = total + parameters.hold * torch.relu(as_used - without_gates).mean()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        schedule.step()
        report.losses.append(total.item())
    after = {name: tensor.detach().clone() for name, tensor in weights.gates.state_dict().items()}
    report.temperatures = tuple(yardstick.logs.detach().exp().tolist())
    report.end = _weighted_loss(model, validation, yardstick)
    weights.gates.load_state_dict(before)
    report.start = _weighted_loss(model, validation, yardstick)
    report.kept = report.end <= report.start
    if report.kept:
        weights.gates.load_state_dict(after)
    set_preference(model, [1.0] * weights.experts)
    return report


def evaluate_front(
    model: nn.Module,
    validation: Mapping[str, Sequence[Batch]],
    *,
    predict: Predict | None = None,
    preferences: Sequence[Sequence[float]] | None = None,
) -> list[Point]:
    """What each preference reaches; all of the snapped grid by default. The model ends at the last of them."""
    grid = weights_of(model).parameters_read.grid
    points = []
    for preference in preferences or list(lattice(len(validation), grid)):
        reached = set_preference(model, preference, exact=True)
        points.append(_point(model, reached, validation, predict or own_logits))
    return points


def non_dominated(scores: Sequence[Sequence[float]]) -> list[int]:
    """Indices of the scores (higher is better) that no other one beats or equals in all tasks and beats in one."""
    values = np.asarray(scores, dtype=np.float64)

    def is_beaten(index: int) -> bool:
        return bool(np.any(np.all(values >= values[index], axis=1) & np.any(values > values[index], axis=1)))

    return [index for index in range(len(values)) if not is_beaten(index)]


def hypervolume(scores: Sequence[Sequence[float]], reference: Sequence[float]) -> float:
    """Volume between a reference point and the scores (higher is better); exact, by slicing along the last task."""
    floor = np.asarray(reference, dtype=np.float64)
    above = np.asarray([each for each in scores if np.all(np.asarray(each) > floor)], dtype=np.float64)
    if not len(above):
        return 0.0
    return _volume(above - floor)


def _volume(heights: Floats) -> float:
    if heights.shape[1] == 1:
        return float(heights.max())
    volume = below = 0.0
    for level in np.unique(heights[:, -1]):
        volume += (level - below) * _volume(heights[heights[:, -1] >= level][:, :-1])
        below = level
    return volume


def monotonicity(points: Sequence[Point]) -> list[float]:
    """Per task: the share of pairs of points in which the higher preference does not have the lower accuracy."""
    shares = []
    for task in range(len(points[0].preference)):
        ordered = sorted((point.preference[task], point.accuracy[task]) for point in points)
        pairs = [
            low[1] <= high[1] for index, low in enumerate(ordered) for high in ordered[index + 1 :] if high[0] > low[0]
        ]
        shares.append(sum(pairs) / len(pairs) if pairs else 1.0)
    return shares


class _Yardstick:
    """How losses are read: logits over a learnt temperature per task, losses in the wanted unit."""

    def __init__(self, tasks: Sequence[str], predict: Predict, parameters: FrontParameters, device: Any) -> None:
        self.logs = nn.Parameter(torch.zeros(len(tasks), device=device), requires_grad=parameters.temper)
        self.units: dict[str, float] = {}
        self._place = {task: place for place, task in enumerate(tasks)}
        self._predict = predict
        self._power = _POWERS[parameters.unit]

    def read(self, task: str, model: nn.Module, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Logits of a task, and what the task's temperature multiplies them with."""
        logits = self._predict(task, model, inputs)
        self.units[task] = math.log(max(logits.shape[-1], 2)) ** self._power
        return logits, torch.exp(-self.logs[self._place[task]])

    def predict(self, task: str, model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        """Logits of a task, tempered."""
        logits, scale = self.read(task, model, inputs)
        return logits * scale


def _losses(
    model: nn.Module,
    weights: ParetoWeights,
    preference: Floats,
    batches: Mapping[str, Batch],
    yardstick: _Yardstick,
    *,
    plain: bool = False,
) -> tuple[Tensor, Tensor]:
    """Losses `(tasks,)` in the wanted unit, under the temperatures and without them."""
    point = torch.as_tensor(preference, dtype=torch.float32, device=yardstick.logs.device)
    merged = _Merged(model, weights(point, plain=plain))
    tempered, as_used = [], []
    for task, batch in batches.items():
        if batch.labels is None:
            raise MergeError(f"the training inputs of task {task!r} have no labels", fix="Label them.")
        logits, scale = yardstick.read(task, merged, batch.inputs)
        unit = yardstick.units[task]
        as_used.append(cross_entropy(*aligned(logits, batch.labels)) / unit)
        tempered.append(cross_entropy(*aligned(logits * scale, batch.labels)) / unit)
    return torch.stack(tempered), torch.stack(as_used)


def _exact(losses: Tensor, learnt: Sequence[Tensor], preference: Floats) -> tuple[Floats, bool]:
    rows = [
        torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(learnt), retain_graph=True)])
        for loss in losses
    ]
    gradients = torch.stack(rows).double().cpu().numpy()
    return exact_pareto_weights(losses.detach().double().cpu().numpy(), gradients, preference)


def _weighted_loss(model: nn.Module, validation: Mapping[str, Sequence[Batch]], yardstick: _Yardstick) -> float:
    totals = []
    for preference in _anchors(len(validation)):
        reached = set_preference(model, preference, exact=True)
        point = _point(model, reached, validation, yardstick.predict)
        units = [yardstick.units[task] for task in validation]
        totals.append(sum(share * loss / unit for share, loss, unit in zip(reached, point.loss, units, strict=True)))
    return sum(totals) / len(totals)


def _anchors(experts: int) -> Iterator[tuple[float, ...]]:
    yield from lattice(experts, 2)
    if experts > 2:
        yield tuple([1 / experts] * experts)


def _point(
    model: nn.Module, reached: tuple[float, ...], validation: Mapping[str, Sequence[Batch]], predict: Predict
) -> Point:
    by_task = [score(model, {task: batches}, predict) for task, batches in validation.items()]
    return Point(reached, tuple(each.accuracy for each in by_task), tuple(each.loss for each in by_task))
