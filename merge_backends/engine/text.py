"""From tokens to text while they come: never half a character, never a part of a stop string."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Sequence
from typing import Any, Protocol

UNKNOWN = "\ufffd"
#: Characters of one token each are at most this many tokens long; invalid bytes are shown as such after that.
HELD_TOKENS = 4


class Decoder(Protocol):
    """Turns tokens of one answer into text, a token at a time."""

    def push(self, token: int) -> str:
        """The text that is certain now."""

    def flush(self) -> str:
        """What was held back, at the end."""


class Vocabulary:
    """What the engine needs of a tokenizer: bytes of tokens, encode, decode, and the special tokens to leave out."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._fast = getattr(tokenizer, "backend_tokenizer", None)
        self.special = frozenset(tokenizer.all_special_ids)
        self._bytes = _byte_level_table(tokenizer, self._fast) if self._fast is not None else None

    def __len__(self) -> int:
        return len(self.tokenizer)

    def encode(self, text: str, *, special: bool) -> list[int]:
        """Tokens of a text; `special` adds what the tokenizer puts around a text."""
        if self._fast is not None:
            ids: list[int] = self._fast.encode(text, add_special_tokens=special).ids
            return ids
        return list(self.tokenizer.encode(text, add_special_tokens=special))

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of tokens, special ones left out."""
        if self._fast is not None:
            return str(self._fast.decode(list(tokens), skip_special_tokens=True))
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def decoder(self) -> Decoder:
        """A decoder for one answer."""
        if self._bytes is not None:
            return ByteDecoder(self._bytes)
        return WindowDecoder(self.decode, self.special)

    def token_bytes(self, token: int) -> bytes:
        """The bytes of one token; a special token's are its name."""
        if self._bytes is not None and self._bytes.get(token):
            return self._bytes[token]
        if token in self.special:
            return str(self.tokenizer.convert_ids_to_tokens(token)).encode()
        return self.decode([token]).encode()


class ByteDecoder:
    """For byte-level tokenizers: tokens are bytes, and UTF-8 is decoded as it comes."""

    def __init__(self, table: dict[int, bytes]) -> None:
        self._table = table
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        return self._utf8.decode(self._table.get(token, b""))

    def flush(self) -> str:
        return self._utf8.decode(b"", final=True)


class WindowDecoder:
    """For other tokenizers: decodes the last few tokens again and emits what they added."""

    def __init__(self, decode: Callable[[Sequence[int]], str], special: frozenset[int]) -> None:
        self._decode = decode
        self._special = special
        self._context: list[int] = []
        self._context_text = ""
        self._held: list[int] = []

    def push(self, token: int) -> str:
        if token in self._special:
            return ""
        self._held.append(token)
        whole = self._decode([*self._context, *self._held])
        if whole.endswith(UNKNOWN) and len(self._held) < HELD_TOKENS:
            return ""
        return self._emit(whole)

    def flush(self) -> str:
        return self._emit(self._decode([*self._context, *self._held])) if self._held else ""

    def _emit(self, whole: str) -> str:
        new = whole[len(self._context_text) :]
        self._context, self._held = self._held, []
        self._context_text = self._decode(self._context)
        return new


class StopFilter:
    """Holds back what may become a stop string, also across tokens, and ends the text where one begins."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.stopped = False

    def push(self, text: str) -> str:
        """The text that is certain not to be part of a stop string."""
        if not self._stops or self.stopped:
            return "" if self.stopped else text
        self._held += text
        found = [at for at in (self._held.find(stop) for stop in self._stops) if at >= 0]
        if found:
            self.stopped = True
            certain, self._held = self._held[: min(found)], ""
            return certain
        keep = max(_overlap(self._held, stop) for stop in self._stops)
        certain, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return certain

    def flush(self) -> str:
        """What was held back, at the end."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:size])), 0)


def _byte_level_table(tokenizer: Any, fast: Any) -> dict[int, bytes] | None:
    """Bytes of each token where the tokenizer is byte-level; special tokens are empty. None for other tokenizers."""
    decoder = json.loads(fast.to_str()).get("decoder") or {}
    if decoder.get("type") != "ByteLevel":
        return None
    alphabet = _byte_alphabet()
    added = {index: entry for index, entry in tokenizer.added_tokens_decoder.items()}
    special = set(tokenizer.all_special_ids)
    table = {}
    for piece, index in fast.get_vocab(with_added_tokens=True).items():
        if index in special or (index in added and added[index].special):
            table[index] = b""
        elif index in added or any(character not in alphabet for character in piece):
            table[index] = piece.encode()
        else:
            table[index] = bytes(alphabet[character] for character in piece)
    return table


def _byte_alphabet() -> dict[str, int]:
    """The characters that stand for bytes in GPT-2's byte-level vocabularies (openai/gpt-2, encoder.py)."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in set(shown)]
    return {chr(byte): byte for byte in shown} | {chr(256 + place): byte for place, byte in enumerate(hidden)}
