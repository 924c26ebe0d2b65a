"""How well the router check tells known texts from others: MiniLM, four known tasks, fresh texts of them, other tasks.

Needs the shared data folder beside the checkout. The shares depend on layer inputs alone, so no expert is trained.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from tests.bench.report import Figure, Options

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "merging"
KNOWN = ("banking77", "clinc150", "trec6", "agnews")
OTHERS = ("sst2", "tweet_emotion", "sms_spam", "cola")
SEED = 0
QUANTILE = 0.99
CHOICES: dict[str, list[int] | None] = {"default": None, "embeddings": [0], "middle": [3], "last": [5]}


def run(options: Options) -> list[Figure]:
    """Share of texts flagged: near 1 % is right for known tasks, much is right for noise and for most other tasks."""
    if not DATA.is_dir():
        raise RuntimeError("the shared data folder is not beside this checkout")
    import torch
    from transformers import AutoTokenizer

    from merge_backends import moe
    from merge_backends.router_check import fit_router_check
    from merge_backends.study.encoder import bundled_base, load_encoder, weights_of

    torch.set_num_threads(1)
    count = options.scaled(150, 400)
    tokenizer = AutoTokenizer.from_pretrained(bundled_base(), local_files_only=True)
    model = load_encoder(bundled_base())
    base = weights_of(model)
    mixture = moe.build("wemoe", model, base, [base])
    train = {task: _batches(_texts(task, "train", 3 * count), tokenizer) for task in KNOWN}
    looked = {f"fresh {task}": _texts(task, "test", count) for task in KNOWN}
    looked |= {f"other task {task}": _texts(task, "test", count) for task in OTHERS}
    looked["known texts, letters swapped"] = [
        _swapped(text) for task in KNOWN for text in _texts(task, "test", count // 4)
    ]
    looked["known texts, words of letters at random"] = [
        _noise(text) for task in KNOWN for text in _texts(task, "test", count // 4)
    ]
    batches = {name: _batches(texts, tokenizer) for name, texts in looked.items()}
    figures = []
    for name, layers in CHOICES.items():
        fit_router_check(mixture, train, layers=layers, quantile=QUANTILE)
        figures += [
            Figure(f"{name}: {kind}", 100 * _flagged(mixture, given), "% flagged") for kind, given in batches.items()
        ]
    return figures


def _flagged(mixture: Any, batches: list[Any]) -> float:
    import torch

    from merge_backends.moe.gates import gating

    flags = []
    with torch.inference_mode():
        for batch in batches:
            with gating() as gates:
                mixture(**batch.inputs)
            flags.append(gates.out_of_domain)
    return float(torch.cat(flags).float().mean())


def _texts(task: str, split: str, count: int) -> list[str]:
    import pyarrow.parquet as parquet

    table = parquet.read_table(DATA / f"{task}.parquet", filters=[("split", "=", split)])
    texts = table.column("text").to_pylist()
    return random.Random(SEED).sample(texts, min(count, len(texts)))


def _batches(texts: list[str], tokenizer: Any) -> list[Any]:
    from merge_backends.moe.adapt import Batch

    ordered = sorted(texts, key=len)
    mixed = [
        Batch(dict(tokenizer(ordered[at : at + 32], padding=True, truncation=True, max_length=64, return_tensors="pt")))
        for at in range(0, len(ordered), 32)
    ]
    random.Random(SEED).shuffle(mixed)
    return mixed


def _swapped(text: str) -> str:
    """Every fifth letter changes places with the next one, as hasty typing does."""
    letters = list(text)
    for at in range(0, len(letters) - 1, 5):
        letters[at], letters[at + 1] = letters[at + 1], letters[at]
    return "".join(letters)


def _noise(text: str) -> str:
    rng = random.Random(len(text))
    return " ".join("".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in word) for word in text.split())
