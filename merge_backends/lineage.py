"""Where a merge comes from: recipe, content hashes, parents, licences and measurements, kept beside the weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from merge_backends import digests
from merge_backends.checkpoint import Checkpoint
from merge_backends.errors import CheckpointError
from merge_backends.licences import Verdict, combine
from merge_backends.parameters import as_json

if TYPE_CHECKING:
    from merge_backends.plan import Plan

FILE = "lineage.json"
SCHEMA = 1


def verdict_of(plan: Plan) -> Verdict:
    """What the licences of all parents together allow."""
    return combine([model.licence for model in plan.models.values()])


def make_lineage(
    plan: Plan, *, digest: str, created: str, metrics: Mapping[str, Any], stages: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The record that is written beside the weights.

    Args:
        digest: content hash of the result.
        created: ISO time; given by the caller.
        metrics: what was measured of the result.
        stages: lineage of the earlier documents that this one was made from, by name.
    """
    verdict = verdict_of(plan)
    shared = plan.parts[0].parameters if plan.parts else {}
    values = list({digests.canonical(as_json(one)): as_json(one) for one in shared.values()}.values())
    return {
        "schema": SCHEMA,
        "tool": {"name": "orbweaver", "version": _own_version()},
        "created": created,
        "method": plan.recipe.method,
        "recipe": plan.recipe.raw,
        "recipe_hash": plan.hash,
        "parameters": (values[0] if len(values) == 1 else values) if values else _settings(plan),
        "seed": plan.recipe.seed,
        "digest": digest,
        "parents": [
            {
                "name": model.name,
                "role": "base" if model is plan.base else "expert",
                "digest": model.digest,
                "licence": model.licence,
                "base": plan.base.name if plan.base and model is not plan.base else None,
                "relative_change": plan.changes.get(model.name),
            }
            for model in plan.models.values()
        ],
        "licence": {"licence": verdict.licence, "obligations": list(verdict.obligations)},
        "export": {"allowed": not verdict.blocked, "reasons": list(verdict.blocked)},
        "metrics": dict(metrics),
        "stages": dict(stages or {}),
    }


def read_lineage(folder: Path) -> dict[str, Any]:
    """The record of a merge.

    Raises:
        CheckpointError: there is none, or it is broken.
    """
    file = folder / ("mixture.json" if (folder / "mixture.json").is_file() else FILE)
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        record = record.get("lineage") if file.name != FILE else record
        if not isinstance(record, dict) or "digest" not in record:
            raise ValueError("it is no lineage record")
    except FileNotFoundError:
        raise CheckpointError(
            f"{str(folder)!r} has no {FILE}.", "Give a folder made by `orbweaver merge build`."
        ) from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{str(file)!r} cannot be read: {error}.", "Build the merge again.") from None
    return record


def verify(folder: Path) -> bool:
    """Whether the weights are still those that the record speaks of; reads them all. For plain checkpoints."""
    record = read_lineage(folder)
    return bool(Checkpoint.open(folder).digest == record["digest"])


def model_card(record: Mapping[str, Any]) -> str:
    """README.md of a merge, with the head that model hubs read."""
    licence = record["licence"]
    head = {
        "license": licence["licence"],
        "base_model": [parent["name"] for parent in record["parents"]],
        "tags": ["merge", "orbweaver"],
    }
    parents = "\n".join(
        f"| {parent['name']} | {parent['role']} | {parent['licence']} | `{parent['digest'][:19]}` |"
        for parent in record["parents"]
    )
    blocked = " ".join(record["export"]["reasons"])
    return (
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n"
        f"# Merge by {record['method']}\n\n"
        f"Made by Orbweaver {record['tool']['version']}. The full record is in {FILE}.\n\n"
        f"| parent | role | licence | content |\n|---|---|---|---|\n{parents}\n\n"
        f"Obligations: {'; '.join(licence['obligations']) or 'none'}.\n"
        + (f"Not for export: {blocked}\n" if blocked else "")
        + f"\n```yaml\n{yaml.safe_dump(dict(record['recipe']), sort_keys=False)}```\n"
    )


def _settings(plan: Plan) -> Mapping[str, Any]:
    return as_json(plan.settings) if plan.settings else {}


def _own_version() -> str:
    try:
        return version("orbweaver-gateway")
    except PackageNotFoundError:
        return "unknown"
