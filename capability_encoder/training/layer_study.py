"""How many layers of the embedder does the scorer need? Fits on public train, measured on dev, pools of mmlu_pro.

Run as `python -m capability_encoder.training.layer_study --data DIR --cache DIR --out layers.json`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from capability_encoder.embed import PromptEmbedder
from capability_encoder.profile import CapabilityProfile
from capability_encoder.scorer import LAYERS, CapabilityScorer
from capability_encoder.training.data import FloatArray, load_models, load_outcomes, load_pools
from capability_encoder.training.fit import Recorded, fit_state
from capability_encoder.training.model_sat_run import within_prompt_auc

CHOICES = (LAYERS, (3, 4), (3,), (2, 3), (6,))
POOLS = ("P1", "P2", "P3")
DRAWS = 10_000


def study(data: Path, cache: Path, *, split: str = "dev", seed: int = 0) -> dict[str, object]:
    """Brier, within-prompt AUC and routed accuracy for each choice, and paired differences to the first one."""
    outcomes = load_outcomes(data, cache, drop_prefixes=("routerdc_", "llmrouter_"))
    pools = {name: members for name, (_, members) in load_pools(data).items() if name in POOLS}
    facts = load_models(data)
    fitted = np.isin(outcomes.splits, ("train", "aptitude"))
    asked = (outcomes.splits == split) & (outcomes.datasets == "mmlu_pro")
    report: dict[str, object] = {}
    first: dict[str, FloatArray] = {}
    for layers in CHOICES:
        recorded = Recorded(outcomes, facts, cache, PromptEmbedder.load(layers=layers))
        state = fit_state(
            recorded, fitted, np.where(fitted[:, None], outcomes.scores, np.nan).astype(np.float32), seed=seed
        )
        scorer = CapabilityScorer(state, recorded.embedder)
        views = recorded.table.views(state.grams)[asked]
        rows: dict[str, object] = {}
        for pool, members in pools.items():
            part = outcomes.rows(asked).of_models(members)
            complete = ~np.isnan(part.scores).any(axis=1)
            scores = part.scores[complete]
            profiles = [CapabilityProfile(name, known_as=name) for name in members]
            p = scorer.score_many(views[complete], scorer.prepare(profiles)).p
            routed = scores[np.arange(len(scores)), p.argmax(axis=1)]
            first.setdefault(pool, routed)
            rows[pool] = {
                "brier": round(float(np.mean((p - scores) ** 2)), 4),
                "auc": round(within_prompt_auc(p, scores), 4),
                "routed": round(100 * float(routed.mean()), 2),
                "minus_first": _difference(routed, first[pool], seed=seed),
            }
        report[str(layers)] = rows
    return report


def _difference(routed: FloatArray, base: FloatArray, *, seed: int) -> list[float]:
    """Points of routed accuracy and its 95 % paired bootstrap interval."""
    gap = 100.0 * (routed - base).astype(np.float64)
    rng = np.random.default_rng(seed)
    means = [gap[rng.integers(len(gap), size=len(gap))].mean() for _ in range(DRAWS)]
    return [round(float(value), 2) for value in (gap.mean(), *np.quantile(means, (0.025, 0.975)))]


def main() -> None:
    """Command line of the study."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--data", "--cache", "--out"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--split", default="dev")
    options = parser.parse_args()
    report = study(options.data, options.cache, split=options.split)
    options.out.write_text(json.dumps(report, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
