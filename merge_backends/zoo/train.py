"""Trains the zoo from nothing: a base on all skills, then one low-rank expert per skill.

`python -m merge_backends.zoo.train` draws its own data; the same seed and thread count give the same weights.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from merge_backends.zoo.evaluate import measure
from merge_backends.zoo.skills import SKILLS, Question
from merge_backends.zoo.tokenizer import END, PAD, build_tokenizer, mark_ids

logger = logging.getLogger(__name__)

#: Linear layers that experts change; embeddings and norms are shared.
EXPERT_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
QUESTION_LOSS = 0.05  # weight of predicting the question's own tokens: enough to learn how questions look


@dataclass(frozen=True)
class Schedule:
    """How long and how fast one model is trained; `examples` per step."""

    steps: int
    rate: float
    examples: int = 96
    warmup: int = 100
    start: str = ""  # the expert whose change it starts from; none = the base

    def rate_at(self, step: int) -> float:
        """Warm-up, then a cosine down to 5 %."""
        if step < self.warmup:
            return self.rate * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.rate * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done)))


BASE = Schedule(steps=4000, rate=2e-3)
#: By skill: questions differ in length, so steps differ in cost; arithmetic has the most to learn.
EXPERTS = {
    "arithmetic": Schedule(steps=3000, rate=3e-3, examples=64, warmup=50),
    "text": Schedule(steps=1100, rate=3e-3, examples=64, warmup=50),
    "lists": Schedule(steps=600, rate=3e-3, examples=64, warmup=50),
    "dates": Schedule(steps=1000, rate=3e-3, examples=64, warmup=50),
    "lookup": Schedule(steps=600, rate=3e-3, examples=64, warmup=30, start="text"),
}
RANK = 24
#: Share of full-size questions in the base's mix; the rest are easy ones.
BASE_FULL_SHARE = 0.12


def build_config(vocabulary: int, tokenizer: Tokenizer) -> LlamaConfig:
    """The one shape of all zoo models: two million parameters, tied embeddings."""
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=6,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.token_to_id(PAD),
        bos_token_id=None,
        eos_token_id=tokenizer.token_to_id(END),
        attention_dropout=0.0,
        # On a CPU, the fused attention takes twice as long on questions this short.
        attn_implementation="eager",
    )


class Examples:
    """Draws questions of a mix of skills and lays them out as padded batches."""

    def __init__(
        self, tokenizer: Tokenizer, skills: Sequence[str], *, full_share: float, seed: int, question_loss: float = 0.0
    ) -> None:
        self._tokenizer = tokenizer
        self._skills = tuple(skills)
        self._full_share = full_share
        self._question_loss = question_loss
        self._rng = random.Random(f"zoo/{seed}/{'+'.join(skills)}")
        self._user, self._end, self._assistant, self._pad = mark_ids(tokenizer)

    def draw(self) -> Question:
        """One question of a random skill of the mix."""
        level = "full" if self._rng.random() < self._full_share else "easy"
        return SKILLS[self._rng.choice(self._skills)](self._rng, level)  # type: ignore[arg-type]

    def batches(self, size: int, at_once: int = 8) -> Iterator[tuple[Tensor, Tensor]]:
        """Token ids `(batch, length)` and the loss weight of predicting each of them; rows of like length together."""
        while True:
            rows = sorted((self._row(self.draw()) for _ in range(size * at_once)), key=lambda row: len(row[0]))
            chunks = [rows[at : at + size] for at in range(0, len(rows), size)]
            self._rng.shuffle(chunks)
            for chunk in chunks:
                length = max(len(ids) for ids, _ in chunk)
                ids = torch.full((len(chunk), length), self._pad)
                weights = torch.zeros((len(chunk), length))
                for index, (row, start) in enumerate(chunk):
                    ids[index, : len(row)] = torch.tensor(row)
                    weights[index, 1:start] = self._question_loss
                    weights[index, start : len(row)] = 1.0
                yield ids, weights

    def _row(self, question: Question) -> tuple[list[int], int]:
        asked = [self._user, *self._tokenizer.encode(question.prompt).ids, self._end, self._assistant]
        return [*asked, *self._tokenizer.encode(question.answer).ids, self._end], len(asked)


def fit(model: nn.Module, examples: Examples, schedule: Schedule, *, label: str) -> None:
    """Train the parameters that require a gradient, in bfloat16 arithmetic on float32 weights."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=schedule.rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    started, tokens, running = time.monotonic(), 0, 0.0
    for step, (ids, weights) in zip(range(schedule.steps), examples.batches(schedule.examples), strict=False):
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate_at(step)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(input_ids=ids, use_cache=False).logits
        losses = nn.functional.cross_entropy(logits[:, :-1].float().transpose(1, 2), ids[:, 1:], reduction="none")
        loss = (losses * weights[:, 1:]).sum() / weights[:, 1:].sum()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        tokens += ids.numel()
        running += loss.item()
        if (step + 1) % 100 == 0:
            elapsed = time.monotonic() - started
            logger.info("%s step %d loss %.4f %.0f tokens/s", label, step + 1, running / 100, tokens / elapsed)
            running = 0.0


class LowRank(nn.Module):  # type: ignore[misc]
    """A frozen linear layer with a trained low-rank change, `W + B A` (arXiv:2106.09685)."""

    def __init__(self, layer: nn.Linear, rank: int) -> None:
        super().__init__()
        self.layer = layer
        self.down = nn.Parameter(torch.randn(rank, layer.in_features) / math.sqrt(layer.in_features))
        self.up = nn.Parameter(torch.zeros(layer.out_features, rank))

    def forward(self, hidden: Tensor) -> Tensor:
        """`(..., in)` to `(..., out)`."""
        changed: Tensor = self.layer(hidden) + (hidden @ self.down.T) @ self.up.T
        return changed


def attach_low_rank(model: nn.Module, rank: int) -> dict[str, LowRank]:
    """Freeze the model and put a low-rank change on every layer of `EXPERT_MODULES`; by the layer's name."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    changes = {}
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] in EXPERT_MODULES:
            parent, _, leaf = name.rpartition(".")
            changes[name] = LowRank(module, rank)
            setattr(model.get_submodule(parent), leaf, changes[name])
    return changes


def train_base(out: Path, seed: int) -> None:
    """Train the base and write it with its configuration and tokenizer."""
    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    model = LlamaForCausalLM(build_config(tokenizer.get_vocab_size(), tokenizer))
    fit(
        model,
        Examples(tokenizer, tuple(SKILLS), full_share=BASE_FULL_SHARE, seed=seed, question_loss=QUESTION_LOSS),
        BASE,
        label="base",
    )
    out.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: value.to(torch.bfloat16).contiguous() for name, value in model.model.state_dict().items()},
        out / "base.safetensors",
    )
    model = load_base(out)
    logger.info("base %s", json.dumps(measure(model, tokenizer, seed=10**6, count=200)))


def load_base(out: Path) -> LlamaForCausalLM:
    """The stored base as a model in float32."""
    tokenizer = build_tokenizer()
    model = LlamaForCausalLM(build_config(tokenizer.get_vocab_size(), tokenizer))
    model.model.load_state_dict({name: value.float() for name, value in load_file(out / "base.safetensors").items()})
    model.tie_weights()
    return model.eval()


def train_expert(out: Path, skill: str, seed: int) -> None:
    """Train one expert from the stored base and write its low-rank change."""
    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    model = load_base(out)
    changes = attach_low_rank(model, RANK)
    if EXPERTS[skill].start:
        start = load_file(out / f"{EXPERTS[skill].start}.safetensors")
        with torch.no_grad():
            for name, change in changes.items():
                change.down.copy_(start[f"{name}.down"])
                change.up.copy_(start[f"{name}.up"])
    fit(model, Examples(tokenizer, (skill,), full_share=0.95, seed=seed), EXPERTS[skill], label=skill)
    stored = {}
    for name, change in changes.items():
        stored[f"{name}.down"], stored[f"{name}.up"] = change.down.detach(), change.up.detach()
    save_file(
        {name: value.to(torch.bfloat16).contiguous() for name, value in stored.items()}, out / f"{skill}.safetensors"
    )
    logger.info("%s %s", skill, json.dumps(measure(model, tokenizer, seed=10**6, count=200)))


def main() -> None:
    """Train everything, or the parts that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "weights")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", default="", help="comma-separated: base, or names of skills")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(arguments.threads)
    parts = arguments.only.split(",") if arguments.only else ["base", *SKILLS]
    for part in parts:
        if part == "base":
            train_base(arguments.out, arguments.seed)
        else:
            train_expert(arguments.out, part, arguments.seed)


if __name__ == "__main__":
    main()
