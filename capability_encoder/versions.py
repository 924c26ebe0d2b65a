"""Artefact versions on disk: a new one is first a shadow, then live, and can be rolled back; one call for each step.

Layout under the state folder: `encoder/versions/<version>/` (copies) and `encoder/versions.json` (who is who).
Every change is one atomic rename under a lock, so several processes may share the folder.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from capability_encoder.artifact import SHIPPED, Artifact, ArtifactError, open_artifact

SHIPPED_NAME = "shipped"
"""Stands for the artefact that came with the package; live until another one is promoted."""
KEPT_HISTORY = 5


@dataclass(frozen=True, slots=True)
class VersionState:
    """Which versions play which part; `history` holds earlier live ones, the latest last."""

    live: str = SHIPPED_NAME
    shadow: str | None = None
    history: tuple[str, ...] = ()


class VersionStore:
    """The versions known to one state folder.

    Args:
        state: the gateway's state folder; created when something is staged.
        shipped: the artefact that is live at first.
    """

    def __init__(self, state: Path | str, shipped: Path | str = SHIPPED) -> None:
        self._root = Path(state) / "encoder"
        self._record = self._root / "versions.json"
        self._shipped = Path(shipped)

    def state(self) -> VersionState:
        """Who is live and who is in the shadow, read afresh.

        Raises:
            ArtifactError: the record on disk is damaged.
        """
        try:
            stored = json.loads(self._record.read_text(encoding="utf-8"))
            return VersionState(stored["live"], stored["shadow"], tuple(stored["history"]))
        except FileNotFoundError:
            return VersionState()
        except (ValueError, KeyError, TypeError) as error:
            raise ArtifactError(
                f"{str(self._record)!r} is damaged ({error}); delete it to go back to the shipped artefact"
            ) from error

    def stamp(self) -> int:
        """Changes with every change of the record: poll it to know when to reload."""
        try:
            return self._record.stat().st_mtime_ns
        except FileNotFoundError:
            return 0

    def folder(self, version: str) -> Path:
        """Where a version lies."""
        return self._shipped if version == SHIPPED_NAME else self._root / "versions" / version

    def live(self) -> Path:
        """Folder of the artefact that decides."""
        return self.folder(self.state().live)

    def shadow(self) -> Path | None:
        """Folder of the artefact whose scores are logged beside the live ones, if there is one."""
        shadow = self.state().shadow
        return self.folder(shadow) if shadow is not None else None

    def stage(self, folder: Path | str, *, kind: str | None = None, embedder: str | None = None) -> str:
        """Copy an artefact in and make it the shadow; gives its version.

        Raises:
            ArtifactError: it would not load (the checks of `open_artifact`), so nothing has changed.
        """
        artifact = open_artifact(folder, kind=kind, embedder=embedder)
        with self._locked():
            self._copy(artifact)
            self._write(replace(self.state(), shadow=artifact.version))
        return artifact.version

    def promote(self) -> str:
        """Make the shadow live; the version that was live can be rolled back to. Gives the new live version."""
        with self._locked():
            state = self.state()
            if state.shadow is None:
                raise ArtifactError("there is no shadow version to promote; stage one first")
            if state.shadow == state.live:
                raise ArtifactError(f"version {state.live!r} is live already")
            open_artifact(self.folder(state.shadow))
            self._write(VersionState(state.shadow, None, (*state.history, state.live)[-KEPT_HISTORY:]))
            self._forget_old()
            return state.shadow

    def rollback(self) -> str:
        """Make the version that was live before live again; the one taken back becomes the shadow, to be looked at."""
        with self._locked():
            state = self.state()
            if not state.history:
                raise ArtifactError("there is no earlier version to roll back to")
            *history, previous = state.history
            open_artifact(self.folder(previous))
            self._write(VersionState(previous, state.live, tuple(history)))
            return previous

    def drop_shadow(self) -> None:
        """Stop scoring with the shadow."""
        with self._locked():
            self._write(replace(self.state(), shadow=None))

    def _copy(self, artifact: Artifact) -> None:
        target = self.folder(artifact.version)
        if target.exists():
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".staging-", dir=target.parent))
        try:
            shutil.copytree(artifact.folder, scratch / "copy")
            os.replace(scratch / "copy", target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _write(self, state: VersionState) -> None:
        self._root.mkdir(parents=True, exist_ok=True)
        write_atomically(self._record, json.dumps(asdict(state)))

    def _forget_old(self) -> None:
        """Remove the copies that no part refers to any more."""
        state = self.state()
        wanted = {state.live, state.shadow, *state.history}
        for folder in (self._root / "versions").iterdir():
            if folder.is_dir() and folder.name not in wanted:
                shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._root.mkdir(parents=True, exist_ok=True)
        with (self._root / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def write_atomically(path: Path, text: str) -> None:
    """Replace a small file in one step: readers see the old text or the new one, also after a crash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, scratch = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(scratch, path)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise
