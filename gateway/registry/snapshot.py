"""`Snapshot`: all that a request needs of the registry, as one frozen value that is swapped as a whole. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from gateway.registry.records import Candidate, ClientKey


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The registry at one version.

    `candidates` holds all of them, switched-off ones too; `enabled` only those that may be used. `keys` is by SHA-256
    hex of the key, revoked ones included. `profiles` holds capability profiles (JSON) by candidate name. `notes` says,
    by candidate name, where the run-time registry differs from the config file.
    """

    version: int = 0
    candidates: Mapping[str, Candidate] = field(default_factory=dict)
    keys: Mapping[str, ClientKey] = field(default_factory=dict)
    profiles: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    enabled: Mapping[str, Candidate] = field(init=False)

    def __post_init__(self) -> None:
        usable = {name: candidate for name, candidate in self.candidates.items() if candidate.enabled}
        object.__setattr__(self, "enabled", usable)


@dataclass(frozen=True, slots=True)
class StoredCandidate:
    """One row of the registry: a whole candidate, or (`candidate` None) only a switch for one of the config file."""

    name: str
    enabled: bool
    candidate: Candidate | None = None


def merge_candidates(
    declared: Iterable[Candidate], stored: Iterable[StoredCandidate]
) -> tuple[dict[str, Candidate], dict[str, str]]:
    """Candidates of the config file and of the registry as one set, and notes on where they differ.

    A registry entry replaces a declared candidate of the same name; a switch without a candidate behind it (another
    gateway's config file, or one that was edited since) has no effect.
    """
    merged = {candidate.name: candidate for candidate in declared}
    notes: dict[str, str] = {}
    for row in stored:
        declared_one = merged.get(row.name)
        if row.candidate is not None:
            merged[row.name] = row.candidate
            if declared_one is not None:
                notes[row.name] = (
                    f"The registry's entry overrides the {declared_one.source} candidate of the same name; "
                    f"`orbweaver models remove {row.name}` brings that one back."
                )
        elif declared_one is not None:
            merged[row.name] = replace(declared_one, enabled=row.enabled)
            if row.enabled != declared_one.enabled:
                state = "on" if row.enabled else "off"
                notes[row.name] = f"Switched {state} at run time; the {declared_one.source} entry says otherwise."
    return merged, notes
