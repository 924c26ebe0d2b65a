"""Writes a checkpoint so that it is either complete or not there: shards in a hidden folder, then one rename."""

from __future__ import annotations

import json
import math
import os
import shutil
import struct
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from merge_backends.checkpoint import INDEX, TORCH_NAMES
from merge_backends.errors import BuildError

if TYPE_CHECKING:
    import torch

SHARD_BYTES = 4 * 2**30
_SAFETENSORS_NAMES = {name: code for code, name in TORCH_NAMES.items()}


class CheckpointWriter:
    """Use as a context manager; `add` tensors, then `finish`. Whatever ends it before leaves nothing loadable.

    Each tensor goes to disk when it is added, to the place that the shard's header reserves for it from `layout`.
    """

    def __init__(
        self, target: Path, layout: Mapping[str, tuple[torch.dtype, tuple[int, ...]]], *, shard_bytes: int = SHARD_BYTES
    ) -> None:
        """Args:
        target: the folder to make; must not exist, its parent must.
        layout: dtype and shape of every tensor to come, in any order.
        shard_bytes: a shard is closed before it would grow beyond this.
        """
        self.target = target
        self._layout = dict(layout)
        self._shards = plan_shards(self._layout, shard_bytes)
        self._number = {name: number for number, shard in enumerate(self._shards) for name in shard}
        self._missing = [set(shard) for shard in self._shards]
        self._folder: Path | None = None
        self._open: dict[int, tuple[BinaryIO, dict[str, int]]] = {}

    def __enter__(self) -> Self:
        if self.target.exists():
            raise BuildError(f"{str(self.target)!r} exists already.", "Choose another folder, or remove it first.")
        with _disk_errors(self.target):
            self.target.parent.mkdir(parents=True, exist_ok=True)
            self._folder = Path(
                tempfile.mkdtemp(prefix=f".{self.target.name}.", suffix=".part", dir=self.target.parent)
            )
        return self

    @property
    def folder(self) -> Path:
        """Where the files are until `finish`: for configs, tokenizers and the like."""
        assert self._folder is not None
        return self._folder

    def add(self, name: str, tensor: torch.Tensor) -> None:
        """Writes one tensor of the layout.

        Raises:
            BuildError: it was not announced like this, or the disk is full or cannot be written.
        """
        dtype, shape = self._layout.get(name, (None, ()))
        if (tensor.dtype, tuple(tensor.shape)) != (dtype, tuple(shape)):
            raise BuildError(f"The tensor {name!r} {tuple(tensor.shape)} {tensor.dtype} was not announced like this.")
        number = self._number[name]
        with _disk_errors(self.target):
            stream, starts = self._open.get(number) or self._start(number)
            if tensor.numel():
                import torch

                flat = tensor.detach().to("cpu").contiguous().reshape(-1).view(torch.uint8)
                stream.seek(starts[name])
                stream.write(memoryview(flat.numpy()))
            self._missing[number].discard(name)
            if not self._missing[number]:
                _close(self._open.pop(number)[0])

    def _start(self, number: int) -> tuple[BinaryIO, dict[str, int]]:
        stream = (self.folder / self._file(number)).open("xb")
        head, starts = header_bytes({key: self._layout[key] for key in self._shards[number]})
        self._open[number] = (stream, starts)
        stream.write(head)
        return self._open[number]

    def finish(self, files: Mapping[str, str], copies: Mapping[str, Path] | Iterable[Path] = (), *, last: str) -> None:
        """Writes text files, copies others, writes the file named `last` last, and makes the folder appear.

        Args:
            files: text by file name; must hold `last`.
            copies: files to copy as they are; a mapping gives them their names in the folder.

        Raises:
            BuildError: tensors are missing, the disk is full, or somebody else made the target meanwhile.
        """
        missing = sorted(name for names in self._missing for name in names)
        if missing:
            raise BuildError(f"{len(missing)} tensors were never written, {missing[0]!r} first.")
        with _disk_errors(self.target):
            taken = copies if isinstance(copies, Mapping) else {source.name: source for source in copies}
            for name, source in taken.items():
                (self.folder / name).parent.mkdir(exist_ok=True)
                _write(self.folder / name, source.read_bytes())
            if len(self._shards) > 1:
                _write(self.folder / INDEX, self._index().encode())
            for name in sorted(files, key=lambda name: name == last):
                _write(self.folder / name, files[name].encode())
            _sync_folder(self.folder)
            self.folder.chmod(0o755)
            if self.target.exists():
                raise BuildError(f"{str(self.target)!r} was made by another build meanwhile.", "Use that one.")
            self.folder.rename(self.target)
            _sync_folder(self.target.parent)
        self._folder = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for stream, _ in self._open.values():
            with suppress(OSError):
                stream.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _file(self, number: int) -> str:
        count = len(self._shards)
        return "model.safetensors" if count == 1 else f"model-{number + 1:05d}-of-{count:05d}.safetensors"

    def _index(self) -> str:
        weight_map = {name: self._file(number) for number, shard in enumerate(self._shards) for name in shard}
        size = sum(_nbytes(*facts) for facts in self._layout.values())
        return json.dumps({"metadata": {"total_size": size}, "weight_map": weight_map}, indent=1)


def plan_shards(layout: Mapping[str, tuple[torch.dtype, tuple[int, ...]]], shard_bytes: int) -> list[list[str]]:
    """Names per shard, in order; at least one shard, each with at least one tensor."""
    shards: list[list[str]] = [[]]
    size = 0
    for name, facts in layout.items():
        if shards[-1] and size + _nbytes(*facts) > shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += _nbytes(*facts)
    return shards


def header_bytes(layout: Mapping[str, tuple[torch.dtype, tuple[int, ...]]]) -> tuple[bytes, dict[str, int]]:
    """The head of a safetensors file, and where each tensor starts, counted from the file's begin.

    Wider dtypes come first, so that every tensor is aligned to its own width.
    Ref: the safetensors format, 8 bytes of length, then JSON, padded with blanks to a multiple of 8.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    starts: dict[str, int] = {}
    offset = 0
    for name, (dtype, shape) in sorted(layout.items(), key=lambda item: -int(item[1][0].itemsize)):
        end = offset + _nbytes(dtype, shape)
        code = _SAFETENSORS_NAMES[str(dtype).removeprefix("torch.")]
        header[name] = {"dtype": code, "shape": list(shape), "data_offsets": [offset, end]}
        starts[name] = offset
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text, {name: start + 8 + len(text) for name, start in starts.items()}


def sweep(folder: Path) -> int:
    """Removes the leftovers of builds whose process is gone (`.NAME.*.part` older than a day); how many."""
    stale = [left for left in folder.glob(".*.part") if time.time() - left.stat().st_mtime > 86_400]
    for left in stale:
        shutil.rmtree(left, ignore_errors=True)
    return len(stale)


@contextmanager
def _disk_errors(target: Path) -> Iterator[None]:
    """Turns what the system says of the disk into a BuildError."""
    try:
        yield
    except OSError as error:
        raise BuildError(
            f"{str(target)!r} cannot be written: {error.strerror or error}.",
            "Free disk space or choose another folder; nothing was left behind.",
        ) from error


def _nbytes(dtype: torch.dtype, shape: tuple[int, ...]) -> int:
    return math.prod(shape) * int(dtype.itemsize)


def _write(path: Path, content: bytes) -> None:
    with path.open("xb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _close(stream: BinaryIO) -> None:
    with stream:
        stream.flush()
        os.fsync(stream.fileno())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
