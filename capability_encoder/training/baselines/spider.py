"""Model Spider as baseline routers: the first pass alone, and with the re-rank of the top k."""

from __future__ import annotations

from capability_encoder.training.baselines.registry import Baseline, baseline

_PAPER = "Model Spider (NeurIPS 2023), arXiv:2306.03900"


@baseline(
    "model_spider_first_pass",
    summary="model tokens times task token, no re-rank (k = 0)",
    paper=_PAPER,
    grid=[{"epochs": e} for e in (5, 10, 20)],
    seeded=True,
)
def first_pass(epochs: int = 5) -> Baseline:
    """The scorer of `model_spider` at budget 0."""
    from capability_encoder.training.model_spider import ModelSpider  # it builds on this package

    return ModelSpider(budget=0, epochs=epochs)


@baseline(
    "model_spider",
    summary="model tokens, task tokens, Plackett-Luce; top k re-ranked with each model's own outcomes nearby",
    paper=_PAPER,
    grid=[{"epochs": e, "budget": k} for e in (5, 10, 20) for k in (3, 10)],
    seeded=True,
)
def re_ranked(epochs: int = 5, budget: int = 3) -> Baseline:
    """k tuned on dev."""
    from capability_encoder.training.model_spider import ModelSpider  # it builds on this package

    return ModelSpider(budget=budget, epochs=epochs)
