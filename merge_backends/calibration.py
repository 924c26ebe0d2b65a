"""What merging methods that look at data are given: a model's structure and, per expert, batches, labels and a head.

Fisher, RegMean and AdaMerging read it; heterogeneous merging uses it as its validation set. The model's own weights are
never used: every forward runs with the weights handed in, so one skeleton serves base, experts and merge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from merge_backends.errors import IncompatibleError, RecipeError

Weights = Mapping[str, Tensor]
Batch = Mapping[str, Tensor]
Head = Callable[[Any, Batch], Tensor]
IGNORED = -100
"""Label of a row without an answer: it counts in no loss and no accuracy."""


@dataclass(frozen=True, eq=False)
class TaskData:
    """The inputs on which one expert is good.

    Args:
        name: the task's name, for messages and for seeds.
        batches: keyword arguments of the model's forward, one mapping per batch;
            `attention_mask` marks padding with 0.
        labels: per batch, class numbers `(rows,)` of the head's rows; None where the texts are not labelled.
        head: model output and batch -> logits `(rows, classes)`. Without one the output's own `logits` are used:
            `(batch, classes)` of a classifier, or `(batch, tokens, vocabulary)` of a causal language model, whose
            labels are the texts' next tokens.
    """

    name: str
    batches: Sequence[Batch]
    labels: Sequence[Tensor] | None = None
    head: Head | None = None


@dataclass(frozen=True, eq=False)
class CalibrationData:
    """A skeleton named like the merged weights, and one task per expert in the experts' order."""

    model: nn.Module
    tasks: Sequence[TaskData]

    def check(self, names: Sequence[str], experts: int) -> None:
        """Raises IncompatibleError unless every expert has a task with batches and the names are the model's."""
        if len(self.tasks) != experts:
            raise IncompatibleError(
                f"There are {experts} models but calibration data for {len(self.tasks)} tasks.",
                "Give one task per model, in the models' order.",
            )
        empty = [task.name for task in self.tasks if not task.batches]
        if empty:
            raise IncompatibleError(
                f"There are no calibration batches for {empty}.", "Give at least one batch per task."
            )
        known = set(self.model.state_dict())
        strange = sorted(set(names) - known)
        missing = sorted({name for name, _ in self.model.named_parameters()} - set(names))
        if strange or missing:
            raise IncompatibleError(
                f"The calibration model does not fit: it lacks {strange[:3]}, the weights lack {missing[:3]}.",
                "Build the calibration model from the base checkpoint's own config and class.",
            )


def own_names(model: nn.Module) -> set[str]:
    """Parameter and buffer names; a tied tensor counts under its first name only."""
    return {name for name, _ in model.named_parameters()} | {name for name, _ in model.named_buffers()}


def first_names(model: nn.Module) -> dict[str, str]:
    """First name of every tensor that goes by two: {"lm_head.weight": "model.embed_tokens.weight"} in a tied model."""
    first = {parameter: name for name, parameter in model.named_parameters()}
    everything = model.named_parameters(remove_duplicate=False)
    return {name: first[parameter] for name, parameter in everything if first[parameter] != name}


def forward(model: nn.Module, weights: Weights, batch: Batch) -> Any:
    """Output of `model` on `batch` with `weights` (under `own_names`, so that ties hold) in place of its own."""
    return functional_call(model, dict(weights), kwargs=dict(batch))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Dropout off inside the block."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def logits_and_labels(task: TaskData, output: Any, index: int) -> tuple[Tensor, Tensor | None]:
    """Logits `(rows, classes)` of batch `index` and their labels `(rows,)`, None where the task has none.

    For a causal language model the rows are the positions whose next token is text, and the labels are those tokens.

    Raises:
        RecipeError: the task has no head and the model no logits (a bare encoder).
    """
    batch = task.batches[index]
    labels = None if task.labels is None else task.labels[index]
    if task.head is not None:
        logits = task.head(output, batch)
    elif hasattr(output, "logits"):
        logits = output.logits
    else:
        raise RecipeError(
            f"The model answers task {task.name!r} with {type(output).__name__}, which has no logits.",
            "Use a classifier or a language model, or a method that needs none (regmean).",
        )
    if logits.dim() == 2:
        return logits, labels
    tokens = batch["input_ids"]
    kept = batch["attention_mask"].bool() if "attention_mask" in batch else torch.ones_like(tokens, dtype=torch.bool)
    rows = kept[:, 1:] & kept[:, :-1]
    targets = tokens[:, 1:] if labels is None else labels[:, 1:]
    return logits[:, :-1][rows], targets[rows]


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean negative log-likelihood of the labelled rows, in nats, computed in float32."""
    return torch.nn.functional.cross_entropy(logits.float(), labels, ignore_index=IGNORED)


def entropy(logits: Tensor) -> Tensor:
    """Mean Shannon entropy of the rows' predictions, in nats, computed in float32."""
    log_p = torch.log_softmax(logits.float(), dim=-1)
    return -(log_p.exp() * log_p).sum(-1).mean()


def single_examples(batch: Batch) -> Iterator[dict[str, Tensor]]:
    """Each row of a batch as a batch of its own."""
    rows = next(iter(batch.values())).shape[0]
    for row in range(rows):
        yield {name: value[row : row + 1] for name, value in batch.items()}


def in_float32(model: nn.Module, weights: Weights) -> dict[str, Tensor]:
    """What `forward` takes: float32 (the precision in which statistics are taken), tied tensors once."""
    names = own_names(model)
    kept = {name: value for name, value in weights.items() if name in names}
    return {name: value.float() if value.is_floating_point() else value for name, value in kept.items()}


def mean_over_experts(name: str, experts: Sequence[Weights]) -> Tensor:
    """Plain average in the experts' dtype; tensors of integers (position numbers, say) are taken from the first."""
    first = experts[0][name]
    if not first.is_floating_point():
        return first.clone()
    total = torch.zeros(first.shape, dtype=torch.float32)
    for expert in experts:
        total += expert[name].float()
    return (total / len(experts)).to(first.dtype)
