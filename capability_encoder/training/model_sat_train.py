"""Training and scoring the language-model form of Model-SAT on recorded outcomes: the two stages of the paper."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from capability_encoder.profile import Answer, CapabilityProfile, capability_instruction
from capability_encoder.training.data import FloatArray, IntArray, Outcomes
from capability_encoder.training.losses import model_sat_contrast
from capability_encoder.training.model_sat_config import Stage
from capability_encoder.training.model_sat_lm import ModelSat

#: Orders of a capability text that stage one keeps encoded while psi is frozen.
_KEPT_ORDERS = 4


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Capability profiles of models, and the task of every aptitude item."""

    profiles: Mapping[str, CapabilityProfile]
    task_of: Mapping[str, str]

    @classmethod
    def of(cls, outcomes: Outcomes) -> Capabilities:
        """Read the aptitude rows of `outcomes`; models without any answer get an empty profile."""
        rows = np.flatnonzero(outcomes.splits == "aptitude")
        task_of = {outcomes.prompt_ids[row]: task_words(str(outcomes.tasks[row])) for row in rows}
        profiles = {}
        for column, name in enumerate(outcomes.models):
            answers = tuple(
                Answer(outcomes.prompt_ids[row], float(outcomes.scores[row, column]))
                for row in rows
                if not np.isnan(outcomes.scores[row, column])
            )
            profiles[name] = CapabilityProfile(name=name, answers=answers)
        return cls(profiles=profiles, task_of=task_of)

    def text(self, model: str, rng: np.random.Generator) -> str:
        """c_m with the tasks in a random order."""
        order = sorted(set(self.task_of.values()))
        rng.shuffle(order)
        return capability_instruction(self.profiles[model], self.task_of, order=order)


def task_words(task: str) -> str:
    """A task's label as words: `ori_mmlu-professional_law` is `professional law`."""
    plain = re.sub(r"^(ori_mmlu|mmlu|stemez|theoremQA|scibench)-", "", task)
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", plain).replace("_", " ").lower()


@dataclass(frozen=True, slots=True)
class Group:
    """One step's data: a model, a data set, and prompts `[groups, 1 + negatives]` with the positive first."""

    model: str
    rows: IntArray


class GroupSampler:
    """Draws homogeneous groups: one model and one data set; stronger models are drawn more often, as in the paper."""

    def __init__(self, outcomes: Outcomes, models: Sequence[str], stage: Stage, negatives: int) -> None:
        train = outcomes.splits == "train"
        self._negatives, self._groups = negatives, stage.groups
        self._cells: list[tuple[str, IntArray, IntArray]] = []
        weights = []
        for name in models:
            scores = outcomes.scores[:, outcomes.models.index(name)]
            for dataset in stage.datasets:
                here = train & (outcomes.datasets == dataset)
                right, wrong = np.flatnonzero(here & (scores > 0.5)), np.flatnonzero(here & (scores <= 0.5))
                if len(right) >= stage.groups and len(wrong) >= negatives:
                    self._cells.append((name, right, wrong))
                    weights.append(len(right) / (len(right) + len(wrong)))
        if not self._cells:
            raise ValueError(f"stage {stage.name!r}: no model has enough right and wrong answers in {stage.datasets}")
        self._weights = np.array(weights) / np.sum(weights)

    def draw(self, rng: np.random.Generator) -> Group:
        """One group set."""
        model, right, wrong = self._cells[int(rng.choice(len(self._cells), p=self._weights))]
        positive = rng.choice(right, size=(self._groups, 1), replace=False)
        negative = rng.choice(wrong, size=(self._groups, self._negatives), replace=True)
        return Group(model, np.hstack([positive, negative]).astype(np.int64))


def train(method: ModelSat, outcomes: Outcomes, models: Sequence[str], capabilities: Capabilities) -> list[float]:
    """Run all stages on the `train` prompts of `outcomes`; returns the loss of every step.

    Args:
        models: models to learn from (the seen ones).
    """
    rng = np.random.default_rng(method.setting.seed)
    torch.manual_seed(method.setting.seed)  # dropout inside psi and phi has no generator of its own
    history: list[float] = []
    for stage in method.setting.stages:
        history += _run_stage(method, stage, outcomes, models, capabilities, rng)
    return history


def _run_stage(
    method: ModelSat,
    stage: Stage,
    outcomes: Outcomes,
    models: Sequence[str],
    capabilities: Capabilities,
    rng: np.random.Generator,
) -> list[float]:
    sampler = GroupSampler(outcomes, models, stage, method.setting.negatives)
    optimizer = torch.optim.AdamW(_thawed(method, stage))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _warm_cosine(stage.steps, method.setting.warm_up))
    kept: dict[tuple[str, int], Tensor] = {}
    losses = []
    for _ in range(stage.steps):
        group = sampler.draw(rng)
        if stage.encoder_rate:
            vectors = method.sentence_vectors(capabilities.text(group.model, rng))
        else:
            key = (group.model, int(rng.integers(_KEPT_ORDERS)))
            if key not in kept:
                with torch.no_grad():
                    kept[key] = method.sentence_vectors(capabilities.text(group.model, rng))
            vectors = kept[key]
        prompts = [outcomes.asks[row] for row in group.rows.ravel()]
        yes = method.yes_log_probability(vectors, prompts).reshape(group.rows.shape)
        loss = model_sat_contrast(yes) if method.setting.loss == "contrast" else pointwise_yes(yes)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], 1.0)
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
    return losses


def pointwise_yes(yes: Tensor) -> Tensor:
    """Cross-entropy of Pr('Yes') with the first column right and the others wrong, both sides weighing the same."""
    wrong = torch.log1p(-yes[:, 1:].exp().clamp(max=1.0 - 1e-6))
    return -0.5 * (yes[:, 0].mean() + wrong.mean())


def _thawed(method: ModelSat, stage: Stage) -> list[dict[str, object]]:
    """Parameter groups of a stage; what has rate 0 is frozen."""
    parts = method.parts
    rates = (
        (parts.connector, stage.connector_rate),
        (parts.encoder, stage.encoder_rate),
        (parts.language_model, stage.language_rate),
    )
    groups: list[dict[str, object]] = []
    for module, rate in rates:
        module.requires_grad_(rate > 0)
        module.train(rate > 0)
        if rate > 0:
            groups.append({"params": list(module.parameters()), "lr": rate, "weight_decay": 0.01})
    if not groups:
        raise ValueError(f"stage {stage.name!r} trains nothing: give one part a rate above 0")
    return groups


def _warm_cosine(steps: int, warm_up: float) -> Callable[[int], float]:
    warm = max(1, round(steps * warm_up))

    def rate(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1.0 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))

    return rate


def predict(method: ModelSat, capabilities: Capabilities, prompts: Sequence[str], models: Sequence[str]) -> FloatArray:
    """Pr('Yes') `[B, M]` with the tasks of each capability text in `test_orders` random orders (Section 4.3)."""
    for module in (method.parts.encoder, method.parts.language_model, method.parts.connector):
        module.eval()
    rng = np.random.default_rng(method.setting.seed)
    columns = []
    for model in models:
        texts = [capabilities.text(model, rng) for _ in range(method.setting.test_orders)]
        columns.append(method.score(texts, prompts).numpy())
    return np.stack(columns, axis=1).astype(np.float32)
