"""Sentence encoders: mean of the token vectors where the mask is set, then length one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from merge_backends.checkpoint import Checkpoint, inside
from merge_backends.engine.errors import EngineError
from merge_backends.engine.loading import load_tokenizer
from merge_backends.errors import CheckpointError

BATCH = 32


@dataclass(slots=True, eq=False)
class Encoder:
    """A loaded encoder; `width` numbers for each text of at most `context` tokens."""

    name: str
    module: Any
    tokenizer: Any
    context: int
    width: int

    @property
    def nbytes(self) -> int:
        """Bytes of the weights."""
        return sum(each.numel() * each.element_size() for each in self.module.parameters())

    def tokens(self, inputs: Sequence[str | list[int]]) -> list[list[int]]:
        """Token lists of the inputs.

        Raises:
            EngineError: one is longer than the context, empty, or holds an unknown token.
        """
        size = len(self.tokenizer)
        read = []
        for at, each in enumerate(inputs):
            ids = self.tokenizer(each)["input_ids"] if isinstance(each, str) else each
            if isinstance(each, str) and not each:
                raise EngineError(f"input[{at}] is empty.", code="invalid_value", param="input")
            if any(not 0 <= token < size for token in ids):
                raise EngineError(f"input[{at}] holds a token beyond {size - 1}.", code="invalid_value", param="input")
            if len(ids) > self.context:
                raise EngineError(
                    f"input[{at}] has {len(ids)} tokens; {self.name} takes {self.context}.",
                    code="context_length_exceeded",
                    param="input",
                )
            read.append(list(ids))
        return read

    def encode(self, tokens: Sequence[Sequence[int]]) -> np.ndarray[Any, Any]:
        """Vectors `(N, width)` of length one, float32; texts of like length go together."""
        vectors = np.empty((len(tokens), self.width), dtype=np.float32)
        order = sorted(range(len(tokens)), key=lambda at: len(tokens[at]))
        for begin in range(0, len(order), BATCH):
            some = order[begin : begin + BATCH]
            longest = max(len(tokens[at]) for at in some)
            ids = torch.zeros((len(some), longest), dtype=torch.long)
            mask = torch.zeros((len(some), longest), dtype=torch.long)
            for row, at in enumerate(some):
                ids[row, : len(tokens[at])] = torch.tensor(tokens[at], dtype=torch.long)
                mask[row, : len(tokens[at])] = 1
            with torch.inference_mode():
                hidden = self.module(input_ids=ids, attention_mask=mask).last_hidden_state.float()
            counted = mask.unsqueeze(-1)
            pooled = (hidden * counted).sum(dim=1) / counted.sum(dim=1)
            vectors[some] = torch.nn.functional.normalize(pooled, dim=-1).numpy()
        return vectors


def load_encoder(
    name: str, folder: Path, *, allowed: Sequence[Path] | None = None, context_window: int | None = None
) -> Encoder:
    """A sentence encoder from a folder as sentence-transformers saves it, or a plain transformers one.

    Raises:
        CheckpointError: broken, pickle only, outside `allowed`, or with another pooling than the mean.
    """
    from transformers import AutoModel

    folder = inside(folder, allowed)
    if not is_mean_pooled(folder):
        raise CheckpointError(f"{folder} pools in another way than by the mean, which is not served.")
    Checkpoint.open(folder, allowed=allowed)
    try:
        module = AutoModel.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype=torch.float32
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"{folder} cannot be loaded as an encoder: {error}") from error
    module.eval().requires_grad_(False)
    tokenizer = load_tokenizer(folder)
    longest = [module.config.max_position_embeddings, _stated_length(folder), context_window]
    return Encoder(name, module, tokenizer, min(each for each in longest if each), module.config.hidden_size)


def is_mean_pooled(folder: Path) -> bool:
    """False where a folder says that its vectors are pooled differently."""
    path = folder / "1_Pooling" / "config.json"
    if not path.is_file():
        return True
    stated = json.loads(path.read_text("utf-8"))
    modes = [name for name, on in stated.items() if name.startswith("pooling_mode_") and on is True]
    return stated.get("pooling_mode", "mean") == "mean" and modes in ([], ["pooling_mode_mean_tokens"])


def _stated_length(folder: Path) -> int | None:
    path = folder / "sentence_bert_config.json"
    if not path.is_file():
        return None
    stated = json.loads(path.read_text("utf-8")).get("max_seq_length")
    return int(stated) if stated else None
