"""Small checkpoints on disk for tests of merging: a Llama- or BERT-shaped base, and models tuned from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": 32,
    "max_position_embeddings": 64,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "dtype": "float32",
}


def llama_shapes(config: dict[str, Any] = LLAMA) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a Llama model's tensors, its tied head left out."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config["vocab_size"], hidden)}
    for layer in range(config["num_hidden_layers"]):
        block = f"model.layers.{layer}"
        shapes |= {f"{block}.self_attn.{name}_proj.weight": (hidden, hidden) for name in "qkvo"}
        shapes |= {f"{block}.mlp.{name}_proj.weight": (inner, hidden) for name in ("gate", "up")}
        shapes |= {f"{block}.mlp.down_proj.weight": (hidden, inner)}
        shapes |= {f"{block}.{name}_layernorm.weight": (hidden,) for name in ("input", "post_attention")}
    return {**shapes, "model.norm.weight": (hidden,)}


def llama_weights(seed: int, config: dict[str, Any] = LLAMA) -> dict[str, torch.Tensor]:
    """Random weights of that shape, of standard deviation 0.2."""
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) * 0.2 for name, shape in llama_shapes(config).items()}


def tuned(weights: dict[str, torch.Tensor], seed: int, size: float = 0.02) -> dict[str, torch.Tensor]:
    """The weights after a little training: every value moved at random."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: (tensor.float() + torch.randn(tensor.shape, generator=generator) * size).to(tensor.dtype)
        for name, tensor in weights.items()
    }


def save(
    folder: Path,
    weights: dict[str, torch.Tensor],
    config: dict[str, Any] = LLAMA,
    *,
    licence: str | None = "apache-2.0",
    vocabulary: str | None = "a b c",
) -> Path:
    """Writes a model folder; `vocabulary` stands for its tokenizer."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(weights, str(folder / "model.safetensors"), metadata={"format": "pt"})
    if licence:
        (folder / "README.md").write_text(f"---\nlicense: {licence}\n---\n# A model\n")
    if vocabulary:
        (folder / "vocab.txt").write_text(vocabulary)
    return folder


def family(folder: Path, experts: int = 2) -> dict[str, torch.Tensor]:
    """Saves `base`, `one`, `two`, ... in `folder`; gives the base's weights."""
    base = llama_weights(0)
    save(folder / "base", base)
    for number, name in enumerate(("one", "two", "three")[:experts], start=1):
        save(folder / name, tuned(base, number))
    return base
