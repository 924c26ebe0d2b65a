"""Tasks of the merging study: one Parquet file per task (text, label, split), tokenised once, cut to a stated size."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow.parquet as parquet
import torch
from tokenizers import Tokenizer

from merge_backends.errors import MergeError, UnknownNameError

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
# Rows per task, at most, that are read for routers beyond the experts' own.
UNSEEN_ROWS = 1024


@dataclass(frozen=True)
class Rows:
    """Token ids and labels of some texts of one task."""

    tokens: tuple[tuple[int, ...], ...]
    labels: torch.Tensor
    """`(rows,)` int64."""

    def __len__(self) -> int:
        return len(self.tokens)

    def take(self, count: int) -> Rows:
        """The first `count` rows."""
        return Rows(self.tokens[:count], self.labels[:count])

    def drop(self, count: int) -> Rows:
        """All rows but the first `count`."""
        return Rows(self.tokens[count:], self.labels[count:])


@dataclass(frozen=True)
class StudyTask:
    """One classification task with its three splits.

    Attributes:
        unseen: rows of the train split behind those in `train`, so that no expert was trained on them.
    """

    name: str
    classes: int
    train: Rows
    validation: Rows
    test: Rows
    unseen: Rows = Rows((), torch.zeros(0, dtype=torch.int64))

    def digest(self) -> str:
        """Content hash of the rows used, labels included."""
        digest = hashlib.sha256(f"{self.name}:{self.classes}".encode())
        for rows in (self.train, self.validation, self.test):
            for tokens, label in zip(rows.tokens, rows.labels.tolist(), strict=True):
                digest.update(np.asarray((*tokens, -1, label), dtype=np.int32).tobytes())
            digest.update(b"|")
        return digest.hexdigest()


@dataclass(frozen=True)
class Sizes:
    """Rows of each split that a study uses at most; texts are cut to `tokens` tokens."""

    train: int = 2000
    validation: int = 300
    test: int = 1000
    tokens: int = 64


@dataclass(frozen=True)
class Batch:
    """Texts of similar length, padded to the longest of them.

    Attributes:
        inputs: `(rows, length)` int64 token ids, 0 where padded.
        mask: `(rows, length)` int64, 1 for a token and 0 for padding.
        index: `(rows,)` positions in the rows that the batch was cut from.
    """

    inputs: torch.Tensor
    mask: torch.Tensor
    index: torch.Tensor


def load_tasks(folder: Path, names: Sequence[str], tokenizer: Tokenizer, sizes: Sizes, *, seed: int) -> list[StudyTask]:
    """Reads the tasks; `seed` draws the train rows, validation and test are the first rows of their split.

    Raises:
        UnknownNameError: no Parquet file of that name.
        MergeError: a column or a split is missing.
    """
    known = sorted(path.stem for path in folder.glob("*.parquet"))
    tasks = []
    for name in names:
        if name not in known:
            raise UnknownNameError("task", name, known)
        tasks.append(_load(folder / f"{name}.parquet", tokenizer, sizes, seed))
    return tasks


def _load(path: Path, tokenizer: Tokenizer, sizes: Sizes, seed: int) -> StudyTask:
    table = parquet.read_table(path)
    missing = {"text", "label", "split"} - set(table.column_names)
    if missing:
        raise MergeError(f"{path.name} has no column {sorted(missing)}.", "A task needs text, label and split.")
    texts = table["text"].to_pylist()
    labels = np.asarray(table["label"].to_pylist(), dtype=np.int64)
    splits = np.asarray(table["split"].to_pylist())
    parts: dict[str, Rows] = {}
    for split, limit in zip(SPLITS, (sizes.train, sizes.validation, sizes.test), strict=True):
        index = np.flatnonzero(splits == split)
        if not len(index):
            raise MergeError(f"{path.name} has no rows of split {split!r}.", f"Splits are {', '.join(SPLITS)}.")
        if split == "train":
            index = np.random.default_rng(seed).permutation(index)
        beyond = UNSEEN_ROWS if split == "train" else 0
        index = index[: limit + beyond]
        encoded = tokenizer.encode_batch([str(texts[i]) for i in index])
        tokens = tuple(_cut(entry.ids, sizes.tokens) for entry in encoded)
        parts[split] = Rows(tokens, torch.from_numpy(labels[index]))
    train, unseen = parts["train"].take(sizes.train), parts["train"].drop(sizes.train)
    return StudyTask(path.stem, int(labels.max()) + 1, train, parts["validation"], parts["test"], unseen)


def _cut(ids: Sequence[int], limit: int) -> tuple[int, ...]:
    """The first tokens and the closing one, as the tokenizer itself would cut."""
    return tuple(ids) if len(ids) <= limit else (*ids[: limit - 1], ids[-1])


def load_tokenizer(folder: Path) -> Tokenizer:
    """The model's tokenizer without padding or truncation: batches pad for themselves."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def batches(rows: Rows, size: int, *, generator: torch.Generator | None = None) -> Iterator[Batch]:
    """Length-bucketed batches over all rows; with a generator in random order, otherwise from short to long.

    Shuffled batches are cut from windows of 32 batches sorted by length, so that padding stays small and the
    composition of a batch still changes from epoch to epoch.
    """
    lengths = np.asarray([len(tokens) for tokens in rows.tokens])
    if generator is None:
        order = np.argsort(lengths, kind="stable")
        groups = [order[start : start + size] for start in range(0, len(order), size)]
    else:
        order = torch.randperm(len(rows), generator=generator).numpy()
        window = 32 * size
        groups = []
        for start in range(0, len(order), window):
            part = order[start : start + window]
            part = part[np.argsort(lengths[part], kind="stable")]
            groups.extend(part[at : at + size] for at in range(0, len(part), size))
        groups = [groups[i] for i in torch.randperm(len(groups), generator=generator).tolist()]
    for group in groups:
        yield pad([rows.tokens[i] for i in group], index=torch.from_numpy(np.array(group)))


def pad(tokens: Sequence[Sequence[int]], *, index: torch.Tensor | None = None) -> Batch:
    """One batch of these texts, padded to the longest."""
    length = max(map(len, tokens))
    inputs = torch.zeros(len(tokens), length, dtype=torch.int64)
    mask = torch.zeros_like(inputs)
    for row, ids in enumerate(tokens):
        inputs[row, : len(ids)] = torch.tensor(ids)
        mask[row, : len(ids)] = 1
    return Batch(inputs, mask, torch.arange(len(tokens)) if index is None else index)
