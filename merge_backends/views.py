"""Models as a merge sees them: tensors under the names of the result, in the dtype of the computation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from merge_backends.checkpoint import TORCH_NAMES
from merge_backends.sources import OpenModel

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class View(Mapping[str, "torch.Tensor"]):
    """Part of a model. `origin` gives for each name of the result the tensor's name in the model."""

    model: OpenModel
    origin: Mapping[str, str]
    dtype: str | None = None
    device: str = "cpu"

    def __getitem__(self, name: str) -> torch.Tensor:
        tensor = self.model.weights[self.origin[name]].to(self.device)
        return tensor if self.dtype is None or not tensor.is_floating_point() else tensor.to(self._torch_dtype())

    def __iter__(self) -> Iterator[str]:
        return iter(self.origin)

    def __len__(self) -> int:
        return len(self.origin)

    def facts(self, name: str) -> tuple[str, tuple[int, ...]]:
        """Dtype (torch's word) and shape, from the file's header, after the cast."""
        entry = self.model.checkpoint.entries[self.origin[name]]
        own = TORCH_NAMES[entry.dtype]
        return (self.dtype if self.dtype and "float" in own else own), entry.shape

    def _torch_dtype(self) -> torch.dtype:
        import torch

        found: torch.dtype = getattr(torch, str(self.dtype))
        return found
