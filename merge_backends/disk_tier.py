"""Merges on disk: a folder per recipe hash, complete or absent, the longest unused dropped first."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch

from merge_backends.checkpoint import Checkpoint
from merge_backends.errors import BuildError, CheckpointError
from merge_backends.overlay import nbytes
from merge_backends.writer import CheckpointWriter, sweep

MANIFEST = "manifest.json"


class DiskTier:
    """Tensors by recipe hash in `folder`, up to `budget` bytes."""

    def __init__(self, folder: Path, budget: int) -> None:
        self.folder = folder
        self.budget = budget
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)

    def load(self, key: str) -> Mapping[str, torch.Tensor] | None:
        """The tensors in memory, or None; what cannot be read is removed."""
        place = self._place(key)
        if not place.is_dir():
            return None
        try:
            found = dict(Checkpoint.open(place))
            os.utime(place)
        except (CheckpointError, OSError):
            shutil.rmtree(place, ignore_errors=True)
            return None
        return found

    def save(self, key: str, value: Mapping[str, torch.Tensor]) -> None:
        """Writes the tensors; a full disk or a value over the budget only means that they are not kept."""
        place, size = self._place(key), nbytes(value)
        if place.exists() or size > self.budget or not value:
            return
        self._make_room(size)
        layout = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in value.items()}
        try:
            with CheckpointWriter(place, layout) as writer:
                for name, tensor in value.items():
                    writer.add(name, tensor)
                writer.finish({"config.json": "{}", MANIFEST: json.dumps({"key": key, "bytes": size})}, last=MANIFEST)
        except BuildError:
            return

    def _place(self, key: str) -> Path:
        return self.folder / key.replace(":", "-").replace("/", "-")

    def _make_room(self, needed: int) -> None:
        kept = [place for place in self.folder.iterdir() if (place / MANIFEST).is_file()]
        sizes = {place: sum(file.stat().st_size for file in place.iterdir()) for place in kept}
        total = sum(sizes.values())
        for place in sorted(kept, key=lambda place: place.stat().st_mtime):
            if total + needed <= self.budget:
                break
            shutil.rmtree(place, ignore_errors=True)
            total -= sizes[place]
