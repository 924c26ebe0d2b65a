"""Registry records as the JSON that people see: one shape for the admin API and for the CLI, local or remote."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from gateway.registry.encoding import candidate_to_json, key_to_json
from gateway.registry.jobs import Job
from gateway.registry.records import Candidate, ClientKey
from gateway.registry.snapshot import Snapshot
from gateway.settings import read_secret


def model_view(
    candidate: Candidate,
    snapshot: Snapshot,
    *,
    health: Mapping[str, Mapping[str, Any]] | None = None,
    warnings: tuple[str, ...] = (),
) -> dict[str, Any]:
    """A candidate with its notes; `health` is the board by deployment id, where there is a running gateway."""
    view = candidate_to_json(candidate)
    for place in view["deployments"]:
        place["key_is_set"] = None if place["api_key_env"] is None else read_secret(place["api_key_env"]) is not None
        place["health"] = (health or {}).get(place["id"])
    view["measured"] = candidate.name in snapshot.profiles
    view["note"] = snapshot.notes.get(candidate.name)
    view["warnings"] = list(warnings)
    return view


def key_view(key: ClientKey) -> dict[str, Any]:
    """A client key without its hash."""
    return key_to_json(key)


def job_view(job: Job) -> dict[str, Any]:
    """A job as it is."""
    return asdict(job)
