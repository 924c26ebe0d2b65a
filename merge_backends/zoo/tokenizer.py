"""The zoo's tokenizer: whole words for how questions are put, single letters and digits for what they are about.

A model that reverses a word or adds two numbers must see letters and digits; the words of the question cost one token.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

PAD, USER, ASSISTANT, END = "<|pad|>", "<|user|>", "<|assistant|>", "<|end|>"
SPECIAL = (PAD, USER, ASSISTANT, END)
#: A comma with its blank, a word with the blank before it, or one character.
_PIECES = Regex(", | ?[A-Za-z]+|[^A-Za-z]")
#: Only the last question of a conversation is answered: the models were trained on single questions.
CHAT_TEMPLATE = (
    "{%- set questions = messages | selectattr('role', 'equalto', 'user') | list -%}"
    "{%- if questions -%}<|user|>{{ questions[-1]['content'] | trim }}<|end|>{%- endif -%}"
    "{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}"
)


def question_words() -> list[str]:
    """The words that take one token each, with or without a blank before them; their order is that of the tokens."""
    words: list[str] = json.loads((Path(__file__).parent / "words.json").read_text("utf-8"))
    return words


def build_tokenizer() -> Tokenizer:
    """A byte-level tokenizer without merges, with the words of the questions as whole tokens; always the same."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [word.replace(" ", "Ġ") for word in question_words()]
    vocabulary = {piece: index for index, piece in enumerate([*SPECIAL, *letters, *dict.fromkeys(words)])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(_PIECES, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return tokenizer


def mark_ids(tokenizer: Tokenizer) -> tuple[int, int, int, int]:
    """Ids of the user's mark, the end mark, the assistant's mark and padding."""
    user, end, assistant, pad = (tokenizer.token_to_id(mark) for mark in (USER, END, ASSISTANT, PAD))
    if user is None or end is None or assistant is None or pad is None:
        raise ValueError("the tokenizer lacks a mark of the conversation")
    return user, end, assistant, pad


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json` as transformers reads them."""
    tokenizer.save(str(folder / "tokenizer.json"))
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": PAD,
        "eos_token": END,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 512,
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
