"""A profile is checked on the way in, survives JSON, and its answers are never dropped silently."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capability_encoder.profile import (
    Answer,
    CapabilityProfile,
    ProfileError,
    UnknownItemsError,
    capability_instruction,
    match_answers,
)

ANSWERS = (Answer("q1", 1.0, "core"), Answer("q2", 0.0), Answer("q3", 0.5))
PROFILE = CapabilityProfile(
    "small", family="llama-3", params_total_b=8.0, price_in=0.1, release_date="2025-03", answers=ANSWERS
)


def test_json_gives_back_an_equal_profile() -> None:
    assert CapabilityProfile.from_json(PROFILE.to_json()) == PROFILE


@given(st.lists(st.tuples(st.text(min_size=1), st.floats(0, 1)), max_size=5), st.text(min_size=1))
def test_any_answers_survive_json(pairs: list[tuple[str, float]], name: str) -> None:
    profile = CapabilityProfile(name, answers=tuple(Answer(item, score) for item, score in pairs))
    assert CapabilityProfile.from_json(profile.to_json()) == profile


@pytest.mark.parametrize("score", [-0.1, 1.1, math.nan, math.inf, True], ids=str)
def test_a_score_outside_0_to_1_is_refused(score: float) -> None:
    with pytest.raises(ProfileError, match=r"not in 0\.\.1"):
        Answer("q1", score)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "expected an object"),
        ('{"name": "m", "size": 8}', "unknown profile field 'size'"),
        ('{"name": "m", "answers": [{"item": "q"}]}', "wrong shape"),
        ('{"name": ""}', "needs a model name"),
        ('{"name": "m", "price_in": -1}', "price_in=-1"),
        ('{"name": "m", "release_date": "May"}', "YYYY-MM"),
    ],
)
def test_a_bad_profile_is_named(text: str, message: str) -> None:
    with pytest.raises(ProfileError, match=message):
        CapabilityProfile.from_json(text)


def test_the_fingerprint_ignores_the_name_and_sees_the_answers() -> None:
    renamed = CapabilityProfile("other", "llama-3", 8.0, price_in=0.1, release_date="2025-03", answers=ANSWERS)
    assert renamed.fingerprint == PROFILE.fingerprint
    assert (
        CapabilityProfile("small", answers=ANSWERS[:2]).fingerprint
        != CapabilityProfile("small", answers=ANSWERS).fingerprint
    )


def test_answers_are_found_in_the_bank_or_among_the_texts() -> None:
    matched = match_answers(ANSWERS, {"q1": 10, "q2": 20}, {"q3": "Why?"})
    assert matched.bank_rows == (10, 20)
    assert matched.bank_scores == (1.0, 0.0)
    assert (matched.texts, matched.text_scores) == (("Why?",), (0.5,))


def test_an_unknown_item_without_text_is_refused_with_the_fix() -> None:
    with pytest.raises(UnknownItemsError, match="unknown aptitude items 'q3': give their prompt texts") as caught:
        match_answers(ANSWERS, {"q1": 0, "q2": 1})
    assert caught.value.items == ("q3",)


def test_the_instruction_states_accuracy_by_task_in_the_given_order() -> None:
    tasks = {"q1": "law", "q2": "law", "q3": "algebra"}
    text = capability_instruction(PROFILE, tasks, order=["law", "algebra"], notes="Knows French.")
    assert text == (
        'The model achieves accuracy 50.0% on the task of "law", accuracy 50.0% on the task of "algebra". '
        "It has 8 billion parameters, family llama-3. Knows French."
    )
    assert capability_instruction(CapabilityProfile("new"), tasks) == "No aptitude answer of the model is known."
