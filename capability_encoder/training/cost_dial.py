"""Quality against cost on a pool whose calls have prices: expected cost per call, the sweep of the dial, savings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from capability_encoder.training.baselines.cluster_table import cluster_sums, spherical_kmeans
from capability_encoder.training.bootstrap import Resampler, interval
from capability_encoder.training.data import FloatArray, IntArray
from capability_encoder.training.metrics import Float64Array, upper_hull_area
from capability_encoder.training.protocol import Contenders, Protocol
from capability_encoder.training.report_schema import CostCurve, CostPoint, SingleModel

#: Price of the dearest model in units of probability: 0 is quality at any price, the last is the cheapest model.
PENALTIES: Float64Array = np.concatenate([[0.0], np.logspace(-3.0, 2.5, 120)])
#: Points that may be lost on dev where the penalty is chosen: what the bar allows on test.
DEV_LOSS = 1.0
#: Other allowances, for the record.
DEV_LOSSES = (0.0, 0.5, DEV_LOSS)
_CLUSTERS = 32
_PRIOR_CALLS = 10.0


class Priced(NamedTuple):
    """One split of the pool: scores, costs in USD, and costs expected from train, each `[n, M]`."""

    pool: Contenders
    scores: Float64Array
    costs: Float64Array
    expected: Float64Array


def price(protocol: Protocol) -> tuple[Priced, Priced]:
    """Dev and test of P7; the cost of a call is expected from the model's calls near the prompt's cluster in train."""
    outcomes = protocol.outcomes
    train = protocol.cost_pool("train")
    centroids = spherical_kmeans(outcomes.vectors[train.rows], _CLUSTERS, seed=protocol.seed)
    paid = outcomes.costs[np.ix_(train.rows, train.columns)].astype(np.float64)
    overall = np.nanmean(paid, axis=0)
    owner = (outcomes.vectors[train.rows] @ centroids.T).argmax(axis=1)
    sums, members = cluster_sums(owner, len(centroids), np.where(np.isnan(paid), overall, paid).astype(np.float32))
    table = (sums + _PRIOR_CALLS * overall) / (members[:, None] + _PRIOR_CALLS)

    def split(name: str) -> Priced:
        pool = protocol.cost_pool(name)
        costs = outcomes.costs[np.ix_(pool.rows, pool.columns)].astype(np.float64)
        near = (outcomes.vectors[pool.rows] @ centroids.T).argmax(axis=1)
        return Priced(pool, protocol.truth(pool).astype(np.float64), costs, np.asarray(table[near], dtype=np.float64))

    return split("dev"), split("test")


def choices(predicted: FloatArray, expected: Float64Array) -> IntArray:
    """Chosen model `[n, len(PENALTIES)]` at every setting of the dial."""
    relative = expected / expected.mean(axis=0).max()
    utility = predicted[:, :, None] - relative[:, :, None] * PENALTIES[None, None, :]
    return np.asarray(utility.argmax(axis=1), dtype=np.int64)


def chosen_penalty(dev: Priced, predicted: FloatArray, allowed: float = DEV_LOSS) -> int:
    """Place of the largest penalty that loses at most `allowed` points to the best single model on dev."""
    picked = choices(predicted, dev.expected)
    quality = 100.0 * np.take_along_axis(dev.scores, picked, axis=1).mean(axis=0)
    single = 100.0 * dev.scores[:, dev.pool.best].mean()
    good = np.flatnonzero(quality >= single - allowed)
    return int(good.max()) if len(good) else 0


def cost_curves(
    dev: Priced,
    test: Priced,
    predicted: Mapping[str, tuple[FloatArray, FloatArray]],
    resampler: Resampler,
) -> tuple[list[CostCurve], dict[str, CostCurve]]:
    """A curve per method from its predictions on (dev, test).

    Returns:
        The curves, and for each method its curve with `quality_lost` at penalty 0 instead.
    """
    single_means = resampler.means(test.costs)
    lows, highs = 1000.0 * single_means.min(axis=1), 1000.0 * single_means.max(axis=1)
    low, high = 1000.0 * test.costs.mean(axis=0).min(), 1000.0 * test.costs.mean(axis=0).max()
    cheapest = np.full(len(test.scores), int(test.expected.mean(axis=0).argmin()))
    curves, undialled = [], {}
    for name, (on_dev, on_test) in predicted.items():
        picked = np.column_stack([choices(on_test, test.expected), cheapest])
        quality = 100.0 * np.take_along_axis(test.scores, picked, axis=1)
        cost = 1000.0 * np.take_along_axis(test.costs, picked, axis=1)
        drawn_quality, drawn_cost = resampler.means(quality), resampler.means(cost)
        areas = [upper_hull_area(c, q, a, b) for c, q, a, b in zip(drawn_cost, drawn_quality, lows, highs, strict=True)]
        place = chosen_penalty(dev, on_dev)
        best_quality, best_cost = 100.0 * test.scores[:, test.pool.best], 1000.0 * test.costs[:, test.pool.best]
        saved = 100.0 * (1.0 - drawn_cost[:, place] / resampler.means(best_cost)[:, 0])
        lost = [best_quality - quality[:, at] for at in (place, 0)]
        means = [interval(each.mean(), resampler.means(each)[:, 0]) for each in lost]
        points = tuple(
            CostPoint(penalty=float(p), cost=float(c), quality=float(q))
            for p, c, q in zip(PENALTIES, cost.mean(axis=0), quality.mean(axis=0), strict=False)
        )
        curve = CostCurve(
            pool=test.pool.name,
            method=name,
            points=points,
            aiq=interval(upper_hull_area(cost.mean(axis=0), quality.mean(axis=0), low, high), areas),
            saved_percent=interval(100.0 * (1.0 - cost[:, place].mean() / best_cost.mean()), saved),
            quality_lost=means[0],
        )
        curves.append(curve)
        undialled[name] = curve.model_copy(update={"quality_lost": means[1]})
    return curves, undialled


def savings(dev: Priced, test: Priced, on_dev: FloatArray, on_test: FloatArray) -> list[str]:
    """For each loss allowed on dev: the penalty it picks, and the saving and loss there on test, in words."""
    lines = []
    for allowed in DEV_LOSSES:
        place = chosen_penalty(dev, on_dev, allowed)
        picked = choices(on_test, test.expected)[:, [place]]
        cost = float(np.take_along_axis(test.costs, picked, axis=1).mean() / test.costs[:, test.pool.best].mean())
        lost = float((test.scores[:, [test.pool.best]] - np.take_along_axis(test.scores, picked, axis=1)).mean())
        lines.append(
            f"P7: allowing {allowed:.1f} points on dev gives penalty {PENALTIES[place]:.4f}; on test it saves "
            f"{100.0 * (1.0 - cost):.1f} % and loses {100.0 * lost:+.2f} points."
        )
    return lines


def single_models(test: Priced) -> list[SingleModel]:
    """Each model alone."""
    return [
        SingleModel(pool=test.pool.name, model=model, cost=float(1000.0 * cost), quality=float(100.0 * quality))
        for model, cost, quality in zip(
            test.pool.models, test.costs.mean(axis=0), test.scores.mean(axis=0), strict=True
        )
    ]


def single_models_aiq(test: Priced) -> float:
    """Area under the hull of the single models: what mixing them without looking at the prompt reaches."""
    cost, quality = 1000.0 * test.costs.mean(axis=0), 100.0 * test.scores.mean(axis=0)
    return upper_hull_area(cost, quality, float(cost.min()), float(cost.max()))
