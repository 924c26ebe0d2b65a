"""Budgets, drift, cards and reports of a measurement; no encoder is loaded here."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from aptitude_tests.build import build_suite
from aptitude_tests.card import Card, TaskResult, interval, standouts
from aptitude_tests.drift import compare, sign_test
from aptitude_tests.report import card_text
from aptitude_tests.report_page import render_page
from aptitude_tests.selection import Information, choose_items
from capability_encoder.posterior import Gaussian, update, update_with_common_error
from capability_encoder.profile import Answer, CapabilityProfile, match_answers
from tests.support.answer_source import choice_suite


def card(name: str, right: int, asked: int = 10, **changes: object) -> Card:
    tasks = tuple(
        TaskResult(f"task-{number}", f"Tell <{number}>.", "logic", "en", asked, right, 1) for number in range(3)
    )
    values = {"tasks": tasks, "replies": 3 * asked, "calls_without_reply": 0, "reasons": {"right": right}, **changes}
    return Card(name, "small", 1, 0, 1.8e9, **values)  # type: ignore[arg-type]


def test_a_budget_is_spread_over_tasks_domains_and_difficulties() -> None:
    suite = build_suite()
    chosen = choose_items(suite, 100)
    assert set(Counter(item.task for item in chosen).values()) == {2}
    assert min(Counter(item.difficulty for item in chosen).values()) >= 25
    first = {task.domain for task in suite.tasks if task.name in {item.task for item in chosen[:13]}}
    assert len(first) == 13


def test_a_smaller_budget_is_a_prefix_and_a_large_one_asks_everything() -> None:
    suite = choice_suite(60, 5)
    assert choose_items(suite, 7) == choose_items(suite, 30)[:7]
    assert sorted(item.id for item in choose_items(suite, 500)) == sorted(item.id for item in suite.items)


def test_information_prefers_the_item_that_tells_more() -> None:
    suite = choice_suite(12, 1)
    design = np.zeros((12, 2))
    design[:, 0] = 0.1
    design[9, 1] = 3.0
    information = Information(design, np.full(12, 0.25), np.eye(2))
    assert choose_items(suite, 12, information=information).index(suite.items[9]) <= 2


def test_an_interval_holds_the_share_and_narrows_with_more_answers() -> None:
    few, many = interval(7, 10), interval(70, 100)
    assert few.low < 0.7 < few.high
    assert many.high - many.low < few.high - few.low
    assert interval(0, 5).low == 0.0
    with pytest.raises(ValueError, match="at least one"):
        interval(0, 0)


def test_drift_is_told_from_chance() -> None:
    def profile(flips: int) -> CapabilityProfile:
        return CapabilityProfile("m", answers=tuple(Answer(f"q{k}", float(k >= 50 - flips)) for k in range(100)))

    assert not compare(profile(0), profile(2)).is_drift
    changed = compare(profile(0), profile(20))
    assert changed.is_drift
    assert (changed.better, changed.worse, changed.change) == (20, 0, 0.2)
    assert "cannot be told" in str(compare(CapabilityProfile("m"), profile(0)))


def test_the_sign_test_agrees_with_hand_computed_values() -> None:
    assert sign_test(0, 0) == 1.0
    assert sign_test(5, 0) == pytest.approx(2 / 32)
    assert sign_test(3, 3) == 1.0


def test_items_of_no_bank_are_placed_by_their_own_text() -> None:
    profile = CapabilityProfile("m", answers=(Answer("q1", 1.0), Answer("new", 0.0, "mine", "Some text")))
    matched = match_answers(profile.answers, {"q1": 7})
    assert (matched.bank_rows, matched.texts, matched.text_scores) == ((7,), ("Some text",), (0.0,))
    assert CapabilityProfile.from_json(profile.to_json()) == profile


def test_a_common_error_keeps_many_answers_from_looking_certain() -> None:
    prior = Gaussian(np.zeros(1), np.eye(1))
    design, offsets, scores = np.ones((400, 1)), np.zeros(400), np.tile([1.0, 0.0], 200)
    plain = update(prior, design, offsets, scores)
    careful = update_with_common_error(prior, design, offsets, scores, np.ones(400), 0.5)
    # With the common error b ~ N(0, .5) fully shared, at best a + b is known, so var(a | a + b) = 1 * .5 / 1.5.
    assert float(careful.covariance[0, 0]) == pytest.approx(1 / 3, abs=0.01)
    assert float(plain.covariance[0, 0]) < 0.02
    assert math.isclose(float(careful.mean[0]), 0.0, abs_tol=1e-6)


def test_a_common_error_changes_nothing_for_calibrated_items() -> None:
    prior = Gaussian(np.zeros(1), np.eye(1))
    design, offsets, scores = np.ones((30, 1)), np.linspace(-1, 1, 30), np.tile([1.0, 1.0, 0.0], 10)
    plain = update(prior, design, offsets, scores)
    careful = update_with_common_error(prior, design, offsets, scores, np.zeros(30), 0.5)
    assert careful.mean == pytest.approx(plain.mean, abs=1e-6)
    assert careful.covariance == pytest.approx(plain.covariance, abs=1e-6)


def test_strengths_and_weaknesses_are_those_beyond_the_interval() -> None:
    strong, weak = card("strong", 9), card("weak", 2)
    assert [len(found) for found in standouts(strong, [weak])] == [3, 0]
    assert [len(found) for found in standouts(weak, [strong])] == [0, 3]
    assert standouts(card("alone", 5), []) == ([], [])


def test_a_card_survives_json_and_another_version_is_refused() -> None:
    one = card("m", 5, notes=("a",), wins={"1": {"m": 1.0}})
    assert Card.of(one.as_record()) == one
    with pytest.raises(ValueError, match="version 0"):
        Card.of({**one.as_record(), "version": 0})


def test_the_report_names_what_matters_and_escapes_what_others_wrote() -> None:
    one = card("a<b>", 7, wins={"0.5": {"a<b>": 0.25, "other": 0.75}}, notes=("Mind & gap",))
    text, page = card_text(one, [card("other", 3)]), render_page(one, [card("other", 3)])
    assert "quality 0.5   25%   other 75%" in text
    assert "without an answer" in text
    assert "a&lt;b&gt;" in page
    assert "<b>25%</b>" in page
    assert "Mind &amp; gap" in page
    assert "Tell <" not in page
    assert "http" not in page.replace("http-equiv", "")
