"""Reading answers out of replies: labelled replies as a whole, and the rules one by one."""

from __future__ import annotations

from collections import Counter
from datetime import date
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aptitude_tests.extraction.choice import extract_choice
from aptitude_tests.extraction.code import extract_code
from aptitude_tests.extraction.date import extract_date
from aptitude_tests.extraction.json_value import extract_json
from aptitude_tests.extraction.number import NumberAnswer, extract_number
from aptitude_tests.extraction.refusal import is_refusal
from aptitude_tests.extraction.text import extract_text
from aptitude_tests.item import LANGUAGES
from tests.support.extraction import is_extracted_right, labelled_replies, last_capital_letter

PIECES = [
    *(
        "Answer: A ",
        "The answer is ",
        "答案：",
        "الإجابة: ",
        "not B but ",
        "不是",
        "no es ",
        "n'est pas ",
        "1,",
        "7",
        "-3/4 ",
    ),
    *(
        "\\boxed{",
        "\\frac{1}{2}",
        "\\text{",
        "<think>",
        "</think>",
        "```\n",
        "```python\n",
        "def solve(x):\n",
        "import os\n",
    ),
    *('{"a": ', "[", "}", "**", '"', "(", "\n", " ", "It is so. ", "2024-03-05 ", "٣٫٥", "１", "½", "1e9 "),
]


def test_there_are_labels_for_every_language_and_answer_type() -> None:
    cells = Counter((label["language"], label["type"]) for label in labelled_replies())
    assert sum(cells.values()) >= 320
    assert {language for language, _ in cells} == set(LANGUAGES)
    assert len(cells) == 30
    assert min(cells.values()) >= 10


@pytest.mark.parametrize("split", ["dev", "held_out"])
def test_at_least_98_percent_of_labelled_replies_are_read_right(split: str) -> None:
    labels = [label for label in labelled_replies() if label["split"] == split]
    wrong = [label["id"] for label in labels if not is_extracted_right(label)]
    assert len(wrong) <= 0.02 * len(labels), wrong


def test_the_last_capital_letter_is_a_worse_rule_for_choices() -> None:
    labels = [label for label in labelled_replies() if label["type"] == "choice"]
    baseline = sum(last_capital_letter(label["reply"]) == label["expected"] for label in labels)
    assert baseline < 0.9 * sum(is_extracted_right(label) for label in labels)


def test_replies_without_an_answer_are_never_given_one() -> None:
    labels = [label for label in labelled_replies() if label["tag"] in ("refusal", "no_answer")]
    assert len(labels) >= 60
    assert sum(is_extracted_right(label) for label in labels) >= 0.98 * len(labels)


@pytest.mark.parametrize(
    ("reply", "language", "value"),
    [
        ("1.234", "de", "1234"),
        ("1.234", "en", "1.234"),
        ("1,234", "en", "1234"),
        ("1,234", "fr", "1.234"),
        ("12.345.678", "es", "12345678"),
        ("1 1/2", "en", "3/2"),
        ("2 × 10^3", "en", "2000"),
        ("Answer: $-\\frac{7}{3}$", "en", "-7/3"),
        ("Answer: x = 12", "en", "12"),
        ("Answer: 3 + 4 = 7", "en", "7"),
        ("答案：３．５", "zh", "3.5"),
        ("<think>It is 7, no, 8.</think>9", "en", "9"),
    ],
)
def test_numbers_are_read_with_the_separators_of_the_language(reply: str, language: str, value: str) -> None:
    found = extract_number(reply, language)  # type: ignore[arg-type]
    assert found is not None
    assert found.value == Fraction(value)


def test_an_ambiguous_separator_keeps_its_other_reading() -> None:
    assert extract_number("2,500", "es") == NumberAnswer(Fraction(5, 2), Fraction(2500))


@pytest.mark.parametrize("reply", ["Answer: 1/0", "", "Answer: ", "1e999999999", "9" * 5000])
def test_numbers_that_are_none_do_not_raise(reply: str) -> None:
    extract_number(reply)


def test_reasoning_that_never_ends_holds_no_answer() -> None:
    assert extract_choice("<think>Perhaps B? The answer is C") is None


def test_a_letter_beyond_the_options_is_no_answer() -> None:
    assert extract_choice("Answer: F", ["one", "two"]) is None


def test_the_article_a_is_not_the_option_a() -> None:
    assert extract_choice("The answer is a matter of taste.") is None


def test_the_longer_of_two_nested_option_texts_counts() -> None:
    assert extract_choice("I would say Ann and Ben.", ["Ann", "Ben", "Ann and Ben", "nobody"]) == "C"


@pytest.mark.parametrize(
    "reply", ["2024-03-05", "答案：2024年3月5日", "Not 2024-03-04 but 2024-03-05.", "**2024/3/5**"]
)
def test_dates_are_read_year_first(reply: str) -> None:
    assert extract_date(reply) == date(2024, 3, 5)


def test_a_day_that_does_not_exist_is_no_date() -> None:
    assert extract_date("Answer: 2023-02-29") is None


def test_code_that_does_not_parse_is_an_answer_all_the_same() -> None:
    assert extract_code("```python\ndef solve(xs)\n    return 1\n```") == "def solve(xs)\n    return 1"


def test_another_function_is_no_answer() -> None:
    assert extract_code("```python\ndef other(xs):\n    return 1\n```") is None


def test_parts_of_a_broken_object_are_not_taken_for_the_answer() -> None:
    assert extract_json('{"a": {"b": 1}, "c": ') is None


def test_a_long_paragraph_is_no_phrase() -> None:
    assert extract_text("This goes on and on. " * 20) is None


@pytest.mark.parametrize(
    "reply", ["I can't help with that.", "抱歉，我不能回答。", "Lo siento.", "Tut mir leid.", "Désolé.", "عذرًا"]
)
def test_refusals_are_recognised_in_six_languages(reply: str) -> None:
    assert is_refusal(reply)


def test_an_answer_is_no_refusal() -> None:
    assert not is_refusal("Answer: 4. I am certain, and I can explain it.")


def read_in_every_way(reply: str) -> None:
    """Run all extractors; none may raise."""
    extract_choice(reply, ["one thing", "another", "a third"])
    extract_text(reply)
    extract_text(reply, ["one", "two"])
    extract_code(reply)
    extract_json(reply)
    extract_date(reply)
    for language in LANGUAGES:
        extract_number(reply, language)


@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=8), max_size=12).map("".join))
@settings(max_examples=300, deadline=None)
def test_no_reply_makes_an_extractor_raise(reply: str) -> None:
    read_in_every_way(reply)


@pytest.mark.parametrize("piece", PIECES)
def test_endless_replies_are_read_in_bounded_time(piece: str) -> None:
    """Patterns that take quadratic time run into the test's time limit here."""
    read_in_every_way(piece * (100_000 // len(piece)))
