"""Which tensors belong to which layer, told from their names: any transformer with numbered blocks."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from merge_backends.errors import IncompatibleError

_NUMBERED = re.compile(r"(?:^|\.)(?:layers?|h|blocks?)\.(\d+)\.")
DEPTH_KEYS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")


def layer_of(name: str) -> int | None:
    """Number of the block that a tensor belongs to; None for embeddings, final norms and heads."""
    found = _NUMBERED.search(name)
    return int(found.group(1)) if found else None


def renumber(name: str, layer: int) -> str:
    """The same tensor in another block."""
    found = _NUMBERED.search(name)
    if found is None:
        raise ValueError(f"{name!r} belongs to no layer")
    return f"{name[: found.start(1)]}{layer}{name[found.end(1) :]}"


def depth(names: Iterable[str]) -> int:
    """How many blocks there are: the highest number plus one."""
    return max((layer + 1 for layer in map(layer_of, names) if layer is not None), default=0)


def with_depth(config: dict[str, Any], layers: int) -> dict[str, Any]:
    """A copy of a model's config for another number of blocks; per-layer lists are refused, not guessed.

    Raises:
        IncompatibleError: if the config does not say how many blocks there are, or lists facts per block.
    """
    keys = [key for key in DEPTH_KEYS if key in config]
    if not keys:
        raise IncompatibleError("The config of the base does not say how many layers the model has.")
    old = config[keys[0]]
    changed = {**config, **dict.fromkeys(keys, layers)}
    for key, value in config.items():
        if old != layers and isinstance(value, list) and len(value) == old and key != "architectures":
            if len(set(map(str, value))) != 1:
                raise IncompatibleError(f"The config lists {key!r} per layer, so its layers cannot be stacked freely.")
            changed[key] = [value[0]] * layers
    return changed
