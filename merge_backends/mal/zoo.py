"""The donors of the MAL study: MiniLM, its shallower and narrower students, each briefly tuned on one task."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from merge_backends.mal.layout import HEADS, INNER, STREAM, Space, layout_of
from merge_backends.mal.method import Network
from merge_backends.mal.surgery import keep_layers, narrowed, shuffled
from merge_backends.study.data import Rows, StudyTask
from merge_backends.study.encoder import bundled_base, digest, empty_encoder, encode, load_encoder, weights_of
from merge_backends.study.experts import Training, expert_key, find_or_train
from merge_backends.study.heads import Head, choose_head

Kind = Literal["full", "shallow", "narrow"]
KEPT_LAYERS = (0, 2, 3, 5)
WIDTH = 2 / 3
TRAINING = Training(epochs=2, learning_rate=2e-4)


@dataclass(frozen=True, eq=False)
class Student:
    """An encoder, the folder of its configuration and, for a narrow one, the units of MiniLM that it kept."""

    network: Network
    folder: Path
    kept: Mapping[Space, Tensor]
    skeleton: nn.Module

    @property
    def stream(self) -> Tensor | None:
        """The kept entries of the sentence vector, None where it is whole."""
        return self.kept.get(Space(STREAM))


def minilm() -> Network:
    """The bundled base encoder, without the buffers that are no weights."""
    folder = bundled_base()
    config = json.loads((folder / "config.json").read_text())
    return Network(weights_of(load_encoder(folder)), config, "full")


def make_student(kind: Kind, cache: Path, seed: int) -> Student:
    """MiniLM as it is, with 4 of its 6 layers, or with the strongest two thirds of its units (256, 8 heads, 1024)."""
    network = minilm()
    kept: dict[Space, Tensor] = {}
    if kind == "shallow":
        network = keep_layers(network, KEPT_LAYERS)
    elif kind == "narrow":
        units = layout_of(network.weights, network.config).units
        sizes = {space: round(WIDTH * units[space]) for space in (STREAM, HEADS, INNER)}
        network, kept = narrowed(network, sizes, seed=seed)
    folder = cache / f"{kind}-config"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(dict(network.config)))
    return Student(Network(network.weights, network.config, kind), folder, kept, empty_encoder(folder))


def vectors(student: Student, weights: Mapping[str, Tensor], rows: Rows, *, half: bool = False) -> Tensor:
    """Sentence vectors `(rows, width)` of the student's architecture with these weights; `half`: bf16 products."""
    student.skeleton.load_state_dict(dict(weights), strict=False, assign=True)
    found: Tensor = encode(student.skeleton, rows, half=half)
    return found


def probe(student: Student, task: StudyTask) -> Head:
    """A head fitted on the untuned student's vectors: penalty chosen on the task's validation rows."""
    train, validation = (vectors(student, student.network.weights, rows) for rows in (task.train, task.validation))
    return choose_head((train, task.train.labels), (validation, task.validation.labels), task.classes)


def tuned(student: Student, task: StudyTask, head: Head, cache: Path, seed: int) -> Network:
    """The student after two epochs on the task under MiniLM's frozen head (the kept columns of it for a narrow one)."""
    if student.stream is not None:
        head = Head(head.weight[:, student.stream].contiguous(), head.bias)
    base = dict(student.network.weights)
    key = f"{student.network.name}-{expert_key(digest(base), task, head, TRAINING, seed=seed)}"
    expert = find_or_train(cache, key, student.folder, base, task, head, TRAINING, seed=seed)
    return Network(expert.weights, student.network.config, f"{student.network.name} {task.name}")


def disguised(network: Network, seed: int) -> Network:
    """The same encoder with all units in random order, so that an aligner has to find them."""
    return Network(shuffled(network, seed=seed)[0].weights, network.config, network.name)


def stranger(network: Network, seed: int) -> Network:
    """An unrelated encoder: each tensor's entries of the given one in random order."""
    generator = torch.Generator().manual_seed(seed)
    weights = {
        name: value.reshape(-1)[torch.randperm(value.numel(), generator=generator)].reshape(value.shape)
        for name, value in network.weights.items()
    }
    return Network(weights, network.config, "stranger")
