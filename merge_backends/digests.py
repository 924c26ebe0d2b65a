"""Content hashes: of tensors, of whole checkpoints, of tokenizers. Same weights, same hash, wherever they lie."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

TOKENIZER_FILES = (
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
)
Stamp = tuple[tuple[str, int, int], ...]
"""(path, size, mtime in ns) of every weight file: what a remembered digest is good for."""

_remembered: dict[Stamp, str] = {}
_lock = Lock()


def stamp(files: Iterable[Path]) -> Stamp:
    """What tells that the files have not been written since."""
    found = sorted(files)
    return tuple((str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in found)


def remembered(key: Stamp) -> str | None:
    """The digest that was computed for files with this stamp in this process, if any."""
    with _lock:
        return _remembered.get(key)


def remember(key: Stamp, digest: str) -> None:
    """Keeps a digest for the life of the process."""
    with _lock:
        _remembered[key] = digest


def tensor_digest(name: str, tensor: torch.Tensor) -> bytes:
    """SHA-256 over name, dtype, shape and bytes of one tensor."""
    import torch

    head = f"{name}\0{str(tensor.dtype).removeprefix('torch.')}\0{tuple(tensor.shape)}\0"
    state = hashlib.sha256(head.encode())
    flat = tensor.detach().to("cpu").contiguous().reshape(-1)
    if flat.numel():
        state.update(memoryview(flat.view(torch.uint8).numpy()))
    return state.digest()


def combine(parts: Iterable[tuple[str, bytes]]) -> str:
    """One hash of many tensors; the order in which they come does not matter."""
    state = hashlib.sha256()
    for _, digest in sorted(parts):
        state.update(digest)
    return "sha256:" + state.hexdigest()


def canonical(value: Any) -> str:
    """JSON with sorted keys and no blanks: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def of_value(value: Any) -> str:
    """Hash of a JSON value."""
    return "sha256:" + hashlib.sha256(canonical(value).encode()).hexdigest()


def of_files(files: Iterable[Path]) -> str:
    """Hash of names and contents of small files."""
    state = hashlib.sha256()
    for file in files:
        content = file.read_bytes()
        state.update(f"{file.name}\0{len(content)}\0".encode() + content)
    return "sha256:" + state.hexdigest()


def of_tokenizer(folder: Path) -> str | None:
    """Hash of what the tokenizer does; padding and truncation settings do not count. None where there is none."""
    file = folder / "tokenizer.json"
    if file.is_file():
        content = json.loads(file.read_text(encoding="utf-8"))
        return of_value({key: value for key, value in content.items() if key not in ("truncation", "padding")})
    state = hashlib.sha256()
    found = [folder / name for name in TOKENIZER_FILES if (folder / name).is_file()]
    for file in found:
        state.update(file.name.encode() + b"\0" + file.read_bytes())
    return "sha256:" + state.hexdigest() if found else None
