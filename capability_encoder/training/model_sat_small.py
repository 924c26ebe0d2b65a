"""A small phi for Model-SAT on one core: a tiny Llama over MiniLM's word pieces, warmed up as a language model."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM


@dataclass(frozen=True, slots=True)
class SmallLlama:
    """Size of the tiny Llama and length of its warm-up."""

    width: int = 192
    layers: int = 2
    heads: int = 4
    warm_up_steps: int = 200
    batch: int = 16
    tokens: int = 64
    seed: int = 0


def save_small_llama(target: Path, sentence_encoder: Path, texts: Sequence[str], size: SmallLlama) -> list[float]:
    """Make, warm up and save a tiny causal LM with its tokenizer; returns the warm-up losses.

    Word embeddings start as the principal components of the sentence encoder's, so that words mean something before
    the first step; the warm-up is next-token prediction on `texts`.

    Args:
        sentence_encoder: local folder of a BERT-like encoder whose word pieces and embeddings are taken over.
    """
    tokenizer = AutoTokenizer.from_pretrained(sentence_encoder, local_files_only=True)
    state = load_file(sentence_encoder / "model.safetensors")
    known = next(v for k, v in state.items() if k.endswith("word_embeddings.weight")).float()
    torch.manual_seed(size.seed)  # transformers draws initial weights from the global generator
    config = LlamaConfig(
        vocab_size=known.shape[0],
        hidden_size=size.width,
        intermediate_size=size.width * 8 // 3,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.cls_token_id,
        eos_token_id=tokenizer.sep_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    centred = known - known.mean(dim=0)
    _, directions = torch.linalg.eigh(centred.T @ centred)
    reduced = centred @ directions[:, -size.width :]
    with torch.no_grad():
        model.get_input_embeddings().weight.copy_(reduced * (0.02 / reduced.std()))
    losses = _warm_up(model, tokenizer, texts, size)
    shutil.rmtree(target, ignore_errors=True)
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    return losses


def _warm_up(model: LlamaForCausalLM, tokenizer: AutoTokenizer, texts: Sequence[str], size: SmallLlama) -> list[float]:
    """Next-token prediction; each step scores one position in eight, since the vocabulary is the costly part."""
    rng = np.random.default_rng(size.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
    losses = []
    for _ in range(size.warm_up_steps):
        chosen = [texts[int(i)] for i in rng.integers(len(texts), size=size.batch)]
        batch = tokenizer(chosen, padding=True, truncation=True, max_length=size.tokens, return_tensors="pt")
        hidden = model.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
        places = torch.nonzero(batch["attention_mask"][:, 1:])
        places = places[torch.from_numpy(rng.random(len(places)) < 0.125)]
        logits = model.lm_head(hidden[places[:, 0], places[:, 1]])
        loss = torch.nn.functional.cross_entropy(logits, batch["input_ids"][places[:, 0], places[:, 1] + 1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses
