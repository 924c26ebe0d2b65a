"""Experts of the merging study: the encoder fully fine-tuned on one task under a frozen head, kept by content hash."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from merge_backends.study.data import Rows, StudyTask, batches
from merge_backends.study.encoder import Weights, empty_encoder, half_precision, sentence_vectors
from merge_backends.study.heads import Head

log = logging.getLogger(__name__)
WORDS = "embeddings.word_embeddings.weight"


@dataclass(frozen=True)
class Training:
    """How an expert is trained."""

    epochs: int = 2
    learning_rate: float = 2e-4
    batch: int = 32
    warmup: float = 0.1
    """Share of the steps over which the learning rate rises; it falls linearly afterwards."""
    half: bool = True
    """bf16 matrix products."""


@dataclass(frozen=True)
class Expert:
    """A fine-tuned encoder: all tensors of the base by name, and how long it took."""

    weights: Weights
    seconds: float


def expert_key(base_digest: str, task: StudyTask, head: Head, training: Training, *, seed: int) -> str:
    """Name of the expert in the cache: everything that its weights depend on."""
    head_digest = hashlib.sha256(head.weight.numpy().tobytes() + head.bias.numpy().tobytes()).hexdigest()
    rows = replace(task, validation=task.train.take(0), test=task.train.take(0))
    parts = {"base": base_digest, "rows": rows.digest(), "head": head_digest, "training": asdict(training)}
    canonical = json.dumps({**parts, "seed": seed, "version": 1}, sort_keys=True)
    return f"{task.name}-{hashlib.sha256(canonical.encode()).hexdigest()[:16]}"


def find_or_train(
    cache: Path, key: str, folder: Path, base: Weights, task: StudyTask, head: Head, training: Training, *, seed: int
) -> Expert:
    """The expert from the cache, or trained now and kept there (written aside first: a killed run leaves no half)."""
    path = cache / f"{key}.safetensors"
    if path.exists():
        kept = json.loads(path.with_suffix(".json").read_text()) if path.with_suffix(".json").exists() else {}
        return Expert(load_file(path), float(kept.get("seconds", 0.0)))
    started = time.monotonic()
    weights = train_expert(folder, base, task.train, head, training, seed=seed)
    seconds = time.monotonic() - started
    cache.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    save_file(weights, aside)
    path.with_suffix(".json").write_text(json.dumps({"seconds": seconds, "training": asdict(training)}))
    aside.replace(path)
    log.info("expert %s trained in %.0f s", key, seconds)
    return Expert(weights, seconds)


def train_expert(
    folder: Path, base: Mapping[str, torch.Tensor], rows: Rows, head: Head, training: Training, *, seed: int
) -> Weights:
    """All parameters but the unused pooler, cross-entropy, AdamW without weight decay.

    Only the word vectors that occur in `rows` are in the optimiser: the others have no gradient, so they would stay
    as they are, and leaving them out saves half of each optimiser step.
    """
    encoder = empty_encoder(folder)
    encoder.load_state_dict(dict(base), strict=False)
    used, compact = _compact_vocabulary(encoder, rows)
    parameters = [value for name, value in encoder.named_parameters() if not name.startswith("pooler.")]
    optimiser = torch.optim.AdamW(parameters, lr=training.learning_rate, weight_decay=0.0, fused=True)
    steps = training.epochs * -(-len(rows) // training.batch)
    rising = max(1, int(training.warmup * steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / rising, (steps - step) / max(1, steps - rising))
    )
    generator = torch.Generator().manual_seed(seed)
    for epoch in range(training.epochs):
        total, count = 0.0, 0
        for batch in batches(compact, training.batch, generator=generator):
            with half_precision(training.half):
                vectors = sentence_vectors(encoder, batch.inputs, batch.mask)
            loss = nn.functional.cross_entropy(head.logits(vectors), rows.labels[batch.index])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            schedule.step()
            total, count = total + float(loss.detach()) * len(batch.index), count + len(batch.index)
        log.info("epoch %d: loss %.4f", epoch, total / count)
    state = {name: value.detach().clone() for name, value in encoder.state_dict().items() if name in base}
    words = base[WORDS].clone()
    words[used] = state[WORDS]
    return {**state, WORDS: words}


def _compact_vocabulary(encoder: nn.Module, rows: Rows) -> tuple[torch.Tensor, Rows]:
    """Cuts the word table down to the words of `rows`; returns their ids and the rows in the new numbering."""
    used = sorted({0}.union(*map(set, rows.tokens)))
    number = {word: position for position, word in enumerate(used)}
    index = torch.tensor(used)
    table = encoder.get_parameter(WORDS).detach()[index].clone()
    encoder.get_submodule("embeddings").word_embeddings = nn.Embedding.from_pretrained(table, freeze=False)
    return index, Rows(tuple(tuple(number[word] for word in tokens) for tokens in rows.tokens), rows.labels)
