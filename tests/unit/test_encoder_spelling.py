"""Typos are undone where the intended word is plain, and nothing else is touched."""

import pytest

from capability_encoder.spelling import SpellingRepair, word_hash

VOCABULARY = ["the", "people", "number", "numbers", "house", "horse", "capital", "france", "river"]


@pytest.fixture
def spelling() -> SpellingRepair:
    return SpellingRepair(VOCABULARY, [word_hash("solute")])


@pytest.mark.parametrize(
    ("typo", "word"),
    [("poeple", "people"), ("capitl", "capital"), ("numbber", "number"), ("rivar", "river"), ("solutr", "solute")],
    ids=["swap", "drop", "double", "replace", "known-elsewhere"],
)
def test_one_edit_is_undone(spelling: SpellingRepair, typo: str, word: str) -> None:
    assert spelling.repair(f"the {typo} of france") == f"the {word} of france"


@pytest.mark.parametrize(
    "text",
    ["the solute", "the houses", "the zygomorphic", "HOUZE", "MgTe", "x_rivar = 2", "https://rivar.org", "riv", ""],
    ids=["known", "plural", "no-neighbour", "capitals", "formula", "identifier", "address", "short", "empty"],
)
def test_what_is_right_or_unclear_stays(spelling: SpellingRepair, text: str) -> None:
    assert spelling.repair(text) == text


def test_the_commoner_word_wins() -> None:
    assert SpellingRepair(["horse", "house"]).repair("hoose") == "horse"
    assert SpellingRepair(["house", "horse"]).repair("hoose") == "house"


def test_code_is_left_alone(spelling: SpellingRepair) -> None:
    code = "def f():\n    return rivar\n"
    assert spelling.repair(code) == code
