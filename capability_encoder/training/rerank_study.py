"""Does Model Spider's re-rank help a scorer that exists? Evidence near the prompt, weighed on dev, tried on test.

Run as `python -m capability_encoder.training.rerank_study --data DIR --cache DIR --out FILE`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from capability_encoder.embed import PromptEmbedder
from capability_encoder.profile import CapabilityProfile
from capability_encoder.scorer import LAYERS, CapabilityScorer
from capability_encoder.training.data import FloatArray, Outcomes, load_models, load_outcomes, load_pools
from capability_encoder.training.fit import Recorded, fit_state
from capability_encoder.training.model_sat_run import within_prompt_auc
from capability_encoder.training.model_spider import Evidence
from capability_encoder.training.study_command import run_study

_BUDGETS = (2, 3, 5, 10)


@dataclass(frozen=True, slots=True)
class Scored:
    """Logits of the scorer `[B, M]`, evidence `[B, M, E]` and true scores `[B, M]` of some prompts."""

    logits: FloatArray
    evidence: FloatArray
    scores: FloatArray

    def of_pool(self, columns: Sequence[int]) -> Scored:
        """The columns of a pool and the prompts that all of its models answered."""
        place = list(columns)
        whole = ~np.isnan(self.scores[:, place]).any(axis=1)
        return Scored(self.logits[whole][:, place], self.evidence[whole][:, place], self.scores[whole][:, place])


def weigh_evidence(known: Scored, *, penalty: float = 1.0, steps: int = 25) -> npt.NDArray[np.float64]:
    """Weights `[E]` of the evidence in logit = scorer's logit + evidence . weights, by Newton steps."""
    design = known.evidence.reshape(-1, known.evidence.shape[2]).astype(np.float64)
    offset, truth = known.logits.ravel().astype(np.float64), known.scores.ravel()
    measured = ~np.isnan(truth)
    design, offset, truth = design[measured], offset[measured], truth[measured]
    weights = np.zeros(design.shape[1])
    for _ in range(steps):
        p = 1.0 / (1.0 + np.exp(-(offset + design @ weights)))
        gradient = design.T @ (p - truth) + penalty * weights
        curvature = design.T @ (design * (p * (1.0 - p))[:, None]) + penalty * np.eye(len(weights))
        weights -= np.linalg.solve(curvature, gradient)
    return weights


def re_ranked(scored: Scored, weights: npt.NDArray[np.float64], budget: int) -> FloatArray:
    """Logits with the evidence of the best `budget` models of each prompt added."""
    order = np.argsort(-scored.logits, axis=1)[:, :budget]
    corrected = scored.logits + scored.evidence @ weights.astype(np.float32)
    result = scored.logits.copy()
    np.put_along_axis(result, order, np.take_along_axis(corrected, order, axis=1), axis=1)
    return result


def compare(before: FloatArray, after: FloatArray, scores: FloatArray, *, seed: int = 0) -> dict[str, object]:
    """Routed accuracy after minus before, in points, with its 95 % paired bootstrap interval; AUC of both."""
    rows = np.arange(len(scores))
    gap = 100.0 * (scores[rows, after.argmax(axis=1)] - scores[rows, before.argmax(axis=1)]).astype(np.float64)
    rng = np.random.default_rng(seed)
    means = [gap[rng.integers(len(gap), size=len(gap))].mean() for _ in range(10_000)]
    return {
        "difference": [round(float(v), 2) for v in (gap.mean(), *np.quantile(means, (0.025, 0.975)))],
        "auc_before": round(within_prompt_auc(before, scores), 4),
        "auc_after": round(within_prompt_auc(after, scores), 4),
    }


def _score(scorer: CapabilityScorer, vectors: FloatArray, names: Sequence[str]) -> FloatArray:
    pool = scorer.prepare([CapabilityProfile(name, known_as=name) for name in names])
    p = np.clip(scorer.score_many(vectors, pool).p, 1e-6, 1 - 1e-6)
    return np.asarray(np.log(p / (1 - p)), dtype=np.float32)


def study(data: Path, cache: Path) -> dict[str, object]:
    """Fit the scorer on public train, weigh the evidence on dev, compare on test; pools of mmlu_pro."""
    outcomes = load_outcomes(data, cache, drop_prefixes=("routerdc_", "llmrouter_"))
    pools = {name: members for name, (dataset, members) in load_pools(data).items() if dataset == "mmlu_pro"}
    names = sorted({name for members in pools.values() for name in members})
    recorded = Recorded(outcomes, load_models(data), cache, PromptEmbedder.load(layers=LAYERS))
    fitted = np.isin(outcomes.splits, ("train", "aptitude"))
    state = fit_state(recorded, fitted, np.where(fitted[:, None], outcomes.scores, np.nan).astype(np.float32))
    scorer = CapabilityScorer(state, recorded.embedder)
    views = recorded.table.views(state.grams)
    known = outcomes.of_models(names)
    memory = Evidence(known.where(splits=["train"], datasets=["mmlu_pro"]))

    def scored(split: str) -> Scored:
        rows = (known.splits == split) & (known.datasets == "mmlu_pro")
        part: Outcomes = known.rows(rows)
        evidence = memory.of(part.vectors)[:, :, :, 0]  # the residuals; similarity and coverage only scale them
        return Scored(_score(scorer, views[rows], names), evidence, part.scores)

    dev, test = scored("dev"), scored("test")
    weights = weigh_evidence(dev)
    report: dict[str, object] = {"weights": [round(float(w), 3) for w in weights]}
    for pool, members in pools.items():
        columns = [names.index(name) for name in members]
        here = test.of_pool(columns)
        report[pool] = {
            f"k={k}": compare(here.logits, re_ranked(here, weights, k), here.scores)
            for k in _BUDGETS
            if k <= len(columns)
        }
    return report


if __name__ == "__main__":
    run_study(__doc__, study)
