"""The zoo's questions: seeded, answered exactly, told apart; the tokenizer keeps what they are about as letters."""

from __future__ import annotations

import datetime
import re

import pytest

from merge_backends.zoo.skills import SKILLS, draw_questions
from merge_backends.zoo.skills.draft import Question

ALL = sorted(SKILLS)


@pytest.mark.parametrize("skill", ALL)
def test_the_same_seed_draws_the_same_questions_and_another_seed_others(skill: str) -> None:
    first, again, other = (list(draw_questions(skill, seed=seed, count=50)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize("skill", ALL)
@pytest.mark.parametrize("level", ["easy", "full"])
def test_every_question_is_complete_and_has_an_answer(skill: str, level: str) -> None:
    for question in draw_questions(skill, seed=3, count=2000, level=level):  # type: ignore[arg-type]
        assert question.answer == question.answer.strip() != ""
        assert "{" not in question.prompt


def test_arithmetic_answers_are_what_the_expression_is_worth() -> None:
    signs = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__, "/": int.__floordiv__}
    checked = 0
    for question in draw_questions("arithmetic", seed=4, count=2000):
        found = re.search(r"(\d+) ([-+*/]) (\d+)", question.prompt)
        if found:
            left, sign, right = found.groups()
            assert int(question.answer) == signs[sign](int(left), int(right))
            checked += 1
    assert checked > 500


def test_dates_that_are_shifted_are_those_of_the_calendar() -> None:
    for question in draw_questions("dates", seed=5, count=2000):
        found = re.search(r"(?:date is|date comes) (\d+) days after (\d+ \w+)\?", question.prompt)
        if found:
            start = datetime.datetime.strptime(f"{found[2]} 2027", "%d %B %Y")
            end = start + datetime.timedelta(days=int(found[1]))
            assert question.answer == f"{end.day} {end:%B}"


def test_lists_are_sorted_in_the_order_that_was_asked_for() -> None:
    for question in draw_questions("lists", seed=6, count=2000):
        if question.family in ("ascending", "descending"):
            numbers = [int(each) for each in question.answer.split(", ")]
            assert numbers == sorted(numbers, reverse=question.family == "descending")


def test_what_is_looked_up_stands_in_the_question() -> None:
    assert all(question.answer in question.prompt for question in draw_questions("lookup", seed=7, count=2000))


@pytest.mark.parametrize(
    ("reply", "is_right"), [("185", True), (" 185.\n", True), ("186", False), ("it is 185", False), ("", False)]
)
def test_only_the_exact_answer_counts(reply: str, is_right: bool) -> None:
    assert Question("sum", "What is 127 + 58?", "185").is_answered_by(reply) is is_right


@pytest.mark.parametrize("skill", ALL)
def test_the_tokenizer_gives_back_every_question(skill: str) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    from merge_backends.zoo.tokenizer import build_tokenizer

    tokenizer = build_tokenizer()
    assert isinstance(tokenizer, tokenizers.Tokenizer)
    for question in draw_questions(skill, seed=8, count=300):
        assert tokenizer.decode(tokenizer.encode(question.prompt).ids) == question.prompt


def test_the_tokenizer_sees_letters_and_digits_and_takes_the_words_of_questions_whole() -> None:
    from merge_backends.zoo.tokenizer import build_tokenizer

    tokens = build_tokenizer().encode("Reverse the word planet. 127").tokens
    assert tokens == ["Reverse", "Ġthe", "Ġword", "Ġ", *"planet", ".", "Ġ", "1", "2", "7"]
