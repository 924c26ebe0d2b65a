"""Random tiny language models in folders, with a byte-level tokenizer built here. Nothing is downloaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

END, USER, ASSISTANT = "<|end|>", "<|user|>", "<|assistant|>"
CHAT_TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}<|assistant|>{% else %}<|user|>{% endif %}"
    "{{ m['content'] }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
CONTEXT = 256


def save_tokenizer(folder: Path, *, template: str | None = CHAT_TEMPLATE) -> int:
    """A tokenizer of bytes and three special tokens; returns its size."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    specials = [END, USER, ASSISTANT]
    vocabulary = {piece: at for at, piece in enumerate([*specials, *letters])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(each, special=True, normalized=False) for each in specials])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END,
        "clean_up_tokenization_spaces": False,
    }
    if template is not None:
        config["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return len(vocabulary)


def random_model(
    shape: str = "llama",
    *,
    seed: int = 0,
    context: int = CONTEXT,
    vocabulary: int = 259,
    hidden: int = 32,
    layers: int = 2,
    inner: int = 48,
) -> Any:
    """A two-layer model with weights large enough that its answers vary."""
    torch.manual_seed(seed)
    if shape == "gpt2":
        config: Any = transformers.GPT2Config(
            vocab_size=vocabulary,
            n_embd=hidden,
            n_layer=layers,
            n_head=4,
            n_positions=context,
            bos_token_id=0,
            eos_token_id=0,
        )
        model: Any = transformers.GPT2LMHeadModel(config)
    else:
        kinds: dict[str, tuple[Any, Any]] = {
            "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
            "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM),
        }
        config_class, model_class = kinds[shape]
        config = config_class(
            vocab_size=vocabulary,
            hidden_size=hidden,
            intermediate_size=inner,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=context,
            bos_token_id=0,
            eos_token_id=0,
        )
        model = model_class(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def save_model(
    folder: Path,
    shape: str = "llama",
    *,
    seed: int = 0,
    context: int = CONTEXT,
    template: str | None = CHAT_TEMPLATE,
    never_ends: bool = True,
    **sizes: int,
) -> Path:
    """A folder that the engine serves. `never_ends` keeps the model from choosing a special token."""
    size = save_tokenizer(folder, template=template)
    model = random_model(shape, seed=seed, context=context, vocabulary=size, **sizes)
    if never_ends:
        _forbid_special_tokens(model)
    model.save_pretrained(folder)
    return folder


def _forbid_special_tokens(model: Any) -> None:
    """Opposite output rows for the special tokens: one of each pair is always below another token's logit."""
    with torch.no_grad():
        head = model.get_output_embeddings().weight
        if model.config.tie_word_embeddings:
            model.config.tie_word_embeddings = False
            model.set_output_embeddings(torch.nn.Linear(head.shape[1], head.shape[0], bias=False))
            model.get_output_embeddings().weight.copy_(head)
            head = model.get_output_embeddings().weight
        # Half of another token's row: where the halves are largest, the whole is larger; below zero, another one is.
        head[:3] = 0.5 * head[3:6]


def reference_greedy(model: Any, prompt: list[int], tokens: int, ends: frozenset[int] = frozenset()) -> list[int]:
    """What plain forward passes without any cache choose."""
    ids = list(prompt)
    with torch.inference_mode():
        while len(ids) < len(prompt) + tokens:
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] in ends:
                break
    return ids[len(prompt) :]
