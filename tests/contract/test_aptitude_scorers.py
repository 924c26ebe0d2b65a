"""One contract over all scorers, and what each alone promises."""

from __future__ import annotations

import json
from typing import Any

import pytest

from aptitude_tests.errors import AptitudeError
from aptitude_tests.item import Item, Reply, ToolCall
from aptitude_tests.scorers import SCORERS, check_item, score

TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
GOLDS: dict[str, Any] = {
    "choice": "B",
    "number": "3/4",
    "text": {"answers": ["Lyon"], "candidates": ["Paris", "Nice"]},
    "date": "2024-02-29",
    "exact": "<<A>>",
    "code": {
        "function": "solve",
        "tests": [{"input": [2], "output": 4}],
        "solution": "def solve(x):\n    return x * x",
    },
    "json": {"value": {"a": 1}, "schema": {"type": "object", "required": ["a"]}},
    "tool_call": {"calls": [{"name": "add", "arguments": {"a": 1, "b": "two"}}]},
    "constraints": {"constraints": [{"check": "lowercase"}, {"check": "lines_exactly", "value": 2}], "example": "a\nb"},
}
NAMES = [entry.name for entry in SCORERS]


def item(scorer: str, gold: Any = None, **values: Any) -> Item:
    """An item of that scorer with a gold answer that fits."""
    more: dict[str, Any] = {"options": ("one", "two", "three")} if scorer == "choice" else {}
    more |= {"tools": (TOOL,)} if scorer == "tool_call" else {}
    return Item("s/t/0", "t", 0, "?", GOLDS[scorer] if gold is None else gold, scorer, **(more | values))


def test_the_contract_covers_every_scorer() -> None:
    assert set(NAMES) == set(GOLDS)


@pytest.mark.parametrize("name", NAMES)
def test_right_replies_score_1_and_wrong_ones_0(name: str) -> None:
    entry = SCORERS.get(name)
    check_item(item(name))
    assert score(item(name), entry.right(item(name))).score == 1.0
    wrong = score(item(name), entry.wrong(item(name)))
    assert wrong.score == 0.0
    assert wrong.extracted is not None


@pytest.mark.parametrize("name", NAMES)
def test_no_answer_is_not_a_wrong_answer(name: str) -> None:
    for text in ("", "I'm sorry, I cannot do that."):
        verdict = score(item(name), Reply(text))
        assert verdict.score is None
        assert verdict.extracted is None


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("gold", [{}, "", [], {"constraints": [{"check": "rhymes"}]}, {"schema": {"type": 7}}], ids=str)
def test_a_gold_answer_of_the_wrong_shape_is_refused(name: str, gold: Any) -> None:
    with pytest.raises(AptitudeError, match="s/t/0"):
        check_item(item(name, gold=gold))


def test_an_unknown_scorer_is_refused_by_name() -> None:
    with pytest.raises(AptitudeError, match=r"unknown scorer 'nummer'.*number"):
        check_item(Item("s/t/0", "t", 0, "?", 1, "nummer"))


@pytest.mark.parametrize("reply", ["0.75", "Answer: 3/4", "$\\boxed{\\frac{3}{4}}$", "75/100", "0,75"])
def test_equal_numbers_are_equal_however_written(reply: str) -> None:
    assert score(item("number"), Reply(reply)).score == 1.0


def test_a_number_may_be_within_the_tolerance_of_the_item() -> None:
    near = item("number", gold={"value": 3.14159, "tolerance": 0.01})
    assert score(near, Reply("3.14")).score == 1.0
    assert score(near, Reply("3.2")).score == 0.0


def test_either_reading_of_a_separator_counts() -> None:
    assert score(item("number", gold=2500, language="es"), Reply("2,500")).score == 1.0


def test_the_right_text_within_other_words_is_a_wrong_format_where_the_format_counts() -> None:
    assert score(item("exact"), Reply("Sure: <<A>>")).reason == "wrong_format"


def test_a_schema_is_kept_before_the_value_counts() -> None:
    assert score(item("json"), Reply('{"b": 1}')).reason == "wrong_format"
    assert score(item("json"), Reply('{"a": 2}')).reason == "wrong"
    assert score(item("json"), Reply('{"a": true}')).score == 0.0


def test_a_schema_alone_is_enough() -> None:
    assert score(item("json", gold={"schema": {"type": "array"}}), Reply("[3]")).score == 1.0


def test_a_call_in_the_text_is_no_call() -> None:
    verdict = score(item("tool_call"), Reply('{"name": "add", "arguments": {"a": 1, "b": "two"}}'))
    assert verdict.score is None
    assert "in the text" in verdict.detail


def test_calls_count_in_any_order_and_with_folded_texts() -> None:
    gold = {"calls": [{"name": "add", "arguments": {"a": 1}}, {"name": "add", "arguments": {"b": "Two"}}]}
    calls = [ToolCall("add", '{"b": " two"}'), ToolCall("add", '{"a": 1.0}')]
    assert score(item("tool_call", gold=gold), Reply("", calls)).score == 1.0
    assert score(item("tool_call", gold=gold), Reply("", calls[:1])).score == 0.0


def test_broken_arguments_are_a_wrong_format() -> None:
    assert score(item("tool_call"), Reply("", [ToolCall("add", '{"a": ')])).reason == "wrong_format"


def test_an_answer_in_words_is_right_where_no_tool_is_needed() -> None:
    none = item("tool_call", gold={"calls": []})
    assert score(none, Reply("You are welcome.")).score == 1.0
    assert score(none, Reply("", [ToolCall("add", "{}")])).score == 0.0


def test_the_detail_of_a_code_verdict_names_the_first_failing_test() -> None:
    verdict = score(item("code"), Reply("def solve(x):\n    return x + 1"))
    assert (verdict.score, verdict.detail) == (0.0, "solve(2) gave 3, expected 4")


def test_true_is_not_one_in_code() -> None:
    gold = {"function": "solve", "tests": [{"input": [2], "output": 1}]}
    assert score(item("code", gold=gold), Reply("def solve(x):\n    return True")).score == 0.0


@pytest.mark.parametrize(
    ("check", "value", "keeps", "breaks"),
    [
        ("words_exactly", 3, "one two-fold three", "one two"),
        ("words_at_least", 2, "a b", "a"),
        ("words_at_most", 2, "a b", "a b c"),
        ("characters_at_most", 3, "abc", "abcd"),
        ("bullets_exactly", 2, "- a\n- b", "- a\nb"),
        ("numbered_exactly", 2, "1. a\n2. b", "- a\n- b"),
        ("sentences_exactly", 2, "One. Two!", "One."),
        ("words_per_line", 2, "a b\nc d", "a b\nc"),
        ("contains", "río", "el Río va", "el ríos"),
        ("contains_times", ["a", 2], "a b a", "a b"),
        ("lacks", "no", "nothing", "no way"),
        ("lacks_letter", "e", "a b", "Ever"),
        ("lacks_commas", None, "a b", "a, b"),
        ("uppercase", None, "ABC", "Abc"),
        ("starts_with", "So", "So be it", "so be it"),
        ("ends_with", "end", "the end", "end."),
        ("each_line_starts_with", "> ", "> a\n> b", "> a\nb"),
    ],
)
def test_every_constraint_is_checked(check: str, value: Any, keeps: str, breaks: str) -> None:
    rules = item("constraints", gold={"constraints": [{"check": check, "value": value}]})
    assert score(rules, Reply(keeps)).score == 1.0
    verdict = score(rules, Reply(breaks))
    assert (verdict.score, verdict.detail) == (0.0, f"broken: {check}")


def test_verdicts_are_plain_values() -> None:
    verdict = score(item("json"), Reply('{"a": 1}'))
    assert json.loads(verdict.extracted or "") == {"a": 1}
