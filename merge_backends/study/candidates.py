"""The rows of the study's table: which settings of which method are tried on validation rows before one is tested."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from merge_backends.errors import UnknownNameError

Kind = Literal["static", "mixture"]
Objective = Literal["none", "entropy", "cross_entropy", "unseen", "task"]
"""How routers learn: entropy of unlabelled validation rows, labels of the experts' train rows, labels of other rows, or
which task those other rows are from, without their labels."""


@dataclass(frozen=True)
class Candidate:
    """One row: a method of a registry and the settings among which the validation rows choose.

    Attributes:
        name: the row's name, as `--methods` takes it.
        method: the registry's name.
        settings: at least one mapping of parameters; they are compared on validation accuracy, averaged over tasks.
        objective: how the routers of a mixture learn, starting from task arithmetic at the scale that validation chose.
        routers: parameters of that training.
    """

    name: str
    method: str
    kind: Kind
    settings: Sequence[Mapping[str, Any]] = ({},)
    objective: Objective = "none"
    routers: Mapping[str, Any] = field(default_factory=dict)


def _grid(name: str, values: Sequence[Any], **fixed: Any) -> list[dict[str, Any]]:
    return [{**fixed, name: value} for value in values]


# Published defaults for eight tasks are .3 (task arithmetic, TIES as a sum) and RegMean's factor .9.
_TIES = {"density": 0.2, "trim_scope": "global", "merge_func": "sum"}
_ADA = {"learning_rate": 2e-2, "steps": 30}
_ENTROPY = {
    "learning_rate": 1e-4,
    "steps": 100,
    "evaluate_every": 25,
    "patience": 3,
    "normalise_entropy": True,
    "batch_reduce_looks": True,
}
_LABELS = {"learning_rate": 1e-3, "steps": 45, "evaluate_every": 15, "patience": 3}
# One pass over the unseen rows; 1e-2 is what validation liked.
_UNSEEN = {
    "learning_rate": 1e-2,
    "decay": True,
    "steps": 120,
    "evaluate_every": 40,
    "patience": 3,
    "batch_reduce_looks": True,
}
_TASK = {"learning_rate": 3e-3, "steps": 150}
# Texts are short, so one is computed factored and a training batch merged.
_FACTORED = {"merge_above_tokens": 96}

_ALL = (
    Candidate("linear", "linear", "static"),
    Candidate("task_arithmetic", "task_arithmetic", "static", _grid("lambda", (0.2, 0.3, 0.45, 0.6))),
    Candidate("ties", "ties", "static", _grid("lambda", (0.4, 0.7), **_TIES)),
    Candidate("dare_linear", "dare_linear", "static", _grid("lambda", (0.2, 0.3), density=0.1)),
    Candidate("dare_ties", "dare_ties", "static", _grid("lambda", (0.3, 0.45), density=0.5)),
    Candidate("fisher", "fisher", "static", [{"examples": 48}]),
    Candidate("regmean", "regmean", "static", _grid("off_diagonal", (0.9, 0.98))),
    Candidate("adamerging_task", "adamerging", "static", [{**_ADA, "granularity": "task"}]),
    Candidate("adamerging", "adamerging", "static", [{**_ADA, "granularity": "layer"}]),
    Candidate("smile", "smile", "mixture", _grid("gate_k", (16, 32), k=32)),
    Candidate("wemoe", "wemoe", "mixture", ({},), "entropy", _ENTROPY),
    Candidate("wemoe_labels", "wemoe", "mixture", ({},), "cross_entropy", _LABELS),
    Candidate("wemoe_unseen", "wemoe", "mixture", (_FACTORED,), "unseen", _UNSEEN),
    Candidate("wemoe_task", "wemoe", "mixture", ({"upscale_attn": True, **_FACTORED},), "task", _TASK),
    Candidate("e_wemoe", "e_wemoe", "mixture", ({},), "entropy", _ENTROPY),
    Candidate("e_wemoe_labels", "e_wemoe", "mixture", ({},), "cross_entropy", _LABELS),
    Candidate("e_wemoe_unseen", "e_wemoe", "mixture", ({},), "unseen", _UNSEEN),
    # A tenth of the entries is less than a task vector, so more of it is wanted.
    Candidate("e_wemoe_task", "e_wemoe", "mixture", ({"upscale_attn": True},), "task", {**_TASK, "own": 1.8}),
)
CANDIDATES: dict[str, Candidate] = {candidate.name: candidate for candidate in _ALL}


def find(names: Sequence[str]) -> list[Candidate]:
    """The rows of these names, in this order; `all` stands for every one.

    Raises:
        UnknownNameError: naming what is near.
    """
    if list(names) == ["all"]:
        return list(CANDIDATES.values())
    for name in names:
        if name not in CANDIDATES:
            raise UnknownNameError("method of the study", name, CANDIDATES)
    return [CANDIDATES[name] for name in names]
