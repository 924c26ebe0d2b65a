"""From a plan to a mixture's folder: builds it in memory, and saves it with its lineage."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from merge_backends import digests, moe
from merge_backends.lineage import make_lineage
from merge_backends.moe.store import save_mixture
from merge_backends.plan import Plan
from merge_backends.skeleton import empty_model


def build_mixture(
    plan: Plan, target: Path, *, created: str, copies: Mapping[str, Path], stages: Mapping[str, Any]
) -> dict[str, Any]:
    """Builds and saves; the lineage is inside `mixture.json`. Routers that learn start at task arithmetic.

    Raises:
        MergeError: the models are not of a shape that mixtures know.
    """
    assert plan.base is not None
    began = time.monotonic()
    model = empty_model(plan.base.checkpoint)
    experts = [expert.weights for expert in plan.experts]
    settings = plan.settings.model_dump() if plan.settings else None
    built = moe.build(plan.recipe.method, model, plan.base.weights, experts, settings, seed=plan.recipe.seed)
    contents = [(name, digests.tensor_digest(name, tensor)) for name, tensor in built.state_dict().items()]
    count = sum(parameter.numel() for parameter in built.state_dict().values())
    metrics = {"seconds": round(time.monotonic() - began, 3), "parameters": count}
    record = make_lineage(plan, digest=digests.combine(contents), created=created, metrics=metrics, stages=stages)
    save_mixture(target, built, lineage=record, copies=[path for name, path in copies.items() if "/" not in name])
    return record
