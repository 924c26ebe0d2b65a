"""A transformers model of a checkpoint's class: empty, or filled with weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from merge_backends.checkpoint import Checkpoint
from merge_backends.errors import CheckpointError

if TYPE_CHECKING:
    from torch import nn


def empty_model(checkpoint: Checkpoint) -> nn.Module:
    """A model of the class that the config names, in evaluation mode, with arbitrary weights.

    Raises:
        CheckpointError: transformers has no such class; code inside the folder is never run.
    """
    import transformers

    config = transformers.AutoConfig.from_pretrained(str(checkpoint.path), local_files_only=True)
    named = checkpoint.config.get("architectures") or []
    made: Any = getattr(transformers, str(named[0]), None) if named else None
    try:
        model: nn.Module = made(config) if made is not None else transformers.AutoModel.from_config(config)
    except ValueError as error:
        raise CheckpointError(
            f"transformers knows no model for {str(checkpoint.path)!r}: {error}.", "Use a model that it has built in."
        ) from error
    return model.eval()
