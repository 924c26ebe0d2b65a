"""Baseline routers on one embedding and the same folds: the field that the capability encoder is measured against.

Importing this package registers all of them; `entries()` lists them and `tune()` picks a setting on dev.
"""

from capability_encoder.training.baselines import (
    chance,
    cluster_table,
    domain_table,
    item_response,
    logistic,
    matrix_factorisation,
    mlp,
    model_sat,
    model_sat_serving,
    neighbours,
    oracle,
    ridge,
    routerdc,
    single,
    spider,
)
from capability_encoder.training.baselines.contest import Contestant, contest
from capability_encoder.training.baselines.registry import (
    Baseline,
    BaselineEntry,
    InformedBaseline,
    UnknownModelError,
    baseline,
    entries,
    entry,
    predictions,
)
from capability_encoder.training.baselines.tuning import Tuned, balanced, negative_brier, routed_score, tune

__all__ = [
    "Baseline",
    "BaselineEntry",
    "Contestant",
    "InformedBaseline",
    "Tuned",
    "UnknownModelError",
    "balanced",
    "baseline",
    "chance",
    "cluster_table",
    "contest",
    "domain_table",
    "entries",
    "entry",
    "item_response",
    "logistic",
    "matrix_factorisation",
    "mlp",
    "model_sat",
    "model_sat_serving",
    "negative_brier",
    "neighbours",
    "oracle",
    "predictions",
    "ridge",
    "routed_score",
    "routerdc",
    "single",
    "spider",
    "tune",
]
