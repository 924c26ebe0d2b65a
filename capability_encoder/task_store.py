"""Tasks that users taught, on disk: one JSON file each in `<state>/tasks/`; a running gateway picks changes up.

A file holds the name, the number of examples and their mean embedding, never their text. Calibration by the known tasks
happens on reading, so a retrained artefact needs no new teaching.
"""

from __future__ import annotations

import base64
import json
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from capability_encoder.memory import Live
from capability_encoder.task_index import (
    MOST_EXAMPLES,
    FloatArray,
    TaskError,
    TaskIndex,
    TaskPrototype,
    calibrate,
    unit,
)
from capability_encoder.versions import write_atomically

logger = logging.getLogger(__name__)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
BLEND = 0.3
"""Share of a taught task's mean in the embedding of a prompt that matches it: prompts of one task are routed alike."""


class Embedder(Protocol):
    """What is needed of `PromptEmbedder`."""

    @property
    def fingerprint(self) -> str: ...

    def embed(self, asks: Sequence[str], /) -> FloatArray: ...


@dataclass(frozen=True, slots=True)
class TaughtTask:
    """One task as users taught it: mean `[E]` of the embeddings of its examples, and how many there were."""

    name: str
    mean: FloatArray
    shots: int


class TaskStore:
    """Taught tasks of one state folder.

    Args:
        state: the gateway's state folder.
        embedder: fingerprint of the vectors; files of another embedder are left alone and not loaded.
    """

    def __init__(self, state: Path | str, embedder: str) -> None:
        self._folder = Path(state) / "tasks"
        self._embedder = embedder

    def save(self, task: TaughtTask, *, replace: bool = False) -> Path:
        """Write one task.

        Raises:
            TaskError: the name cannot be a file's, or is taken and `replace` is not set.
        """
        if not _NAME.fullmatch(task.name):
            raise TaskError(f"{task.name!r} cannot name a task; use letters, digits, '.', '_' and '-' (at most 64)")
        path = self._folder / f"{task.name}.json"
        if path.exists() and not replace:
            raise TaskError(f"the task {task.name!r} exists already; remove it first or replace it")
        record = {"name": task.name, "embedder": self._embedder, "shots": task.shots, "mean": _pack(task.mean)}
        write_atomically(path, json.dumps(record, indent=1))
        return path

    def remove(self, name: str) -> None:
        """Forget one task; raises `TaskError` if there is none of that name."""
        path = self._folder / f"{name}.json"
        if not _NAME.fullmatch(name) or not path.is_file():
            raise TaskError(f"no taught task is called {name!r}; there are {[task.name for task in self.load()]}")
        path.unlink()

    def load(self) -> list[TaughtTask]:
        """All taught tasks of this embedder, by name; a damaged file is reported in the log and left out."""
        found = []
        for path in sorted(self._folder.glob("*.json")) if self._folder.is_dir() else []:
            try:
                record = json.loads(path.read_text(encoding="utf-8"))
                if record["embedder"] != self._embedder:
                    logger.warning("task file %s was made with another embedder; teach the task again", path.name)
                    continue
                found.append(TaughtTask(record["name"], _unpack(record["mean"]), int(record["shots"])))
            except (ValueError, KeyError, TypeError) as error:
                logger.warning("task file %s is damaged (%s); teach the task again", path.name, error)
        return found

    def stamp(self) -> tuple[tuple[str, int], ...]:
        """Changes whenever a task is added, replaced or removed: cheap enough to poll."""
        if not self._folder.is_dir():
            return ()
        return tuple(sorted((path.name, path.stat().st_mtime_ns) for path in self._folder.glob("*.json")))


class LiveTasks:
    """The task index of a running gateway: known tasks plus the taught ones, reread when the folder changes.

    Args:
        known: index of the known tasks.
        place: embeddings `[n, E]` -> unit vectors `[n, D]` in the space of that index.
    """

    def __init__(self, known: TaskIndex, store: TaskStore, place: Callable[[FloatArray], FloatArray]) -> None:
        self._known = known
        self._store = store
        self._place = place
        self._stamp = store.stamp()
        self._live = Live(self._read())

    def get(self) -> TaskIndex:
        """The index of this moment."""
        return self._live.get()[0]

    def refresh(self) -> bool:
        """Reread the folder if it has changed; reads files, so call it off the event loop. True if it had changed."""
        stamp = self._store.stamp()
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        self._live.swap(self._read())
        return True

    def blend(self, embedding: FloatArray) -> tuple[FloatArray, str | None]:
        """A prompt's embedding `[E]` drawn towards the taught task it matches, and that task's name; else unchanged."""
        index, taught = self._live.get()
        if not taught:
            return embedding, None
        best = index.nearest(self._place(embedding[None])[0], 1)[0]
        if not best.is_new:
            return embedding, None
        mixed = (1.0 - BLEND) * embedding + BLEND * unit(taught[best.name].mean)
        return unit(mixed), best.name

    def _read(self) -> tuple[TaskIndex, dict[str, TaughtTask]]:
        taught = {task.name: task for task in self._store.load()}
        prototypes = [place_task(task, self._known, self._place) for task in taught.values()]
        return self._known.with_new(prototypes), taught


def place_task(task: TaughtTask, known: TaskIndex, place: Callable[[FloatArray], FloatArray]) -> TaskPrototype:
    """The prototype of a taught task, calibrated by the known tasks of this index."""
    base = [one for one in known.tasks if not one.is_new]
    return calibrate(task.name, place(task.mean[None]), base, known.settings, shots=task.shots)


def read_examples(path: Path | str) -> list[str]:
    """Prompts of a JSON-lines file of examples: each line a string, or an object with `prompt`.

    Raises:
        TaskError: naming the file and line that is wrong, and how it should look.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"the examples {str(path)!r} cannot be read: {error}") from error
    prompts = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            raise TaskError(f"{path.name}, line {number} is not JSON ({error.msg})") from error
        prompt = value.get("prompt") if isinstance(value, dict) else value
        if not isinstance(prompt, str) or not prompt.strip():
            raise TaskError(f'{path.name}, line {number} holds no prompt; write {{"prompt": "..."}}')
        prompts.append(prompt)
    if not 1 <= len(prompts) <= MOST_EXAMPLES:
        raise TaskError(f"{path.name} holds {len(prompts)} examples; give 1 to {MOST_EXAMPLES} (5 to 20 are enough)")
    return prompts


def teach_task(
    name: str, examples: Path | str, *, state: Path | str, embedder: Embedder, replace: bool = False
) -> TaughtTask:
    """Make a task from a file of examples and store it: what `orbweaver tasks add` does.

    Raises:
        TaskError: the examples, or the name, cannot be used.
    """
    vectors = embedder.embed(read_examples(examples))
    task = TaughtTask(name, vectors.mean(0), len(vectors))
    TaskStore(state, embedder.fingerprint).save(task, replace=replace)
    return task


def _pack(vector: FloatArray) -> str:
    return base64.b64encode(np.asarray(vector, dtype="<f4").tobytes()).decode()


def _unpack(text: str) -> FloatArray:
    return np.frombuffer(base64.b64decode(text), dtype="<f4").astype(np.float32)
