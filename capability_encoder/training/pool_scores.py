"""Methods on pools of models: routed accuracy, its gain over the best single model, and the secondary figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from capability_encoder.training.baselines import Contestant, contest, entries, entry
from capability_encoder.training.bootstrap import Resampler, mean_interval
from capability_encoder.training.data import FloatArray
from capability_encoder.training.metrics import (
    Float64Array,
    auc_within_model,
    auc_within_prompt,
    brier,
    calibration_error,
    choice_entropy,
    log_loss,
    reliability_bins,
)
from capability_encoder.training.protocol import FIT_SPLITS, Contenders, Protocol
from capability_encoder.training.report_schema import Interval, MethodInfo, MethodScore, PoolResult

Field = Literal["none", "quick", "all"]
OURS = "capability_encoder"
QUICK = (
    "best_single",
    "ridge",
    "logistic",
    "knn",
    "kmeans_table",
    "kmeans_table_eb",
    "domain_table",
    "domain_table_true",
    "oracle",
)


class Routed(NamedTuple):
    """One method on one pool: predictions `[n, M]`, and the gain of each prompt `[n]` over the best single model."""

    predicted: FloatArray
    gain: Float64Array


def gains(predicted: FloatArray, truth: FloatArray, best: int) -> Float64Array:
    """Score of the chosen model less that of the best single one, `[n]`."""
    chosen = truth[np.arange(len(truth)), predicted.argmax(axis=1)]
    return np.asarray(chosen - truth[:, best], dtype=np.float64)


def measure(
    name: str, predicted: FloatArray, truth: FloatArray, pool: Contenders, resampler: Resampler
) -> tuple[MethodScore, Routed]:
    """All figures of one method on one pool."""
    gain = gains(predicted, truth, pool.best)
    single = 100.0 * float(truth[:, pool.best].mean())
    gap = 100.0 * float(truth.max(axis=1).mean()) - single
    interval = mean_interval(resampler, gain, scale=100.0)
    routed = mean_interval(resampler, gain + truth[:, pool.best], scale=100.0)
    score = MethodScore(
        method=name,
        routed=routed,
        gain=interval,
        recovered_gap=interval.estimate / gap if gap > 0 else None,
        brier=brier(predicted, truth),
        log_loss=log_loss(predicted, truth),
        calibration_error=calibration_error(reliability_bins(predicted, truth)),
        auc_within_prompt=auc_within_prompt(predicted, truth),
        auc_within_model=auc_within_model(predicted, truth),
        choice_entropy=choice_entropy(predicted.argmax(axis=1)),
    )
    return score, Routed(predicted, gain)


def pool_result(
    protocol: Protocol, pool: Contenders, predicted: Mapping[str, FloatArray], title: str, draws: int
) -> tuple[PoolResult, dict[str, Routed]]:
    """Every method's predictions `[n, M]` on one pool."""
    truth = protocol.truth(pool)
    resampler = protocol.resampler(pool.rows, draws)
    measured = {name: measure(name, p, truth, pool, resampler) for name, p in predicted.items()}
    result = PoolResult(
        pool=pool.name,
        title=title,
        dataset=", ".join(pool.datasets),
        models=pool.models,
        prompts=len(pool.rows),
        best_single=pool.models[pool.best],
        best_single_accuracy=100.0 * float(truth[:, pool.best].mean()),
        oracle_accuracy=100.0 * float(truth.max(axis=1).mean()),
        scores=tuple(score for score, _ in measured.values()),
    )
    return result, {name: routed for name, (_, routed) in measured.items()}


def gain_columns(pools: Sequence[Contenders], routed: Sequence[Routed], rows: Float64Array) -> Float64Array:
    """Gains `[len(rows), pools]` over common prompts; NaN where a prompt is not in a pool."""
    place = {int(row): i for i, row in enumerate(rows)}
    columns = np.full((len(rows), len(pools)), np.nan)
    for column, (pool, each) in enumerate(zip(pools, routed, strict=True)):
        columns[[place[int(row)] for row in pool.rows], column] = each.gain
    return columns


def run_field(
    protocol: Protocol, pools: Sequence[Contenders], field: Field, report: Callable[[str], None]
) -> Iterator[tuple[Contestant, list[FloatArray]]]:
    """Baselines fitted on the same rows as ours, tuned on dev, with predictions for each pool's prompts."""
    if field == "none":
        return
    outcomes = protocol.outcomes
    names = sorted({name for pool in pools for name in pool.models})
    datasets = sorted({name for pool in pools for name in pool.datasets})
    train = outcomes.where(splits=FIT_SPLITS, datasets=datasets).of_models(names)
    train = train.rows(np.flatnonzero(train.measured.any(axis=1)))
    dev = outcomes.where(splits=["dev"], datasets=datasets).of_models(names)
    test_rows = np.unique(np.concatenate([pool.rows for pool in pools]))
    test = outcomes.rows(test_rows).of_models(names)
    place = {int(row): i for i, row in enumerate(test_rows)}
    chosen = entries() if field == "all" else [entry(name) for name in QUICK]
    for found in contest(train, dev, test, pools=[pool.models for pool in pools], chosen=chosen, seed=protocol.seed):
        report(f"{found.entry.name} fitted in {found.fit_seconds:.1f} s")
        yield (
            found,
            [
                found.predicted[np.ix_([place[int(r)] for r in pool.rows], [names.index(n) for n in pool.models])]
                for pool in pools
            ],
        )


def method_info(found: Contestant) -> MethodInfo:
    """A baseline for the report."""
    return MethodInfo(
        name=found.entry.name,
        summary=found.entry.summary,
        paper=found.entry.paper,
        bound=found.entry.sees != "vector",
        params=dict(found.params),
        fit_seconds=round(found.fit_seconds, 2),
    )


def worst_pool(results: Sequence[PoolResult], method: str) -> tuple[str, Interval]:
    """The pool where a method gains least."""
    found = [(r.pool, s.gain) for r in results for s in r.scores if s.method == method]
    return min(found, key=lambda pair: pair[1].estimate)
