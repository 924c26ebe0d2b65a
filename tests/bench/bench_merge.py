"""Merging on the fly, one thread: eight experts of 22.7 million parameters, a cached recipe, an overlay's forward.

References of the same run: the sum written out in torch, a copy of as many bytes, and the plain model's forward.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import transformers

from merge_backends import methods
from merge_backends.cache import MergeCache
from merge_backends.overlay import Overlay, assemble, nbytes, overlay
from merge_backends.preference import MergeOffer
from tests.bench.report import Figure, Options

EXPERTS = 8
SEED = 20261121
Weights = dict[str, torch.Tensor]


def run(options: Options) -> list[Figure]:
    """Medians; the forwards of overlay and plain model alternate, so that both meet the same load."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        base_model, base, experts = _models()
        return [*_merge(options, base, experts), *_cached(options, base_model, base, experts[0])]
    finally:
        torch.set_num_threads(threads)


def _models() -> tuple[Any, Weights, list[Weights]]:
    """A model of MiniLM's shape with random weights, and experts a little way off."""
    torch.manual_seed(SEED)
    config = transformers.BertConfig(
        hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536, vocab_size=30522
    )
    model = transformers.BertModel(config).eval()
    base = {name: tensor.detach() for name, tensor in model.named_parameters()}
    experts = [
        {name: tensor + 0.001 * torch.randn_like(tensor) for name, tensor in base.items()} for _ in range(EXPERTS)
    ]
    return model, base, experts


def _merge(options: Options, base: Weights, experts: list[Weights]) -> list[Figure]:
    method = methods.entry("task_arithmetic")
    parameters = methods.parse_parameters(method.parameters, {"weight": 0.3}, owner="task_arithmetic")
    count = sum(tensor.numel() for tensor in base.values())
    began = time.thread_time()
    for _ in method.merge(base, experts, parameters):
        pass
    processor = time.thread_time() - began
    ours, written_out = _alternate(
        options.scaled(9, 31),
        lambda: [None for _ in method.merge(base, experts, parameters)],
        lambda: [base[n] + 0.3 * sum(expert[n] - base[n] for expert in experts) for n in base],
    )
    return [
        Figure(
            f"merge of {EXPERTS} experts of {count / 1e6:.1f} M parameters, one thread",
            ours,
            "s",
            0.35,
            direct=written_out,
            note=f"task arithmetic from memory, {processor:.2f} s of processor; direct: the sum written out in torch",
        )
    ]


def _cached(options: Options, model: Any, base: Weights, expert: Weights) -> list[Figure]:
    offer = MergeOffer("bench", ("a", "b"))
    merged = overlay(base, expert.items())
    cache: MergeCache[tuple[Overlay, Any]] = MergeCache(2**30, lambda value: nbytes(value[0].changed))
    asked = "bench/merge:a=0.7"
    tokens = {"input_ids": torch.randint(1000, 30000, (1, 32)), "attention_mask": torch.ones(1, 32, dtype=torch.long)}

    def find() -> None:
        key = offer.canonical(offer.parse(asked) or {})
        with cache.use(key, lambda: (merged, assemble(model, merged.changed))):
            pass

    find()
    found, assembled = _alternate(options.scaled(51, 501), find, lambda: assemble(model, merged.changed))
    made = assemble(model, merged.changed)
    with torch.inference_mode():
        over, plain = _alternate(options.scaled(101, 1001), lambda: made(**tokens), lambda: model(**tokens))
    return [
        Figure(
            "cached recipe to first use",
            found * 1000,
            "ms",
            5,
            direct=assembled * 1000,
            note="name to pinned model; direct: laid over the base anew from a cached overlay",
        ),
        Figure(
            "overlay's forward over the plain model's",
            100 * (over / plain - 1),
            "%",
            3,
            note=f"32 tokens, medians of {plain * 1000:.1f} ms, taken in turns",
        ),
    ]


def _alternate(times: int, first: Callable[[], Any], second: Callable[[], Any]) -> tuple[float, float]:
    """Median seconds of two functions that run in turns, after one warm-up of each."""
    first(), second()
    took: tuple[list[float], list[float]] = ([], [])
    for number in range(times):
        pairs = list(zip((first, second), took, strict=True))
        for function, kept in pairs if number % 2 else pairs[::-1]:
            began = time.perf_counter()
            function()
            kept.append(time.perf_counter() - began)
    return statistics.median(took[0]), statistics.median(took[1])
