"""Which axes of which tensors carry the same units: what has to be permuted together for a network to stay itself."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from merge_backends.errors import IncompatibleError

STREAM = "stream"
HEADS = "heads"
INNER = "inner"
POOLED = "pooled"


class Space(NamedTuple):
    """One set of units: the residual stream (one for the whole network, so that permutations cancel along it), the
    attention heads or the inner units of one layer. `layer` is None where the whole network shares it."""

    kind: str
    layer: int | None = None


class Axis(NamedTuple):
    """One axis of a tensor.

    Args:
        kind: the units along it, None for an axis that stands for itself (vocabulary, positions, classes).
        reads: whether the tensor consumes the units (folding sums there) or makes them (folding averages).
        parts: equal segments stacked on the axis, 3 for a fused query-key-value projection.
    """

    kind: str | None
    reads: bool = False
    parts: int = 1


class Slot(NamedTuple):
    """The place of a tensor in any network of its family: its layer (None outside the layers) and its role there."""

    layer: int | None
    role: str


@dataclass(frozen=True)
class Layout:
    """A network's tensors by slot, the axes of each role, and how many units each kind of space has."""

    family: str
    layers: int
    names: Mapping[Slot, str]
    axes: Mapping[str, tuple[Axis, ...]]
    units: Mapping[str, int]

    def slots_of(self, space: Space) -> Iterator[tuple[Slot, int]]:
        """Every slot with an axis in the space, and which axis that is."""
        for slot in self.names:
            for number, axis in enumerate(self.axes[slot.role]):
                if axis.kind is not None and self.space(slot, axis) == space:
                    yield slot, number

    def space(self, slot: Slot, axis: Axis) -> Space:
        """The space of a unit axis."""
        assert axis.kind is not None
        return Space(axis.kind, slot.layer if axis.kind in (HEADS, INNER) else None)


_W, _B = r"\.weight$", r"\.bias$"
_NORM = r"(LayerNorm|ln_1|ln_2|ln_f|input_layernorm|post_attention_layernorm|norm)\.(weight|bias)$"
# A leading ~ marks an axis that reads its units, "3" three fused parts, "-" an axis that stands for itself.
_BERT = {
    r"embeddings\.(word|position|token_type)_embeddings" + _W: "- stream",
    r"attention\.self\.(query|key|value)" + _W: "heads ~stream",
    r"attention\.self\.(query|key|value)" + _B: "heads",
    r"attention\.output\.dense" + _W: "stream ~heads",
    r"intermediate\.dense" + _W: "inner ~stream",
    r"intermediate\.dense" + _B: "inner",
    r"(?<!attention\.)output\.dense" + _W: "stream ~inner",
    r"output\.dense" + _B: "stream",
    r"pooler\.dense" + _W: "pooled ~stream",
    r"pooler\.dense" + _B: "pooled",
    r"classifier" + _W: "- ~pooled",
    r"classifier" + _B: "-",
    _NORM: "stream",
}
_GPT2 = {
    r"(wte|wpe)" + _W: "- stream",
    r"attn\.c_attn" + _W: "~stream heads3",
    r"attn\.c_attn" + _B: "heads3",
    r"attn\.c_proj" + _W: "~heads stream",
    r"mlp\.c_fc" + _W: "~stream inner",
    r"mlp\.c_fc" + _B: "inner",
    r"mlp\.c_proj" + _W: "~inner stream",
    r"c_proj" + _B: "stream",
    r"lm_head" + _W: "- ~stream",
    _NORM: "stream",
}
_LLAMA = {
    r"embed_tokens" + _W: "- stream",
    r"self_attn\.(q|k|v)_proj" + _W: "heads ~stream",
    r"self_attn\.(q|k|v)_proj" + _B: "heads",
    r"self_attn\.o_proj" + _W: "stream ~heads",
    r"mlp\.(gate|up)_proj" + _W: "inner ~stream",
    r"mlp\.down_proj" + _W: "stream ~inner",
    r"lm_head" + _W: "- ~stream",
    _NORM: "stream",
}
_FAMILIES = {
    "bert": (_BERT, r"^(?:.*?\.)?encoder\.layer\.(\d+)\.(.+)$"),
    "gpt2": (_GPT2, r"^(?:.*?\.)?h\.(\d+)\.(.+)$"),
    "llama": (_LLAMA, r"^(?:.*?\.)?layers\.(\d+)\.(.+)$"),
    "qwen2": (_LLAMA, r"^(?:.*?\.)?layers\.(\d+)\.(.+)$"),
    "mistral": (_LLAMA, r"^(?:.*?\.)?layers\.(\d+)\.(.+)$"),
}


def layout_of(weights: Mapping[str, Tensor], config: Mapping[str, Any]) -> Layout:
    """The layout of a BERT-, GPT-2-, Llama-, Qwen2- or Mistral-shaped network.

    Args:
        config: of the checkpoint; `model_type` and the head counts are read.

    Raises:
        IncompatibleError: another family, or a tensor whose axes are not known (nothing is merged in part in silence).
    """
    family = str(config.get("model_type"))
    if family not in _FAMILIES:
        raise IncompatibleError(
            f"MAL does not know the layout of model_type {family!r}.", f"It knows {', '.join(sorted(_FAMILIES))}."
        )
    rules, layer_pattern = _FAMILIES[family]
    names: dict[Slot, str] = {}
    axes: dict[str, tuple[Axis, ...]] = {}
    units: dict[str, int] = {HEADS: _head_units(config)}
    for name in weights:
        slot = _slot(name, layer_pattern)
        found = next((spec for pattern, spec in rules.items() if re.search(pattern, name)), None)
        if found is None:
            raise IncompatibleError(f"MAL does not know the axes of {name!r} in a {family} network.")
        own = tuple(_axis(word) for word in found.split())
        shape = tuple(weights[name].shape)
        if len(own) != len(shape):
            raise IncompatibleError(f"{name!r} has shape {shape}; a {family} network has {len(own)} axes there.")
        for axis, size in zip(own, shape, strict=True):
            if axis.kind in (STREAM, INNER, POOLED):
                units.setdefault(axis.kind, size)
        names[slot], axes[slot.role] = name, own
    layers = 1 + max((slot.layer for slot in names if slot.layer is not None), default=-1)
    return Layout(family, layers, names, axes, units)


def _slot(name: str, layer_pattern: str) -> Slot:
    found = re.match(layer_pattern, name)
    if found is not None:
        return Slot(int(found[1]), found[2])
    # "bert.embeddings.x" and "embeddings.x" are one place: wrappers only put a name in front.
    return Slot(None, re.sub(r"^(bert|model|transformer)\.", "", name))


def _axis(word: str) -> Axis:
    if word == "-":
        return Axis(None)
    kind = word.removeprefix("~").rstrip("3")
    return Axis(kind, word.startswith("~"), 3 if word.endswith("3") else 1)


def _head_units(config: Mapping[str, Any]) -> int:
    """Units of attention: key-value heads, each with the query heads that share it."""
    for key in ("num_key_value_heads", "num_attention_heads", "n_head"):
        if config.get(key) is not None:
            return int(config[key])
    raise IncompatibleError("The configuration does not say how many attention heads there are.")
