"""Model-SAT as published: capability text -> sentence encoder psi -> connector -> causal LM phi -> Pr('Yes').

z = [connector(psi(c_m)); embedding(x); embedding(p)], and the score of model m on prompt x is the probability of the
answer's tokens after z (Eq. 4). psi and phi are any Hugging Face encoder and causal LM in local folders.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from capability_encoder.training.model_sat_config import EncoderSetting, ModelSatSetting


def clause_windows(text: str, lengths: Sequence[int], limit: int) -> list[str]:
    """Cut a capability text at its clauses into windows of at most `limit` tokens.

    Args:
        lengths: tokens of each clause of `clauses(text)`; a clause longer than the limit gets a window of its own.
    """
    windows: list[list[str]] = []
    used = 0
    for clause, length in zip(clauses(text), lengths, strict=True):
        if not windows or used + length > limit:
            windows.append([])
            used = 0
        windows[-1].append(clause)
        used += length
    return ["".join(window) for window in windows]


def clauses(text: str) -> list[str]:
    """The parts of a capability text, each ending with its comma or full stop; joined they are the text."""
    return [part for part in re.split(r"(?<=[,.]) (?=accuracy|The|It|No)", text) if part] or [text]


@dataclass(frozen=True, slots=True)
class Parts:
    """Loaded models and tokenizers; `connector` maps psi's width to phi's."""

    encoder: Any
    encoder_tokenizer: Any
    language_model: Any
    tokenizer: Any
    connector: Any


def load_parts(setting: ModelSatSetting) -> Parts:
    """Load psi and phi from their folders (never from a network) and draw a connector.

    Raises:
        ValueError: a folder is missing.
    """
    for role, path in (("psi", setting.encoder.path), ("phi", setting.language_model.path)):
        if not path.is_dir():
            raise ValueError(f"{role} is not at {str(path)!r}: save the checkpoint there or change its path")
    dtype = getattr(torch, setting.language_model.dtype)
    encoder = AutoModel.from_pretrained(setting.encoder.path, local_files_only=True)
    language_model = AutoModelForCausalLM.from_pretrained(
        setting.language_model.path, local_files_only=True, dtype=dtype
    )
    width = language_model.get_input_embeddings().weight.shape[1]
    connector = nn.Linear(encoder.config.hidden_size, width)
    generator = torch.Generator().manual_seed(setting.seed)
    typical = float(language_model.get_input_embeddings().weight.detach().float().std())
    with torch.no_grad():  # soft tokens start at the size of phi's own embeddings
        draw = torch.randn(connector.weight.shape, generator=generator)
        connector.weight.copy_(draw * typical / encoder.config.hidden_size**0.5)
        connector.bias.zero_()
    tokenizers = [
        AutoTokenizer.from_pretrained(path, local_files_only=True)
        for path in (setting.encoder.path, setting.language_model.path)
    ]
    for tokenizer in tokenizers:
        tokenizer.model_max_length = int(1e9)  # lengths are cut here, not by the tokenizer
    return Parts(
        encoder=encoder,
        encoder_tokenizer=tokenizers[0],
        language_model=language_model,
        tokenizer=tokenizers[1],
        connector=connector,
    )


class ModelSat:
    """Scores (capability text, prompt) pairs by log Pr('Yes')."""

    def __init__(self, setting: ModelSatSetting, parts: Parts) -> None:
        self.setting = setting
        self.parts = parts
        self._question = self._ids(setting.question)
        self._answer = self._ids(setting.answer)
        if not self._answer:
            raise ValueError(f"the answer {setting.answer!r} has no token in phi's vocabulary: change `answer`")

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.parts.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def sentence_vectors(self, capability: str) -> Tensor:
        """psi(c_m): `[windows, width of psi]`, one row with `tokens: one`."""
        tokenizer, setting = self.parts.encoder_tokenizer, self.setting.encoder
        texts = [setting.prefix + capability]
        if setting.tokens == "windows":
            pieces = tokenizer(clauses(capability), add_special_tokens=False)["input_ids"]
            room = setting.max_tokens - 2 - len(tokenizer(setting.prefix, add_special_tokens=False)["input_ids"])
            texts = [setting.prefix + w for w in clause_windows(capability, [len(p) for p in pieces], room)]
        batch = tokenizer(texts, padding=True, truncation=True, max_length=setting.max_tokens, return_tensors="pt")
        batch = batch.to(self.parts.connector.weight.device)
        hidden = self.parts.encoder(**batch).last_hidden_state
        return pooled(hidden, batch["attention_mask"], setting)

    def yes_log_probability(self, sentence_vectors: Tensor, prompts: Sequence[str]) -> Tensor:
        """log Pr('Yes' | z) `[B]` of one model on B prompts; differentiable in all parts.

        A prompt that is too long keeps its head and its tail: the ask may stand at either end.
        """
        embed = self.parts.language_model.get_input_embeddings()
        device = embed.weight.device
        soft = self.parts.connector(sentence_vectors).to(embed.weight.dtype)
        tails = [self._cut(self._ids(prompt)) + self._question + self._answer for prompt in prompts]
        longest = max(map(len, tails))
        rows, masks = [], []
        for tail in tails:  # padded on the left: every answer stands at the end
            pad = longest - len(tail)
            text = embed(torch.tensor(tail, device=device))
            rows.append(torch.cat([torch.zeros(pad, soft.shape[1], dtype=soft.dtype, device=device), soft, text]))
            masks.append([0] * pad + [1] * (len(soft) + len(tail)))
        inputs, mask = torch.stack(rows), torch.tensor(masks, device=device)
        answers = len(self._answer)
        logits = self.parts.language_model(
            inputs_embeds=inputs,
            attention_mask=mask,
            position_ids=(mask.cumsum(dim=1) - 1).clamp(min=0),
            logits_to_keep=answers + 1,
            use_cache=False,
        ).logits
        steps = torch.log_softmax(logits[:, :answers].float(), dim=2)
        wanted = torch.tensor(self._answer, device=device)
        return steps[:, torch.arange(answers, device=device), wanted].sum(dim=1)

    def _cut(self, ids: list[int]) -> list[int]:
        limit = self.setting.language_model.max_prompt_tokens
        if len(ids) <= limit:
            return ids
        head = limit // 2
        return ids[:head] + ids[len(ids) - (limit - head) :]

    def score(self, capabilities: Sequence[str], prompts: Sequence[str], *, batch: int = 64) -> Tensor:
        """Pr('Yes') `[B]` of one model, averaged over several orders of its capability text.

        Args:
            capabilities: the same model's capability text with its tasks in different orders (`test_orders` of them).
        """
        totals = torch.zeros(len(prompts))
        with torch.no_grad():
            for capability in capabilities:
                vectors = self.sentence_vectors(capability)
                for start in range(0, len(prompts), batch):
                    chunk = self.yes_log_probability(vectors, prompts[start : start + batch])
                    totals[start : start + batch] += chunk.exp().cpu()
        return totals / len(capabilities)


def pooled(hidden: Tensor, mask: Tensor, setting: EncoderSetting) -> Tensor:
    """Sentence vector `[B, width]` from token states `[B, T, width]`: mean over real tokens, or the first token."""
    if setting.pooling == "first":
        return hidden[:, 0]
    weight = mask.unsqueeze(2).to(hidden.dtype)
    return (hidden * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1.0)
