"""The container of a trained encoder: a folder with `manifest.json` and plain files (.npz, .json, .onnx), no pickle.

Written in one step (a sibling folder, then a rename) and bit for bit the same for the same content: no times inside.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

FORMAT = 1
"""Version of the container's layout. A reader refuses every other one."""
MANIFEST = "manifest.json"
SHIPPED = Path(__file__).parent / "artifacts" / "default"
"""Where the artefact that comes with the package lives."""

Arrays = Mapping[str, npt.NDArray[Any]]


class ArtifactError(ValueError):
    """An artefact is missing, corrupt, of another format or made for another embedder; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an artefact is and where it comes from.

    Attributes:
        kind: what reads it, as `capability-scorer`.
        embedder: fingerprint of the embedder that made its vectors (`PromptEmbedder.fingerprint`).
        files: file name -> sha256.
        seed, command: what reproduces it.
        data: names of the data it was fitted on, with their hashes or counts.
        metrics: headline figures, with how they were measured.
        licences: name of a part or data source -> its licence.
        settings: whatever the reader needs beside the arrays (plain JSON values).
        format: container format.
    """

    kind: str
    embedder: str
    files: Mapping[str, str]
    seed: int | None = None
    command: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    licences: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    format: int = FORMAT


@dataclass(frozen=True)
class Artifact:
    """An opened artefact: every file present and equal to its recorded hash."""

    folder: Path
    manifest: Manifest

    @cached_property
    def version(self) -> str:
        """Twelve characters that change whenever any file or any line of the manifest changes."""
        return hashlib.sha256((self.folder / MANIFEST).read_bytes()).hexdigest()[:12]

    def arrays(self, name: str) -> dict[str, npt.NDArray[Any]]:
        """All arrays of the file `<name>.npz`, in memory."""
        path = self._path(f"{name}.npz")
        try:
            with np.load(path, allow_pickle=False) as stored:
                return {key: stored[key] for key in stored.files}
        except (ValueError, OSError, zipfile.BadZipFile) as error:
            raise ArtifactError(
                f"{str(path)!r} cannot be read ({error}); restore the artefact or train it again"
            ) from error

    def record(self, name: str) -> Any:
        """The JSON value of the file `<name>.json`."""
        return json.loads(self._path(f"{name}.json").read_text(encoding="utf-8"))

    def path(self, name: str) -> Path:
        """Where a file of the artefact lies, for readers that open it themselves (.onnx)."""
        return self._path(name)

    def _path(self, name: str) -> Path:
        if name not in self.manifest.files:
            raise ArtifactError(f"the artefact {str(self.folder)!r} holds no {name!r}; it was made by another version")
        return self.folder / name


def open_artifact(folder: Path | str, *, kind: str | None = None, embedder: str | None = None) -> Artifact:
    """Open and check an artefact.

    Args:
        kind: refuse an artefact of another kind.
        embedder: fingerprint of the embedder at hand; an artefact whose vectors came from another one is refused.
    Raises:
        ArtifactError: missing, corrupt, another format, kind or embedder; the message says what would fix it.
    """
    folder = Path(folder)
    manifest = _read_manifest(folder)
    if kind is not None and manifest.kind != kind:
        raise ArtifactError(f"{str(folder)!r} is a {manifest.kind!r}, expected a {kind!r}; give another folder")
    for name, expected in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise ArtifactError(f"{str(path)!r} is missing; restore the artefact or run `orbweaver encoder train`")
        if file_hash(path) != expected:
            raise ArtifactError(
                f"{str(path)!r} is corrupt: it differs from the sha256 in {MANIFEST}; "
                "restore the artefact or run `orbweaver encoder train`"
            )
    if embedder is not None and manifest.embedder != embedder:
        raise ArtifactError(
            f"{str(folder)!r} was made with embedder {manifest.embedder!r}, this installation has {embedder!r}: "
            "its scores would be meaningless; train it again or install the version it was made with"
        )
    return Artifact(folder, manifest)


def write_artifact(
    folder: Path | str,
    manifest: Manifest,
    *,
    arrays: Mapping[str, Arrays] | None = None,
    records: Mapping[str, Any] | None = None,
    files: Mapping[str, Path] | None = None,
) -> Artifact:
    """Write a whole artefact, replacing what stood at `folder` only once all is on disk.

    Args:
        manifest: its `files` are filled in here.
        arrays: `name -> arrays` become `<name>.npz`.
        records: `name -> JSON value` become `<name>.json`.
        files: `file name -> source` are copied as they are.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for name, group in sorted((arrays or {}).items()):
            write_arrays(scratch / f"{name}.npz", group)
        for name, value in sorted((records or {}).items()):
            (scratch / f"{name}.json").write_text(_to_json(value), encoding="utf-8")
        for name, source in (files or {}).items():
            shutil.copyfile(source, scratch / name)
        hashes = {path.name: file_hash(path) for path in sorted(scratch.iterdir())}
        stored = {**asdict(manifest), "files": hashes, "format": FORMAT}
        (scratch / MANIFEST).write_text(_to_json(stored), encoding="utf-8")
        scratch.chmod(0o755)
        _replace_folder(scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return open_artifact(folder)


def write_arrays(path: Path, arrays: Arrays) -> None:
    """A .npz whose bytes depend on the arrays alone (`numpy.savez` writes the time of day into it)."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name in sorted(arrays):
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(entry, "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, np.ascontiguousarray(arrays[name]), allow_pickle=False)


def file_hash(path: Path) -> str:
    """sha256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _read_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST
    if not path.is_file():
        raise ArtifactError(
            f"no encoder artefact at {str(folder)!r} ({MANIFEST} is missing); "
            "give the folder that `orbweaver encoder train --out` wrote"
        )
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ArtifactError(f"{str(path)!r} is corrupt: not JSON ({error}); restore the artefact") from error
    found = stored.get("format") if isinstance(stored, dict) else None
    if found != FORMAT:
        raise ArtifactError(
            f"{str(folder)!r} has artefact format {found!r}, this version reads {FORMAT}; "
            "train it again or install the version it was made with"
        )
    try:
        return Manifest(**stored)
    except TypeError as error:
        raise ArtifactError(
            f"{str(path)!r} has an unexpected field ({error}); it was made by another version"
        ) from error


def _replace_folder(new: Path, folder: Path) -> None:
    """Put `new` in the place of `folder`; an existing one is moved aside first and then removed."""
    if not folder.exists():
        os.replace(new, folder)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-old-", dir=folder.parent))
    os.replace(folder, aside / "old")
    os.replace(new, folder)
    shutil.rmtree(aside, ignore_errors=True)


def _to_json(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
