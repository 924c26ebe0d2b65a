"""Accuracy and cost of a routed run against the pool's single models; pure arithmetic on arrays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

from gateway.evaluation.asking import Asked
from gateway.evaluation.recorded import RecordedPool

FloatArray = npt.NDArray[np.float64]
DRAWS = 2000


class Interval(BaseModel):
    """A mean with its 95 % bootstrap interval over groups of near-duplicates."""

    mean: float
    low: float
    high: float


class Single(BaseModel):
    """One way of answering every prompt: a model, chance, or the oracle."""

    name: str
    accuracy: float
    cost_usd: float | None


class Run(BaseModel):
    """One pass over the prompts through the gateway.

    `gain` is over the best single model, in points; `saved` the share of its cost. `as_recorded` counts answers that
    are word for word what the chosen model had said.
    """

    quality: float
    stream: bool
    asked: int
    answered: int
    errors: dict[str, int]
    accuracy: Interval
    gain: Interval
    cost_usd: float
    saved: float | None
    picks: dict[str, int]
    as_recorded: int
    seconds: float
    p50_ms: float
    p99_ms: float


def costs_of(pool: RecordedPool) -> FloatArray:
    """USD `[n, M]` of each recorded answer, by the tokens that the replaying upstream reports (length / 4)."""
    costs = np.zeros_like(pool.scores)
    for row, prompt in enumerate(pool.prompts):
        asked = max(1, len(_messages(prompt.text)) // 4)
        for column, model in enumerate(pool.models):
            said = max(1, len(pool.answers[row][column]) // 4)
            costs[row, column] = (asked * (model.price_in or 0.0) + said * (model.price_out or 0.0)) / 1e6
    return costs


def _messages(text: str) -> str:
    import json

    return json.dumps([{"role": "user", "content": text}])


def singles(pool: RecordedPool, costs: FloatArray) -> list[Single]:
    """Every model alone, a random one for each prompt, and the oracle (the cheapest of the best)."""
    found = [
        Single(name=name, accuracy=float(pool.scores[:, column].mean()), cost_usd=float(costs[:, column].sum()))
        for column, name in enumerate(pool.names)
    ]
    found.append(Single(name="random", accuracy=float(pool.scores.mean()), cost_usd=float(costs.mean(axis=1).sum())))
    best = pool.scores.max(axis=1)
    cheapest = np.where(pool.scores == best[:, None], costs, np.inf).min(axis=1)
    found.append(Single(name="oracle", accuracy=float(best.mean()), cost_usd=float(cheapest.sum())))
    return found


def measure(
    pool: RecordedPool,
    costs: FloatArray,
    asked: Sequence[Asked],
    *,
    quality: float,
    stream: bool,
    seconds: float,
    seed: int = 0,
) -> Run:
    """Grade a run: an answer earns the recorded score of the model that gave it, an error earns nothing."""
    column_of = {name: column for column, name in enumerate(pool.names)}
    rows = np.arange(len(asked))
    ok = np.array([one.error is None and one.model in column_of for one in asked])
    picked = np.array([column_of.get(one.model or "", 0) for one in asked])
    score = np.where(ok, pool.scores[rows, picked], 0.0)
    money = float(np.where(ok, costs[rows, picked], 0.0).sum())
    alone = pool.scores[:, pool.best]
    weights = _weights([prompt.group for prompt in pool.prompts], seed)
    times = np.array([one.seconds for one in asked]) * 1000
    paid = float(costs[:, pool.best].sum())
    return Run(
        quality=quality,
        stream=stream,
        asked=len(asked),
        answered=int(ok.sum()),
        errors=dict(Counter(one.error or "unknown model" for one, good in zip(asked, ok, strict=True) if not good)),
        accuracy=interval(score, weights),
        gain=interval((score - alone) * 100, weights),
        cost_usd=money,
        saved=1 - money / paid if paid > 0 else None,
        picks=dict(Counter(one.model or "?" for one, good in zip(asked, ok, strict=True) if good).most_common()),
        as_recorded=sum(one.text == pool.answers[row][int(picked[row])] for row, one in enumerate(asked) if ok[row]),
        seconds=seconds,
        p50_ms=float(np.percentile(times, 50)),
        p99_ms=float(np.percentile(times, 99)),
    )


def _weights(groups: Sequence[str], seed: int) -> FloatArray:
    """How often each prompt is drawn `[DRAWS, n]`; near-duplicates are drawn together."""
    _, member = np.unique(np.array(groups), return_inverse=True)
    count = int(member.max()) + 1
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=DRAWS)
    weights: FloatArray = drawn[:, member].astype(np.float64)
    return weights


def interval(values: FloatArray, weights: FloatArray) -> Interval:
    """Mean of `values` `[n]` with the 2.5 and 97.5 % points of its bootstrap."""
    means = weights @ values / np.maximum(weights.sum(axis=1), 1e-12)
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(mean=float(values.mean()), low=float(low), high=float(high))
