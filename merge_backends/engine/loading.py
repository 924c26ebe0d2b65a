"""From a folder to a model that runs: safetensors only, values checked, equal tensors of several models kept once."""

from __future__ import annotations

import hashlib
import json
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from merge_backends.checkpoint import Checkpoint, inside
from merge_backends.engine.causal import CausalModel, check_slots, context_of, learn_shapes
from merge_backends.engine.text import Vocabulary
from merge_backends.errors import CheckpointError

ENCODERS = ("BertModel", "MPNetModel", "RobertaModel", "XLMRobertaModel", "DistilBertModel", "NomicBertModel")


class TensorPool:
    """Tensors of all loaded models by content: models that share a base share what they did not change."""

    def __init__(self) -> None:
        self._known: weakref.WeakValueDictionary[tuple[str, torch.dtype, tuple[int, ...]], Tensor] = (
            weakref.WeakValueDictionary()
        )

    def share(self, module: nn.Module) -> int:
        """Point equal tensors of `module` at those already held; returns the bytes saved."""
        saved = 0
        for parameter in module.parameters():
            data = parameter.data
            content = hashlib.sha256(data.detach().flatten().cpu().view(torch.uint8).numpy().tobytes()).hexdigest()
            key = (content, data.dtype, tuple(data.shape))
            held = self._known.get(key)
            if held is None or held.device != data.device:
                self._known[key] = parameter
            elif held.data_ptr() != data.data_ptr():
                parameter.data = held.data
                saved += data.numel() * data.element_size()
        return saved


def is_encoder(folder: Path) -> bool:
    """Whether a folder holds a sentence encoder and not a language model."""
    if (folder / "modules.json").is_file():
        return True
    try:
        architectures = json.loads((folder / "config.json").read_text("utf-8")).get("architectures") or []
    except (OSError, ValueError, AttributeError):
        return False
    return bool(architectures) and architectures[0] in ENCODERS


def is_mixture(folder: Path) -> bool:
    """Whether a folder holds a mixture of experts made here."""
    return (folder / "mixture.json").is_file()


def load_causal(
    name: str,
    folder: Path,
    *,
    allowed: Sequence[Path] | None = None,
    base: Path | None = None,
    context_window: int | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    pool: TensorPool | None = None,
) -> CausalModel:
    """A causal language model or a mixture from a folder of safetensors.

    Raises:
        CheckpointError: broken, pickle only, NaN, outside `allowed`, without tokenizer, or of an architecture that
            the KV cache does not fit.
    """
    folder = inside(folder, allowed)
    if is_mixture(folder):
        from merge_backends.moe.store import load_mixture

        shared = None if base is None else Checkpoint.open(base, allowed=allowed)
        module: Any = load_mixture(folder, base=shared)
    else:
        Checkpoint.open(folder, allowed=allowed)
        module = _read_module(folder, dtype)
    for parameter_name, parameter in module.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise CheckpointError(f"The tensor {parameter_name!r} of {folder} holds NaN or infinity.")
    return serve_module(
        name,
        module,
        load_tokenizer(folder),
        context_window=context_window,
        device=device,
        dtype=dtype,
        pool=pool,
    )


def serve_module(
    name: str,
    module: Any,
    tokenizer: Any,
    *,
    context_window: int | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    pool: TensorPool | None = None,
) -> CausalModel:
    """A transformers module (or mixture) made ready to serve, after its KV cache was checked."""
    if dtype != "auto":
        module = module.to(getattr(torch, dtype))
    target = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    if target == "cuda" and not torch.cuda.is_available():
        raise CheckpointError("There is no CUDA device here.", "Use the device 'cpu' or 'auto'.")
    module = module.to(target).eval().requires_grad_(False)
    _attend_by_mask(module)
    if pool is not None:
        pool.share(module)
    own = context_of(module.config)
    if context_window is not None and context_window > own:
        raise CheckpointError(f"{name} has a context of {own} tokens; context_window is {context_window}.")
    if len(tokenizer) > module.config.vocab_size:
        raise CheckpointError(
            f"The tokenizer of {name} has {len(tokenizer)} tokens, its model {module.config.vocab_size}."
        )
    model = CausalModel(
        name=name,
        module=module,
        vocabulary=Vocabulary(tokenizer),
        context=context_window or own,
        ends=_ends(module, tokenizer),
        shapes=learn_shapes(module),
        gated=getattr(module, "mixture", None) is not None,
        fingerprint=_fingerprint(module),
        template=tokenizer.chat_template if isinstance(tokenizer.chat_template, str) else None,
    )
    check_slots(model)
    return model


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a folder; code in the folder is never run.

    Raises:
        CheckpointError: there is none that transformers reads.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    # tokenizer.json says everything; classes chosen by the model's type would add tokens of their own.
    kind: Any = PreTrainedTokenizerFast if (folder / "tokenizer.json").is_file() else AutoTokenizer
    try:
        return kind.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f"{folder} holds no tokenizer that can be read: {error}", "Put tokenizer.json beside the weights."
        ) from error


def _read_module(folder: Path, dtype: str) -> Any:
    from transformers import AutoModelForCausalLM

    try:
        return AutoModelForCausalLM.from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=dtype if dtype == "auto" else getattr(torch, dtype),
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"{folder} cannot be loaded as a causal language model: {error}") from error


def _attend_by_mask(module: Any) -> None:
    """Attention that takes our own mask: scaled dot product, which all supported architectures have.

    Raises:
        CheckpointError: the architecture has only its own attention.
    """
    try:
        module.set_attn_implementation("sdpa")
    except (ValueError, ImportError) as error:
        raise CheckpointError(f"{type(module).__name__} cannot be served: {error}") from error


def _ends(module: Any, tokenizer: Any) -> frozenset[int]:
    """Tokens that end an answer, as model, generation config and tokenizer name them."""
    named: list[Any] = [tokenizer.eos_token_id, getattr(module.config, "eos_token_id", None)]
    generation = getattr(module, "generation_config", None)
    named.append(getattr(generation, "eos_token_id", None))
    ends: set[int] = set()
    for each in named:
        ends.update(each if isinstance(each, list | tuple) else [] if each is None else [each])
    return frozenset(ends)


def _fingerprint(module: Any) -> str:
    """Changes with the weights; from a sample of each tensor, so that it is cheap."""
    hasher = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        sample = tensor.detach().flatten()[:: max(1, tensor.numel() // 64)].float().cpu()
        hasher.update(f"{name}{tuple(tensor.shape)}".encode() + sample.numpy().tobytes())
    return f"fp_{hasher.hexdigest()[:12]}"
