"""Tokens to text: whole characters only, stop strings across tokens, and both kinds of tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from merge_backends.engine.text import StopFilter, Vocabulary, WindowDecoder
from tests.support.engine_models import save_tokenizer

TEXT = "naïve 漢字 🕸️ end"


@pytest.fixture
def vocabulary(tmp_path: Path) -> Vocabulary:
    save_tokenizer(tmp_path)
    return Vocabulary(PreTrainedTokenizerFast.from_pretrained(tmp_path))


def test_a_character_of_several_tokens_comes_whole(vocabulary: Vocabulary) -> None:
    decoder = vocabulary.decoder()
    pieces = [decoder.push(token) for token in vocabulary.encode(TEXT, special=False)]
    assert "".join(pieces) == TEXT
    assert "\ufffd" not in "".join(pieces)
    assert "漢" in pieces


def test_bytes_that_end_within_a_character_are_shown_as_unknown_at_the_end(vocabulary: Vocabulary) -> None:
    decoder = vocabulary.decoder()
    first = vocabulary.encode("漢", special=False)[:2]
    assert [decoder.push(token) for token in first] == ["", ""]
    assert decoder.flush() == "\ufffd"


def test_special_tokens_have_no_text(vocabulary: Vocabulary) -> None:
    decoder = vocabulary.decoder()
    assert decoder.push(next(iter(vocabulary.special))) == ""
    assert vocabulary.decode([*vocabulary.special, *vocabulary.encode("x", special=False)]) == "x"


def test_the_bytes_of_tokens_make_up_the_text(vocabulary: Vocabulary) -> None:
    tokens = vocabulary.encode(TEXT, special=False)
    assert b"".join(vocabulary.token_bytes(token) for token in tokens) == TEXT.encode()


def test_a_window_decoder_gives_what_decoding_at_once_gives() -> None:
    raw = TEXT.encode()

    def decode(tokens: Sequence[int]) -> str:
        return bytes(tokens).decode("utf-8", "replace")

    decoder = WindowDecoder(decode, frozenset())
    pieces = [decoder.push(byte) for byte in raw]
    assert "".join(pieces) + decoder.flush() == TEXT
    assert all("\ufffd" not in piece for piece in pieces)


def test_a_window_decoder_does_not_wait_for_ever_on_invalid_bytes() -> None:
    decoder = WindowDecoder(lambda tokens: bytes(tokens).decode("utf-8", "replace"), frozenset())
    assert "".join(decoder.push(0xFF) for _ in range(8)) != ""


@pytest.mark.parametrize(
    ("pieces", "stops", "expected"),
    [
        (["one two"], ["two"], "one "),
        (["one t", "w", "o three"], ["two"], "one "),
        (["aab"], ["ab"], "a"),
        (["a", "a", "b"], ["ab"], "a"),
        (["x END y STOP"], ["STOP", "END"], "x "),
        (["no stop he", "re"], ["stop!"], "no stop here"),
        (["half s", "t"], ["stop"], "half st"),
    ],
    ids=["whole", "across tokens", "overlap", "overlap across tokens", "first of two", "near miss", "unfinished"],
)
def test_text_ends_where_a_stop_string_begins(pieces: list[str], stops: list[str], expected: str) -> None:
    stop = StopFilter(stops)
    text = "".join(stop.push(piece) for piece in pieces)
    assert text + stop.flush() == expected


def test_text_that_may_become_a_stop_string_is_held_back() -> None:
    stop = StopFilter(["</end>"])
    assert stop.push("text </e") == "text "
    assert stop.push("x") == "</ex"
