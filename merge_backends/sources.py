"""The models that a recipe names, opened: weights, config, content hash and licence of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from merge_backends import digests
from merge_backends.checkpoint import Checkpoint, inside
from merge_backends.licences import combine, read_licence
from merge_backends.recipe import ModelReference

if TYPE_CHECKING:
    from merge_backends.methods.base import Weights


@dataclass(frozen=True, eq=False)
class OpenModel:
    """One input of a merge. `weights` hold the LoRA already where the reference names one."""

    reference: ModelReference
    checkpoint: Checkpoint
    weights: Weights
    lora: Path | None = None

    @cached_property
    def digest(self) -> str:
        """Hash of the content: of the model, and of the adapter's files where there is one."""
        if self.lora is None:
            return self.checkpoint.digest
        return digests.of_value([self.checkpoint.digest, digests.of_files(sorted(self.lora.glob("adapter_*")))])

    @cached_property
    def licence(self) -> str:
        """The more restrictive one of model and adapter."""
        own = read_licence(self.checkpoint.path)
        return own if self.lora is None else combine([own, read_licence(self.lora)]).licence

    @property
    def name(self) -> str:
        """The folder's name: what lineage and messages call it."""
        return self.checkpoint.path.name + (f"+{self.lora.name}" if self.lora else "")


def open_model(
    reference: ModelReference,
    *,
    root: Path,
    allowed: Sequence[Path] | None,
    built: Mapping[str, Path] | None = None,
) -> OpenModel:
    """Opens what a reference names.

    Args:
        root: the folder that relative paths start from: the recipe's.
        allowed: folders that models must lie in; None allows all.
        built: folders of earlier documents by name.

    Raises:
        CheckpointError: see `Checkpoint.open`.
        IncompatibleError: the LoRA does not fit the model.
    """
    if built and reference.path in built:
        folder: Path = built[reference.path]
        checkpoint = Checkpoint.open(folder)
    else:
        checkpoint = Checkpoint.open(located(reference.path, root), allowed=allowed)
    if reference.lora is None:
        return OpenModel(reference, checkpoint, checkpoint)
    from merge_backends.adapters import AdaptedWeights, LoraAdapter

    lora = inside(located(reference.lora, root), allowed)
    adapter = LoraAdapter.open(lora, allowed=allowed)
    return OpenModel(reference, checkpoint, AdaptedWeights(checkpoint, adapter), lora)


def adapter_only(model: OpenModel) -> OpenModel:
    """The same input, but its weights are the adapter's changes: what the method `lora` sums."""
    from merge_backends.adapters import AdaptedWeights

    assert isinstance(model.weights, AdaptedWeights)
    return replace(model, weights=model.weights.adapter)


def located(path: str, root: Path) -> Path:
    """The path from the recipe's folder, unless it is absolute or starts at home."""
    given = Path(path).expanduser()
    return given if given.is_absolute() else root / given
