"""Tiny random models of the four shapes that merging knows, made from configurations: nothing is downloaded."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

SHAPES = ("bert", "gpt2", "llama", "qwen2")
VOCABULARY = 40


def tiny_model(
    shape: str, *, hidden: int = 16, layers: int = 2, heads: int = 4, inner: int = 24, kv_heads: int = 2, seed: int = 0
) -> Any:
    """A model of `shape` in evaluation mode with weights of unit-like scale, so that every part of it matters."""
    torch.manual_seed(seed)
    if shape == "bert":
        config: Any = BertConfig(
            vocab_size=VOCABULARY, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads,
            intermediate_size=inner, max_position_embeddings=16, num_labels=3, pad_token_id=0,
        )  # fmt: skip
        model: Any = BertForSequenceClassification(config)
    elif shape == "gpt2":
        config = GPT2Config(
            vocab_size=VOCABULARY, n_embd=hidden, n_layer=layers, n_head=heads, n_inner=inner, n_positions=16,
            bos_token_id=1, eos_token_id=2, pad_token_id=0,
        )  # fmt: skip
        model = GPT2LMHeadModel(config)
    else:
        kinds = {"llama": (LlamaConfig, LlamaForCausalLM), "qwen2": (Qwen2Config, Qwen2ForCausalLM)}
        config_class, model_class = kinds[shape]
        config = config_class(
            vocab_size=VOCABULARY, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads,
            num_key_value_heads=kv_heads, intermediate_size=inner, max_position_embeddings=16,
            bos_token_id=1, eos_token_id=2, pad_token_id=0, tie_word_embeddings=shape == "qwen2",
        )  # fmt: skip
        model = model_class(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    model.requires_grad_(False)
    return model.eval()


def weights_of(model: Any) -> dict[str, Tensor]:
    """A copy of the model's tensors by name."""
    return {name: value.clone() for name, value in model.state_dict().items()}


def nearby(weights: dict[str, Tensor], *, seed: int, scale: float = 0.05) -> dict[str, Tensor]:
    """An expert: the weights plus noise, tied names kept tied."""
    generator = torch.Generator().manual_seed(seed)
    expert = {}
    for name, value in weights.items():
        noise = torch.randn(value.shape, generator=generator) if value.is_floating_point() else None
        expert[name] = value.clone() if noise is None else value + scale * noise
    if "lm_head.weight" in expert and torch.equal(
        weights["lm_head.weight"], weights.get("model.embed_tokens.weight", weights.get("transformer.wte.weight"))
    ):
        embedding = "model.embed_tokens.weight" if "model.embed_tokens.weight" in expert else "transformer.wte.weight"
        expert["lm_head.weight"] = expert[embedding].clone()
    return expert


def token_batches(*, batches: int = 2, rows: int = 4, tokens: int = 6, seed: int = 0) -> list[dict[str, Tensor]]:
    """Random texts of 3 to `tokens` tokens, padded with 0."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(batches):
        ids = torch.randint(3, VOCABULARY, (rows, tokens), generator=generator)
        lengths = torch.randint(3, tokens + 1, (rows, 1), generator=generator)
        mask = (torch.arange(tokens) < lengths).long()
        made.append({"input_ids": ids * mask, "attention_mask": mask})
    return made
