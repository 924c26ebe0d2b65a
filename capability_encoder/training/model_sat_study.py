"""Does Model-SAT's serving form help the decomposed scorer? Logits mixed on dev, for known models and for newcomers.

Run as `python -m capability_encoder.training.model_sat_study --data DIR --cache DIR --out FILE`; test is not touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from capability_encoder.encoder_head import EncoderHead, ItemBank
from capability_encoder.population import facts_row
from capability_encoder.training.bootstrap import Resampler, mean_interval
from capability_encoder.training.data import FloatArray, IntArray
from capability_encoder.training.model_sat import Material, SatSettings, material_of_state, train_head
from capability_encoder.training.pool_scores import gains
from capability_encoder.training.protocol import UNSEEN_SUITE, FittedScorer, Protocol, visible_scores
from capability_encoder.training.study_command import run_study

Float64Array = npt.NDArray[np.float64]
WEIGHTS = (0.0, 0.2, 0.3, 0.4, 0.5, 1.0)
COUNTS = (0, 20, 50, 200, 1000)
#: Newcomers' mean logits keep this share of their distance from the known models' mean; 1 leaves the scorer as it is.
PULLS = (1.0, 0.65)
DATASET = "mmlu_pro"
_ANSWER_DRAWS = 4
_RANDOM_POOLS = 200


def random_pools(strength: Float64Array, count: int, *, seed: int) -> list[IntArray]:
    """Pools of 3 to 11 models drawn among neighbours in strength: far more of them than P1 to P3, so less noise."""
    rng = np.random.default_rng(seed)
    order = np.argsort(-strength)
    pools = []
    for _ in range(count):
        size = int(rng.integers(3, min(11, len(order)) + 1))
        span = min(len(order), int(size * rng.uniform(1.0, 2.5)))
        start = int(rng.integers(0, len(order) - span + 1))
        pools.append(rng.choice(order[start : start + span], size, replace=False).astype(np.int64))
    return pools


def pooled_gain(
    logits: Float64Array, truth: FloatArray, pools: Sequence[IntArray], strength: Float64Array
) -> Float64Array:
    """Gain of each prompt over the best single model `[n]`, mean of the pools."""
    total = np.zeros(len(truth))
    for pool in pools:
        total += gains(logits[:, pool].astype(np.float32), truth[:, pool], int(strength[pool].argmax()))
    return total / len(pools)


def train_on_scorer(protocol: Protocol, fitted: FittedScorer, settings: SatSettings) -> tuple[EncoderHead, Material]:
    """The serving form on the items of a scorer that was fitted on seen models."""
    outcomes, state = protocol.outcomes, fitted.scorer.state
    place = outcomes.row_of()
    rows = np.array([place[item] for item in state.items.ids], dtype=np.int64)
    columns = np.array([protocol.column(name) for name in state.known], dtype=np.int64)
    scores = visible_scores(outcomes, protocol.unseen)[np.ix_(rows, columns)]
    facts = np.array([facts_row(profile) for profile in protocol.recorded.profiles(state.known)], dtype=np.float32)
    material = material_of_state(state, scores, facts, outcomes.splits[rows] == "aptitude")
    return train_head(material, settings, seed=protocol.seed), material


def _logits(p: FloatArray) -> Float64Array:
    clipped = np.clip(p.astype(np.float64), 1e-6, 1.0 - 1e-6)
    return np.asarray(np.log(clipped / (1.0 - clipped)))


def _errors(logits: Float64Array, truth: FloatArray) -> Float64Array:
    return np.asarray((0.5 * (1.0 + np.tanh(0.5 * logits)) - truth) ** 2)


class Study:
    """One fit on seen models, both methods, and dev prompts of mmlu_pro."""

    def __init__(self, protocol: Protocol, settings: SatSettings, draws: int) -> None:
        self.protocol = protocol
        self.fitted = protocol.fit(unseen=protocol.unseen)
        self.head, self.material = train_on_scorer(protocol, self.fitted, settings)
        outcomes = protocol.outcomes
        self.rows = np.flatnonzero((outcomes.datasets == DATASET) & (outcomes.splits == "dev"))
        self.resampler: Resampler = protocol.resampler(self.rows, draws)
        self.features = self.fitted.coordinates(self.rows)
        self.centre = 0.0

    def known_models(self) -> dict[str, object]:
        """Seen models, each known by all its outcomes: Brier, and gain in random pools, of every mixture."""
        names = self.fitted.scorer.known_models
        truth = self.protocol.scores_of(self.rows, names)
        columns = np.flatnonzero((~np.isnan(truth)).mean(axis=0) > 0.9)
        truth = truth[:, columns]
        whole = ~np.isnan(truth).any(axis=1)
        ours = _logits(self.fitted.score(self.rows, self.fitted.by_name([names[c] for c in columns])).p)
        self.centre = float(ours.mean())
        everything = np.arange(len(self.material.scores))
        vectors = self.head.model_vectors([self.material.instruction(int(c), everything) for c in columns])
        theirs = self.head.logits(self.features, vectors).astype(np.float64)
        place = self.protocol.outcomes.row_of()
        fitted_rows = np.array([place[item] for item in self.fitted.scorer.item_ids], dtype=np.int64)
        of_dataset = self.protocol.outcomes.datasets[fitted_rows] == DATASET
        strength = np.nanmean(self.material.scores[of_dataset][:, columns], axis=0)
        pools = random_pools(strength, _RANDOM_POOLS, seed=self.protocol.seed)
        base = pooled_gain(ours, truth, pools, strength)
        report: dict[str, object] = {"models": len(columns)}
        for weight in WEIGHTS:
            mixed = (1.0 - weight) * ours + weight * theirs
            gain = np.where(whole, pooled_gain(mixed, truth, pools, strength), np.nan)
            change = np.nanmean(_errors(mixed, truth) - _errors(ours, truth), axis=1)
            report[f"w={weight}"] = {
                "brier": round(float(np.nanmean(_errors(mixed, truth))), 4),
                "brier_change_e4": mean_interval(self.resampler, change, scale=1e4).model_dump(),
                "gain": mean_interval(self.resampler, gain, scale=100.0).model_dump(),
                "gain_change": mean_interval(
                    self.resampler, np.where(whole, gain - base, np.nan), scale=100.0
                ).model_dump(),
            }
        return report

    def newcomers(self, count: int) -> dict[str, object]:
        """Unseen models known by `count` answers: Brier of every mixture, and its change against the plain scorer."""
        protocol, names = self.protocol, self.protocol.unseen_with_suite
        truth = protocol.scores_of(self.rows, names)
        bank, scorer = ItemBank.of(self.fitted.scorer.state.items), self.fitted.scorer
        place = {item: row for row, item in enumerate(scorer.item_ids)}
        items = protocol.suite_rows(UNSEEN_SUITE)
        errors: dict[tuple[float, float], list[Float64Array]] = {}
        for draw in range(_ANSWER_DRAWS if 0 < count < len(items) else 1):
            rng = np.random.default_rng((protocol.seed, count, draw))
            profiles = [protocol.answers(name, items, count, rng) for name in names]
            ours = _logits(self.fitted.score(self.rows, scorer.prepare(profiles)).p)
            told = [
                bank.instruction(
                    np.array([place[answer.item] for answer in profile.answers], dtype=np.int64),
                    np.array([answer.score for answer in profile.answers], dtype=np.float32),
                    facts_row(profile).astype(np.float32),
                )
                for profile in profiles
            ]
            theirs = self.head.logits(self.features, self.head.model_vectors(told)).astype(np.float64)
            for pull in PULLS:
                pulled = ours - (1.0 - pull) * (ours.mean(axis=0) - self.centre) if count else ours
                for weight in WEIGHTS:
                    mixed = (1.0 - weight) * pulled + weight * theirs
                    errors.setdefault((pull, weight), []).append(_errors(mixed, truth))
        report: dict[str, object] = {}
        for pull in PULLS:
            base = np.mean(errors[pull, 0.0], axis=0)
            for weight in WEIGHTS:
                mean = np.mean(errors[pull, weight], axis=0)
                change = mean_interval(self.resampler, np.nanmean(mean - base, axis=1), scale=1e4)
                report[f"pull={pull} w={weight}"] = {
                    "brier": round(float(np.nanmean(mean)), 4),
                    "change_e4": change.model_dump(),
                }
        return report


def study(data: Path, cache: Path, *, settings: SatSettings | None = None, draws: int = 10_000) -> dict[str, object]:
    """Both parts as one record."""
    with threadpool_limits(limits=1):
        found = Study(Protocol.load(data, cache), settings or SatSettings(), draws)
        report: dict[str, object] = {"known_models": found.known_models()}
        for count in COUNTS:
            report[f"newcomers with {count} answers"] = found.newcomers(count)
    return report


if __name__ == "__main__":
    run_study(__doc__, study)
