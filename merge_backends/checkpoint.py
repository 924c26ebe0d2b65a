"""A model on disk as a mapping of tensors: config.json plus safetensors shards, each tensor read when asked for."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from merge_backends import digests
from merge_backends.errors import CheckpointError, UnknownNameError

if TYPE_CHECKING:
    import torch

INDEX = "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
DTYPE_BYTES = {
    **dict.fromkeys(("F64", "I64", "U64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "I8", "U8", "BOOL"), 1),
}
TORCH_NAMES = {
    **{"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "BOOL": "bool"},
    **{"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "U8": "uint8", "I8": "int8"},
    **{"I16": "int16", "I32": "int32", "I64": "int64", "U16": "uint16", "U32": "uint32", "U64": "uint64"},
}
_HEADER_LIMIT = 100 * 2**20


class Entry(NamedTuple):
    """Where one tensor lies: its file, its dtype as safetensors names it, its shape."""

    file: Path
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * DTYPE_BYTES[self.dtype]


@dataclass(slots=True, eq=False)
class Checkpoint(Mapping[str, "torch.Tensor"]):
    """A folder with config.json and safetensors files; at most the tensors that the caller holds are in memory.

    Each tensor is checked for NaN and infinity when it is first read. Not thread-safe: open one per thread.
    """

    path: Path
    config: dict[str, Any]
    entries: dict[str, Entry]
    _handles: dict[Path, Any]
    _finite: set[str]

    @classmethod
    def open(cls, path: str | Path, *, allowed: Sequence[Path] | None = None) -> Checkpoint:
        """Reads config and shard headers, no tensor.

        Args:
            path: the folder.
            allowed: folders that it must lie in, once symbolic links are followed; None allows all.

        Raises:
            CheckpointError: not a checkpoint, pickle only, broken, a shard missing, or outside `allowed`.
        """
        folder = inside(Path(path), allowed)
        config = _read_config(folder)
        entries: dict[str, Entry] = {}
        for file in _weight_files(folder):
            inside(file, [folder, *allowed] if allowed is not None else None)
            for name, found in read_header(file).items():
                if name in entries:
                    raise CheckpointError(f"The tensor {name!r} is in two files of {folder}.", "Save the model again.")
                entries[name] = found
        _check_index(folder, entries)
        return cls(folder, config, entries, {}, set())

    @property
    def architecture(self) -> str:
        """The class named in the config, else its model type."""
        named = self.config.get("architectures") or [self.config.get("model_type", "")]
        return str(named[0])

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(found.nbytes for found in self.entries.values())

    @property
    def digest(self) -> str:
        """SHA-256 over names, dtypes, shapes and contents; independent of sharding. Reads everything once.

        Kept for the life of the process while size and time of the files do not change.
        """
        key = digests.stamp({found.file for found in self.entries.values()})
        known = digests.remembered(key)
        if known is None:
            known = digests.combine((name, digests.tensor_digest(name, self[name])) for name in self.entries)
            digests.remember(key, known)
        return known

    @property
    def tokenizer_digest(self) -> str | None:
        """Hash of what the tokenizer does; None where the folder has none."""
        return digests.of_tokenizer(self.path)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, from the header."""
        return self._entry(name).shape

    def dtype(self, name: str) -> torch.dtype:
        """Dtype of a tensor, from the header."""
        import torch

        found: torch.dtype = getattr(torch, TORCH_NAMES[self._entry(name).dtype])
        return found

    def __getitem__(self, name: str) -> torch.Tensor:
        found = self._entry(name)
        tensor: torch.Tensor = self._handle(found.file).get_tensor(name)
        if name not in self._finite:
            if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                raise CheckpointError(
                    f"The tensor {name!r} of {self.path} holds NaN or infinity.", "Use an intact copy of the model."
                )
            self._finite.add(name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __contains__(self, name: object) -> bool:
        return name in self.entries

    def _entry(self, name: str) -> Entry:
        if name not in self.entries:
            raise UnknownTensorError(name, self)
        return self.entries[name]

    def _handle(self, file: Path) -> Any:
        if file not in self._handles:
            from safetensors import safe_open

            self._handles[file] = safe_open(str(file), framework="pt")
        return self._handles[file]


class UnknownTensorError(UnknownNameError, KeyError):
    """The checkpoint has no tensor of this name. Also a KeyError, as a mapping's must be."""

    def __init__(self, name: str, checkpoint: Checkpoint) -> None:
        near_first = sorted(checkpoint.entries, key=lambda known: known.split(".")[-1] != name.split(".")[-1])
        super().__init__(f"tensor of {checkpoint.path.name}", name, near_first[:50])


def inside(path: Path, allowed: Sequence[Path] | None) -> Path:
    """The path with links followed.

    Raises:
        CheckpointError: if it does not exist or lies in none of `allowed` (None allows all).
    """
    try:
        resolved = path.expanduser().resolve(strict=True)
    except (OSError, RuntimeError):
        raise CheckpointError(f"There is no model at {str(path)!r}.", "Give the folder of a saved model.") from None
    if allowed is not None and not any(resolved.is_relative_to(folder.expanduser().resolve()) for folder in allowed):
        raise CheckpointError(
            f"The path {str(path)!r} lies outside the allowed folders.",
            f"Move the model into one of: {', '.join(str(folder) for folder in allowed) or 'none is allowed'}.",
        )
    return resolved


def read_header(file: Path) -> dict[str, Entry]:
    """Names, dtypes and shapes in one safetensors file.

    Raises:
        CheckpointError: if the file is cut short or is not safetensors.
    """
    broken = CheckpointError(f"The file {str(file)!r} is broken or not safetensors.", "Copy it again.")
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 2 <= length <= min(size - 8, _HEADER_LIMIT):
                raise broken
            header = json.loads(stream.read(length))
        entries = {
            name: Entry(file, str(found["dtype"]), tuple(int(edge) for edge in found["shape"]))
            for name, found in header.items()
            if name != "__metadata__"
        }
        spans = {name: header[name]["data_offsets"] for name in entries}
        fits = all(end - start == entries[name].nbytes for name, (start, end) in spans.items())
        if not fits or size != 8 + length + sum(found.nbytes for found in entries.values()):
            raise broken
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise broken from error
    return entries


def _read_config(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{str(folder)!r} has no config.json.", "Give the folder of a saved model.") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{str(file)!r} cannot be read: {error}.", "Save the model again.") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{str(file)!r} is not a JSON object.", "Save the model again.")
    return config


def _read_index(folder: Path) -> dict[str, str] | None:
    file = folder / INDEX
    if not file.is_file():
        return None
    try:
        weight_map = json.loads(file.read_text(encoding="utf-8"))["weight_map"]
        return {str(name): str(shard) for name, shard in weight_map.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"The index {str(file)!r} cannot be read.", "Save the model again.") from error


def _weight_files(folder: Path) -> list[Path]:
    index = _read_index(folder)
    if index is not None:
        shards = sorted(set(index.values()))
        missing = [shard for shard in shards if not (folder / shard).is_file()]
        if missing:
            raise CheckpointError(
                f"{str(folder)!r} lacks the shard {missing[0]!r} ({len(missing)} of {len(shards)} are missing).",
                "Copy the whole folder.",
            )
        return [folder / shard for shard in shards]
    found = sorted(folder.glob("*.safetensors"))
    if (folder / "model.safetensors") in found:
        return [folder / "model.safetensors"]
    if len(found) == 1:
        return found
    if found:
        raise CheckpointError(f"{str(folder)!r} has {len(found)} safetensors files and no index.", f"Add {INDEX}.")
    pickles = [file.name for pattern in PICKLES for file in folder.glob(pattern)]
    if pickles:
        raise CheckpointError(
            f"{str(folder)!r} holds pickled weights only ({pickles[0]!r}), which can run code when loaded.",
            "Save the model as safetensors: model.save_pretrained(folder).",
        )
    raise CheckpointError(f"{str(folder)!r} has no safetensors file.", "Give the folder of a saved model.")


def _check_index(folder: Path, entries: Mapping[str, Entry]) -> None:
    index = _read_index(folder)
    for name, shard in (index or {}).items():
        if name not in entries or entries[name].file.name != Path(shard).name:
            raise CheckpointError(
                f"The index of {str(folder)!r} names {name!r} in {shard!r}, which has no such tensor."
            )
