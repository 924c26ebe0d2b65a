"""Mixtures of eight experts of MiniLM's shape: parameters, bytes in memory and on disk, time of a forward pass.

Random weights: what they are changes none of these figures.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench.report import Figure, Options

EXPERTS = 8
SETTINGS = {"wemoe": {}, "e_wemoe": {}, "smile": {"gate_k": 16, "k": 32}}
LENGTHS = (9, 30, 128)


def run(options: Options) -> list[Figure]:
    """One thread, one text a pass."""
    import torch

    from merge_backends import moe
    from merge_backends.moe.mixture import size_of
    from merge_backends.moe.store import save_mixture

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    repeats = options.scaled(7, 30)
    figures: list[Figure] = []
    try:
        base, experts = _family()
        plain = _model()
        single = size_of(plain)
        plain_times = {length: _seconds(_pass(plain, length), repeats) for length in LENGTHS}
        for method, settings in SETTINGS.items():
            began = time.perf_counter()
            mixture = moe.build(method, _model(), base, experts, settings)
            took = time.perf_counter() - began
            size = size_of(mixture)
            with tempfile.TemporaryDirectory() as folder:
                save_mixture(Path(folder) / "mixture", mixture)
                stored = sum(file.stat().st_size for file in (Path(folder) / "mixture").iterdir())
            bar = {"e_wemoe": 2.0}.get(method)
            figures += [
                Figure(
                    f"{method}: parameters",
                    size.parameters / single.parameters,
                    "x base",
                    1.5 if method == "smile" else None,
                    note=f"{size.parameters / 1e6:.1f} M, {EXPERTS} experts",
                ),
                Figure(f"{method}: memory", size.nbytes / single.nbytes, "x base", bar),
                Figure(f"{method}: disk", stored / single.nbytes, "x base", bar),
                Figure(f"{method}: build", took, "s"),
            ]
            figures += _forward_figures(method, mixture, plain_times, repeats)
    finally:
        torch.set_num_threads(threads)
    return figures


def _forward_figures(method: str, mixture: object, plain: dict[int, float], repeats: int) -> list[Figure]:
    """Times of a pass; for routed weights factored, merged per input, and as chosen."""
    from merge_backends.moe.mixed import MixedLinear

    figures = []
    maps = [module for module in mixture.modules() if isinstance(module, MixedLinear)]  # type: ignore[attr-defined]
    for length in LENGTHS:
        found = {}
        for name, threshold in (("factored", 10**9), ("merged", 0), ("chosen", None)):
            for each in maps:
                each.merge_above = threshold
            found[name] = _seconds(_pass(mixture, length), repeats)
            if not maps:
                break
        shown = ", ".join(f"{name} {value * 1e3:.1f}" for name, value in found.items()) if maps else ""
        value = found.get("chosen", next(iter(found.values())))
        figures.append(
            Figure(f"{method}: forward, {length} tokens", value * 1e3, "ms", direct=plain[length] * 1e3, note=shown)
        )
    return figures


def _model() -> object:
    import torch
    import transformers

    torch.manual_seed(0)
    return transformers.BertModel(
        transformers.BertConfig(
            hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536, vocab_size=30522
        )
    ).eval()


def _family() -> tuple[dict[str, object], list[dict[str, object]]]:
    import torch

    base = {name: tensor.clone() for name, tensor in _model().state_dict().items()}  # type: ignore[attr-defined]
    generator = torch.Generator().manual_seed(1)
    experts = [
        {
            name: tensor + 1e-3 * torch.randn(tensor.shape, generator=generator)
            if tensor.is_floating_point()
            else tensor
            for name, tensor in base.items()
        }
        for _ in range(EXPERTS)
    ]
    return base, experts


def _pass(model: object, length: int) -> Callable[[], object]:
    import torch

    tokens = torch.randint(0, 30522, (1, length), generator=torch.Generator().manual_seed(2))

    def once() -> object:
        with torch.inference_mode():
            return model(input_ids=tokens)  # type: ignore[operator]

    return once


def _seconds(act: Callable[[], object], repeats: int) -> float:
    """Median."""
    act()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        act()
        times.append(time.perf_counter() - began)
    return statistics.median(times)
