"""Task prototypes, and new tasks from a few examples: TEEN calibration (NeurIPS 2023) over the known tasks.

A new prototype c_n moves towards its semantic neighbours among the known tasks b:
`w_nb = softmax_b(tau cos(c_n, c_b))`, `c~_n = (1 - alpha) c_n + alpha l2(sum_b w_nb c_b)`; matching is by cosine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

MOST_EXAMPLES = 1_000
EXPLAINED_BY = 5
"""Neighbours named in `calibrated_from`; the weights of the rest are small."""


class TaskError(ValueError):
    """A task cannot be added; the message says what would fix it."""


class Calibration(NamedTuple):
    """How a task of at least `shots` examples is treated: weight of the neighbours, head start of its cosine."""

    shots: int
    alpha: float
    bonus: float


@dataclass(frozen=True, slots=True)
class CalibrationSettings:
    """How new tasks are told from known ones.

    Attributes:
        calibration: `teen` moves new prototypes towards their neighbours and gives their cosine the small head start
            that was tuned with it; `penalty` gives a head start only (the same as a penalty on known tasks); `none`.
        alpha, bonus: fixed values; None = by the number of examples, from `table`.
        table: as `tune_settings` finds it on known tasks.
        tau: sharpness of the softmax over neighbours (16 in the paper's scripts).
    """

    calibration: Literal["teen", "penalty", "none"] = "teen"
    alpha: float | None = None
    bonus: float | None = None
    table: tuple[Calibration, ...] = (Calibration(1, 0.4, 0.08),)
    tau: float = 16.0

    def for_shots(self, shots: int) -> Calibration:
        """The values for a task of so many examples."""
        fitting = [row for row in self.table if row.shots <= shots] or [self.table[0]]
        alpha = fitting[-1].alpha if self.alpha is None else self.alpha
        bonus = fitting[-1].bonus if self.bonus is None else self.bonus
        return Calibration(
            shots,
            alpha if self.calibration == "teen" else 0.0,
            bonus if self.calibration != "none" else 0.0,
        )


@dataclass(frozen=True, slots=True)
class TaskPrototype:
    """One task: mean vector of its examples, the calibrated one, and the known tasks it leans on, with weights."""

    name: str
    raw: FloatArray
    calibrated: FloatArray
    shots: int
    calibrated_from: tuple[tuple[str, float], ...] = ()
    bonus: float = 0.0
    is_new: bool = False


class TaskMatch(NamedTuple):
    """The task a prompt most resembles, the similarity, and the known tasks its prototype leans on."""

    name: str
    similarity: float
    is_new: bool
    calibrated_from: tuple[tuple[str, float], ...]


class TaskIndex:
    """Known and new tasks; a value: `added` and `removed` give another one. Tasks are few, so the search is exact."""

    def __init__(self, tasks: Sequence[TaskPrototype], settings: CalibrationSettings | None = None) -> None:
        self.settings = settings or CalibrationSettings()
        self.tasks = tuple(tasks)
        if len({task.name for task in self.tasks}) != len(self.tasks):
            raise TaskError("two tasks have the same name")
        vectors = [task.calibrated for task in self.tasks]
        self._matrix = np.stack(vectors) if vectors else np.zeros((0, 0), dtype=np.float32)
        self._bonus = np.array([task.bonus for task in self.tasks], dtype=np.float32)

    @classmethod
    def from_examples(
        cls, vectors: FloatArray, names: Sequence[str], settings: CalibrationSettings | None = None
    ) -> TaskIndex:
        """Known tasks from labelled unit vectors `[N, D]`: one prototype for each distinct name, in order of name."""
        known = []
        labels = np.asarray(names)
        for name in sorted(set(names)):
            mean = unit(vectors[labels == name].mean(0))
            known.append(TaskPrototype(name, mean, mean, int((labels == name).sum())))
        return cls(known, settings)

    def added(self, name: str, examples: FloatArray) -> TaskIndex:
        """With one new task from `[K, D]` unit vectors of its examples.

        Raises:
            TaskError: the name is taken or empty, or there is no example.
        """
        if not name.strip():
            raise TaskError("a task needs a name")
        if any(task.name == name for task in self.tasks):
            raise TaskError(f"the task {name!r} exists already; remove it first or choose another name")
        if not 1 <= len(examples) <= MOST_EXAMPLES:
            raise TaskError(
                f"{len(examples)} examples for the task {name!r}; give 1 to {MOST_EXAMPLES} (5 to 20 are enough)"
            )
        known = [task for task in self.tasks if not task.is_new]
        prototype = calibrate(name, examples, known, self.settings)
        return TaskIndex((*self.tasks, prototype), self.settings)

    def with_new(self, prototypes: Iterable[TaskPrototype]) -> TaskIndex:
        """The known tasks of this index and exactly these new ones; one with the name of a known task is left out."""
        known = tuple(task for task in self.tasks if not task.is_new)
        taken = {task.name for task in known}
        new = tuple(replace(task, is_new=True) for task in prototypes if task.name not in taken)
        return TaskIndex((*known, *new), self.settings)

    def removed(self, name: str) -> TaskIndex:
        """Without one of the new tasks; raises `TaskError` if there is none of that name."""
        if not any(task.name == name and task.is_new for task in self.tasks):
            raise TaskError(f"no added task is called {name!r}; added are {[t.name for t in self.tasks if t.is_new]}")
        return TaskIndex([task for task in self.tasks if task.name != name], self.settings)

    def similarities(self, vectors: FloatArray) -> FloatArray:
        """Cosine to every task `[B, T]`, plus the head start of new ones."""
        queries = np.atleast_2d(vectors)
        if not self.tasks:
            return np.zeros((len(queries), 0), dtype=np.float32)
        return np.asarray(queries @ self._matrix.T + self._bonus, dtype=np.float32)

    def nearest(self, vector: FloatArray, k: int = 3) -> list[TaskMatch]:
        """The k most similar tasks of one prompt vector `[D]`, best first."""
        similarity = self.similarities(vector)[0]
        best = np.argsort(-similarity, kind="stable")[:k]
        return [
            TaskMatch(
                self.tasks[row].name, float(similarity[row]), self.tasks[row].is_new, self.tasks[row].calibrated_from
            )
            for row in best
        ]

    def memberships(self, vectors: FloatArray) -> FloatArray:
        """Soft membership `[B, T]` of prompts in tasks: softmax of tau times cosine; rows sum to 1."""
        return softmax(self.settings.tau * self.similarities(vectors))


def calibrate(
    name: str,
    examples: FloatArray,
    known: Sequence[TaskPrototype],
    settings: CalibrationSettings,
    *,
    shots: int | None = None,
) -> TaskPrototype:
    """A new task's prototype from its examples `[K, D]`, calibrated by the known tasks as the settings say.

    Args:
        shots: number of examples, where `examples` holds their mean only.
    """
    shots = len(examples) if shots is None else shots
    raw = unit(np.asarray(examples, dtype=np.float32).mean(0))
    chosen = settings.for_shots(shots)
    plain = TaskPrototype(name, raw, raw, shots, bonus=chosen.bonus, is_new=True)
    if not known:
        return plain
    base = np.stack([task.raw for task in known])
    calibrated, weights = teen(raw[None], base, alpha=chosen.alpha, tau=settings.tau)
    top = np.argsort(-weights[0], kind="stable")[:EXPLAINED_BY]
    neighbours = tuple((known[row].name, float(weights[0, row])) for row in top)
    return replace(plain, calibrated=calibrated[0], calibrated_from=neighbours)


def teen(new: FloatArray, base: FloatArray, *, alpha: float, tau: float) -> tuple[FloatArray, FloatArray]:
    """Calibrated unit prototypes `[N, D]` of unit rows `new`, and the weights `[N, B]` over unit rows `base`."""
    weights = softmax(tau * (new @ base.T))
    return unit((1.0 - alpha) * new + alpha * unit(weights @ base)), weights


def unit(vectors: FloatArray) -> FloatArray:
    """Rows (or the one vector) scaled to unit length; zero stays zero."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.where(norms > 0, norms, 1.0), dtype=np.float32)


def softmax(logits: FloatArray) -> FloatArray:
    """Softmax over the last axis."""
    if logits.shape[-1] == 0:
        return logits
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True), dtype=np.float32)


def as_mapping(task: TaskPrototype) -> Mapping[str, object]:
    """A prototype as plain values for explanations, without its vectors."""
    return {"name": task.name, "shots": task.shots, "calibrated_from": [list(pair) for pair in task.calibrated_from]}
