"""Whether models fit together, before anything is merged: configs, tokenizers, tensors, and how far they moved."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from merge_backends.errors import IncompatibleError
from merge_backends.layers import DEPTH_KEYS
from merge_backends.sources import OpenModel

if TYPE_CHECKING:
    from merge_backends.methods.base import Weights

_COSMETIC = re.compile(
    r"^_|^(architectures|transformers_version|torch_dtype|dtype|use_cache|id2label|label2id|problem_type|task_.*"
    r"|finetuning_task|initializer_.*|.*_token_id|.*dropout.*|.*_pdrop|gradient_checkpointing|pretraining_tp"
    r"|output_.*|return_dict|max_length|chunk_size_feed_forward|is_decoder|add_cross_attention|quantization_config)$"
)
_TIED = re.compile(r"(^|\.)(lm_head|embed_out|output_projection)\.weight$|^cls\.predictions\.decoder\.(weight|bias)$")


def check_fit(models: Sequence[OpenModel], *, stacked: bool) -> tuple[str, ...]:
    """Refuses models that cannot be merged tensor by tensor; the names of the tensors to merge, else.

    A tied output head or a whole-number buffer that only some of the models store is left out: it follows from the
    rest.

    Args:
        models: the first is what the others are compared with.
        stacked: the recipe takes layers of them, so their depth may differ.

    Raises:
        IncompatibleError: naming the two models and what differs.
    """
    first = models[0]
    for other in models[1:]:
        _check_config(first, other, stacked=stacked)
        _check_tokenizer(first, other)
    if stacked:
        return tuple(first.checkpoint.entries)
    return _check_tensors(models)


def relative_change(base: Weights, expert: Weights, names: Sequence[str]) -> float:
    """Norm of the task vector over norm of the base, all tensors as one vector; reads both, tensor by tensor.

    Fine-tuned models measured by us lie between 0.005 and 0.1; unrelated models near the square root of 2.
    """
    change = norm = 0.0
    for name in names:
        tensor = base[name]
        if tensor.is_floating_point():
            start = tensor.float()
            change += float((expert[name].float() - start).square().sum(dtype=_float64()))
            norm += float(start.square().sum(dtype=_float64()))
    return math.sqrt(change / norm) if norm else 0.0


def check_related(first: OpenModel, other: OpenModel, names: Sequence[str], limit: float) -> float:
    """How far `other` is from `first`.

    Raises:
        IncompatibleError: with the figure, where it is beyond the limit: the two have no common ancestor.
    """
    found = relative_change(first.weights, other.weights, names)
    if found > limit:
        raise IncompatibleError(
            f"{other.name!r} was not tuned from {first.name!r}: their difference is {found:.2f} of its norm"
            f" (limit {limit:g}).",
            "Name the true base, use the method 'mal', or raise `max_relative_change` in the recipe.",
        )
    return found


def _check_config(first: OpenModel, other: OpenModel, *, stacked: bool) -> None:
    one, two = first.checkpoint.config, other.checkpoint.config
    if one.get("model_type") != two.get("model_type"):
        raise IncompatibleError(
            f"{first.name!r} is a {one.get('model_type')!r} model and {other.name!r} a {two.get('model_type')!r} one.",
            "Merge models of one architecture, or use the method 'mal'.",
        )
    for key in sorted(set(one) & set(two)):
        if _COSMETIC.search(key) or (stacked and key in DEPTH_KEYS) or (stacked and _per_layer(key, one)):
            continue
        if one[key] != two[key]:
            raise IncompatibleError(
                f"{first.name!r} has {key} {one[key]!r} and {other.name!r} has {two[key]!r}.",
                "Merge models of one shape, or use the method 'mal'.",
            )


def _per_layer(key: str, config: dict[str, Any]) -> bool:
    return isinstance(config[key], list)


def _check_tokenizer(first: OpenModel, other: OpenModel) -> None:
    one, two = first.checkpoint.tokenizer_digest, other.checkpoint.tokenizer_digest
    if one and two and one != two:
        raise IncompatibleError(
            f"The tokenizers of {first.name!r} and {other.name!r} differ.",
            "Merge models of one tokenizer: the same number would mean another word.",
        )


def _check_tensors(models: Sequence[OpenModel]) -> tuple[str, ...]:
    first = models[0].checkpoint
    everywhere = set(first.entries).intersection(*(model.checkpoint.entries for model in models[1:]))
    for model in models:
        for other in models:
            for name in sorted(set(model.checkpoint.entries) - set(other.checkpoint.entries)):
                whole = model.checkpoint.entries[name].dtype.startswith(("I", "U", "BOOL"))
                tied = bool(_TIED.search(name)) and _ties(model.checkpoint.config)
                if not whole and not tied:
                    raise IncompatibleError(
                        f"{model.name!r} has the tensor {name!r} and {other.name!r} has not.",
                        "Merge models of one architecture, with the same heads.",
                    )
    for other in models[1:]:
        for name in sorted(everywhere):
            if first.shape(name) != other.checkpoint.shape(name):
                raise IncompatibleError(
                    f"The tensor {name!r} is {first.shape(name)} in {models[0].name!r}"
                    f" and {other.checkpoint.shape(name)} in {other.name!r}.",
                    "Merge models of one vocabulary and shape, or use the method 'mal'.",
                )
    return tuple(name for name in first.entries if name in everywhere)


def _ties(config: dict[str, Any]) -> bool:
    """Whether the output head is the embedding; older configs leave out what is the default of their kind."""
    old = ("gpt2", "bert", "roberta", "distilbert", "xlm-roberta", "electra", "albert")
    return bool(config.get("tie_word_embeddings", config.get("model_type") in old))


def _float64() -> Any:
    import torch

    return torch.float64
