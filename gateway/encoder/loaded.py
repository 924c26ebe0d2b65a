"""`Loaded`: an artefact in use with everything that hangs on it. A frozen value, swapped as a whole; I/O in threads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from capability_encoder.learning import Lessons
    from capability_encoder.scorer import CapabilityScorer
    from capability_encoder.task_store import LiveTasks
    from capability_encoder.versions import VersionStore


@dataclass(frozen=True, slots=True)
class Loaded:
    """`shadow` is scored beside the live scorer and decides nothing; `stamp` tells when to load again."""

    scorer: CapabilityScorer
    shadow: CapabilityScorer | None
    tasks: LiveTasks
    lessons: Lessons
    stamp: tuple[int, int]


def version_store(state_dir: Path, artifact: Path | None) -> VersionStore:
    """The versions of a state folder; `artifact` (default: the shipped one) is live until another is promoted."""
    from capability_encoder.artifact import SHIPPED
    from capability_encoder.versions import VersionStore

    return VersionStore(state_dir, artifact or SHIPPED)


def grade_file(state_dir: Path) -> Path:
    """Where graded answers of this installation are kept: vectors and scores, no text."""
    return state_dir / "encoder" / "grades.jsonl"


def current_stamp(store: VersionStore, state_dir: Path) -> tuple[int, int]:
    """Changes when a version is staged, promoted or rolled back, and when grades are added."""
    try:
        size = grade_file(state_dir).stat().st_size
    except FileNotFoundError:
        size = 0
    return store.stamp(), size


def open_loaded(store: VersionStore, state_dir: Path, before: Loaded | None = None) -> Loaded:
    """Open what is in force now, keeping the parts of `before` that have not changed. Reads files: for a thread.

    Raises:
        ArtifactError: an artefact cannot be used.
    """
    from capability_encoder.known_tasks import live_tasks
    from capability_encoder.learning import Lessons
    from capability_encoder.online import GradeLog, evidence_by_model

    stamp = current_stamp(store, state_dir)
    kept: Mapping[str, CapabilityScorer] = {}
    if before is not None:
        kept = {one.version: one for one in (before.scorer, before.shadow) if one is not None}
    scorer = _open(store.live(), kept)
    shadow_folder = store.shadow()
    shadow = _open(shadow_folder, kept) if shadow_folder is not None else None
    if before is not None and before.scorer is scorer:
        tasks = before.tasks
        tasks.refresh()
    else:
        tasks = live_tasks(scorer, state_dir, scorer.embedder.base_fingerprint)
    grades = GradeLog(grade_file(state_dir), scorer.embedder.fingerprint).read()
    return Loaded(scorer, shadow, tasks, Lessons(evidence_by_model(grades)), stamp)


def _open(folder: Path, kept: Mapping[str, CapabilityScorer]) -> CapabilityScorer:
    from capability_encoder.artifact import open_artifact
    from capability_encoder.scorer import KIND, CapabilityScorer

    artifact = open_artifact(folder, kind=KIND)
    if artifact.version in kept:
        return kept[artifact.version]
    # The text encoder is most of the memory, and versions nearly always share it.
    shared = [one.embedder.base for one in kept.values() if one.embedder.base_fingerprint == artifact.manifest.embedder]
    return CapabilityScorer.load(folder, shared[0] if shared else None)
