"""What a study needs before anything is merged: base, tasks, frozen heads and experts, all kept by content hash."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from merge_backends.study.data import Sizes, StudyTask, load_tasks, load_tokenizer
from merge_backends.study.encoder import Weights, digest, encode, load_encoder, weights_of
from merge_backends.study.experts import Expert, Training, expert_key, find_or_train
from merge_backends.study.heads import Head, choose_head

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Setting:
    """Everything that fixes a study but the methods.

    Attributes:
        base: folder of the base encoder (config.json, tokenizer.json, safetensors).
        data: folder of the tasks' Parquet files.
        tasks: names of the tasks, in the order of the table's columns.
        cache: folder for heads and experts.
        half: bf16 matrix products for encoding, too.
    """

    base: Path
    data: Path
    tasks: tuple[str, ...]
    cache: Path
    sizes: Sizes
    training: Training
    seed: int = 0
    half: bool = True


@dataclass(frozen=True)
class Prepared:
    """Base, tasks, heads and experts; the three sequences run in the order of the setting's tasks.

    `identity` is the content hash of all of it.
    """

    setting: Setting
    base: Weights
    tasks: tuple[StudyTask, ...]
    heads: tuple[Head, ...]
    experts: tuple[Expert, ...]
    identity: str


def prepare(setting: Setting) -> Prepared:
    """Reads or makes everything; a run that was stopped goes on at the expert where it stopped."""
    encoder = load_encoder(setting.base)
    base = weights_of(encoder)
    base_digest = digest(base)
    tokenizer = load_tokenizer(setting.base)
    tasks = load_tasks(setting.data, setting.tasks, tokenizer, setting.sizes, seed=setting.seed)
    heads, experts = [], []
    identity = hashlib.sha256(json.dumps([base_digest, setting.half]).encode())
    for task in tasks:
        head = _find_or_fit(setting, encoder, base_digest, task)
        key = expert_key(base_digest, task, head, setting.training, seed=setting.seed)
        experts.append(
            find_or_train(setting.cache, key, setting.base, base, task, head, setting.training, seed=setting.seed)
        )
        heads.append(head)
        identity.update(f"{key} {task.digest()}".encode())
    return Prepared(setting, base, tuple(tasks), tuple(heads), tuple(experts), identity.hexdigest())


def _find_or_fit(setting: Setting, encoder: torch.nn.Module, base_digest: str, task: StudyTask) -> Head:
    rows = StudyTask(task.name, task.classes, task.train, task.validation, task.train.take(0)).digest()
    canonical = json.dumps([base_digest, rows, setting.half, 1])
    path = setting.cache / f"head-{task.name}-{hashlib.sha256(canonical.encode()).hexdigest()[:16]}.safetensors"
    if path.exists():
        kept = load_file(path)
        return Head(kept["weight"], kept["bias"])
    vectors = [encode(encoder, part, half=setting.half) for part in (task.train, task.validation)]
    head = choose_head((vectors[0], task.train.labels), (vectors[1], task.validation.labels), task.classes)
    log.info("head of %s: %.3f on validation", task.name, head.accuracy(vectors[1], task.validation.labels))
    setting.cache.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    save_file({"weight": head.weight, "bias": head.bias}, aside)
    aside.replace(path)
    return head
