"""One bounded run of the language-model form of Model-SAT: make what is missing, train, measure, write JSON.

Run as `python -m capability_encoder.training.model_sat_run --data DIR --cache DIR --work DIR --out FILE`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from capability_encoder.training import model_sat_train as training
from capability_encoder.training.data import FloatArray, Outcomes, load_models, load_outcomes, load_pools
from capability_encoder.training.export_embedder import source_folder
from capability_encoder.training.model_sat_config import ModelSatSetting, load_setting
from capability_encoder.training.model_sat_lm import ModelSat, load_parts
from capability_encoder.training.model_sat_small import SmallLlama, save_small_llama

_SETTING = Path(__file__).parent / "configs" / "model_sat_small.yaml"


def small_setting(work: Path, outcomes: Outcomes, setting: Path = _SETTING) -> ModelSatSetting:
    """The small setting with psi = MiniLM and phi = a tiny Llama made in `work` from the train prompts."""
    target = work / "tiny-llama"
    if not target.is_dir():
        texts = [outcomes.asks[row] for row in np.flatnonzero(outcomes.splits == "train")]
        save_small_llama(target, source_folder(), texts, SmallLlama())
    read = load_setting(setting)
    return read.model_copy(
        update={
            "encoder": read.encoder.model_copy(update={"path": source_folder()}),
            "language_model": read.language_model.model_copy(update={"path": target}),
        }
    )


def within_prompt_auc(predicted: FloatArray, scores: FloatArray) -> float:
    """Mean over prompts of the chance that a right model is scored above a wrong one; ties count half."""
    values = []
    for row, truth in zip(predicted, scores, strict=True):
        right, wrong = row[truth > 0.5], row[truth <= 0.5]
        if len(right) and len(wrong):
            gap = right[:, None] - wrong[None, :]
            values.append(float((gap > 0).mean() + 0.5 * (gap == 0).mean()))
    return float(np.mean(values)) if values else 0.5


def routed_gain(
    predicted: FloatArray, scores: FloatArray, best_single: int, *, draws: int = 10_000, seed: int = 0
) -> tuple[float, float, float]:
    """Points of routed accuracy over the best single model, with its 95 % paired bootstrap interval."""
    chosen = scores[np.arange(len(scores)), predicted.argmax(axis=1)]
    gap = 100.0 * (chosen - scores[:, best_single]).astype(np.float64)
    rng = np.random.default_rng(seed)
    means = [gap[rng.integers(len(gap), size=len(gap))].mean() for _ in range(draws)]
    return float(gap.mean()), float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def measure(
    method: ModelSat, outcomes: Outcomes, pools: Mapping[str, tuple[str, Sequence[str]]], *, split: str, prompts: int
) -> dict[str, dict[str, object]]:
    """Within-prompt AUC (model and prompt order) and routed gain on a random part of each pool's prompts."""
    capabilities = training.Capabilities.of(outcomes)
    results: dict[str, dict[str, object]] = {}
    names = sorted({name for _, pool in pools.values() for name in pool})
    dataset = next(iter(pools.values()))[0]
    columns = outcomes.of_models(names)
    complete = columns.where(splits=[split], datasets=[dataset])
    rng = np.random.default_rng(method.setting.seed)
    chosen = np.sort(rng.permutation(len(complete))[:prompts])
    test = complete.rows(chosen)
    predicted = training.predict(method, capabilities, test.asks, names)
    known = columns.where(splits=["train"], datasets=[dataset])
    for pool, (_, members) in pools.items():
        place = [names.index(name) for name in members]
        scores, pool_predicted = test.scores[:, place], predicted[:, place]
        whole = ~np.isnan(scores).any(axis=1)
        best = int(np.nanmean(known.scores[:, place], axis=0).argmax())
        gain, low, high = routed_gain(pool_predicted[whole], scores[whole], best)
        results[pool] = {
            "prompts": int(whole.sum()),
            "gain": [round(v, 2) for v in (gain, low, high)],
            "auc_within_prompt": round(within_prompt_auc(pool_predicted[whole], scores[whole]), 4),
            "auc_within_model": round(within_prompt_auc(pool_predicted[whole].T, scores[whole].T), 4),
        }
    return results


def main() -> None:
    """Command line of the bounded run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--loss", choices=["contrast", "pointwise"], default="contrast")
    parser.add_argument("--split", choices=["dev", "test"], default="dev")
    parser.add_argument("--prompts", type=int, default=400)
    options = parser.parse_args()
    torch.set_num_threads(1)
    began = time.perf_counter()
    outcomes = load_outcomes(options.data, options.cache, drop_prefixes=("routerdc_", "llmrouter_"))
    facts = load_models(options.data)
    seen = [name for name in outcomes.models if facts[name].split == "seen"]
    setting = small_setting(options.work, outcomes).model_copy(update={"loss": options.loss})
    method = ModelSat(setting, load_parts(setting))
    made = time.perf_counter()
    history = training.train(method, outcomes, seen, training.Capabilities.of(outcomes))
    trained = time.perf_counter()
    pools = {name: pool for name, pool in load_pools(options.data).items() if pool[0] == "mmlu_pro"}
    result = {
        "setting": setting.name,
        "loss": setting.loss,
        "split": options.split,
        "first_losses": round(float(np.mean(history[:20])), 4),
        "last_losses": round(float(np.mean(history[-20:])), 4),
        "seconds": {"prepare": round(made - began), "train": round(trained - made)},
        "pools": measure(method, outcomes, pools, split=options.split, prompts=options.prompts),
    }
    options.out.write_text(json.dumps(result, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
