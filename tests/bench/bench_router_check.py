"""How well the router check tells known texts from others: MiniLM, four known tasks, fresh texts of them, other tasks.

Needs the shared data folder beside the checkout. The shares depend on the static merge alone, so no expert is trained.
Layers and settings were chosen on the rows marked validation; those marked test are other texts and other tasks.
"""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

from tests.bench.report import Figure, Options

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "merging"
KNOWN = ("banking77", "clinc150", "trec6", "agnews")
OTHERS = {
    "validation": ("mr", "mpqa", "tweet_hate", "tweet_offensive"),
    "test": ("sst2", "tweet_emotion", "sms_spam", "cola"),
}
SEED = 0
DRAWS = 2000
# Texts of each known task to learn from, two thirds for the statistics.
LEARNT = (150, 450, 1200)


def run(options: Options) -> list[Figure]:
    """Share of texts flagged: near 2 % is right for known tasks, much is right for noise and for other tasks."""
    if not DATA.is_dir():
        raise RuntimeError("the shared data folder is not beside this checkout")
    import torch
    from transformers import AutoTokenizer

    from merge_backends import moe
    from merge_backends.router_check import fit_router_check, learn, pooled_inputs
    from merge_backends.study.encoder import bundled_base, load_encoder, weights_of

    torch.set_num_threads(1)
    count = options.scaled(150, 400)
    tokenizer = AutoTokenizer.from_pretrained(bundled_base(), local_files_only=True)
    model = load_encoder(bundled_base())
    base = weights_of(model)
    mixture = moe.build("wemoe", model, base, [base])
    train = {task: _batches(_texts(task, "train", options.scaled(450, 1200)), tokenizer) for task in KNOWN}
    check = fit_router_check(mixture, train)
    learnt = [_mixed(pooled_inputs(mixture, batches, check.layers)) for batches in train.values()]
    figures = [_cost(mixture, tokenizer)]
    looked = {
        name: pooled_inputs(mixture, _batches(texts, tokenizer), check.layers) for name, texts in _given(count).items()
    }
    for split, others in OTHERS.items():
        looked[f"{split}: known, all"] = torch.cat([looked[f"{split}: known {task}"] for task in KNOWN])
        looked[f"{split}: other, all"] = torch.cat([looked[f"{split}: other {task}"] for task in others])
    for size in (size for size in LEARNT if size <= len(learnt[0])):
        fitted = learn([each[:size] for each in learnt], check.layers)
        figures += [_share(f"{size} learnt, {name}", fitted.is_out(pooled)) for name, pooled in looked.items()]
    return figures


def _given(count: int) -> dict[str, list[str]]:
    """Texts by what they are."""
    given: dict[str, list[str]] = {}
    for split, others in OTHERS.items():
        known = {task: _texts(task, split, count) for task in KNOWN}
        given |= {f"{split}: known {task}": texts for task, texts in known.items()}
        unknown = {task: _texts(task, split, count) for task in others}
        given |= {f"{split}: other {task}": texts for task, texts in unknown.items()}
        some = [text for texts in known.values() for text in texts[: count // 4]]
        given[f"{split}: known, letters swapped"] = [_swapped(text) for text in some]
        given[f"{split}: known, words of letters at random"] = [_noise(text) for text in some]
    return given


def _share(name: str, flags: Any) -> Figure:
    """Share flagged; the interval is a bootstrap over texts."""
    import torch

    draws = torch.randint(len(flags), (DRAWS, len(flags)), generator=torch.Generator().manual_seed(SEED))
    low, high = (100 * flags.float()[draws].mean(dim=1)).quantile(torch.tensor([0.025, 0.975])).tolist()
    return Figure(name, 100 * float(flags.float().mean()), "% flagged", note=f"[{low:.1f}, {high:.1f}]")


def _mixed(pooled: Any) -> Any:
    """In an order that has nothing to do with length."""
    import torch

    return pooled[torch.randperm(len(pooled), generator=torch.Generator().manual_seed(SEED))]


def _cost(mixture: Any, tokenizer: Any) -> Figure:
    """What looking ahead adds to a prompt's pass; medians of alternating passes."""
    import torch

    check = mixture.mixture.state["check"]
    given = dict(tokenizer(_texts(KNOWN[0], "validation", 16), padding=True, return_tensors="pt"))
    taken: dict[bool, list[float]] = {True: [], False: []}
    with torch.inference_mode():
        for turn in range(20):
            check.enabled = turn % 2 == 0
            began = time.process_time()
            mixture(**given)
            taken[check.enabled].append(time.process_time() - began)
    check.enabled = True
    ratio = sorted(taken[True])[5] / sorted(taken[False])[5]
    return Figure("a pass with the check", 100 * (ratio - 1), "% more CPU time")


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
