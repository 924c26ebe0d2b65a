"""Features are read from every endpoint's shape, and odd shapes never raise."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.registry.records import Ability, Endpoint
from gateway.routing.features import IMAGE_TOKENS, estimate_tokens, extract_features
from gateway.routing.language import guess_language


def chat(*messages: object, **more: object) -> dict[str, object]:
    return {"messages": list(messages), **more}


@pytest.mark.parametrize(
    ("extra", "need"),
    [
        ({"tools": [{"type": "function"}]}, Ability.TOOLS),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, Ability.JSON_SCHEMA),
        ({"text": {"format": {"type": "json_schema"}}}, Ability.JSON_SCHEMA),
        ({"logprobs": True}, Ability.LOGPROBS),
        ({"n": 2}, Ability.N),
        ({"modalities": ["text", "audio"]}, Ability.AUDIO),
    ],
    ids=lambda value: str(value)[:30],
)
def test_abilities_are_read_from_the_body(extra: dict[str, object], need: Ability) -> None:
    assert extract_features(chat({"role": "user", "content": "x"}, **extra), Endpoint.CHAT).needs == {need}


def test_an_image_anywhere_in_the_conversation_needs_vision() -> None:
    image = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:..."}}]}
    features = extract_features(chat(image, {"role": "user", "content": "and now?"}), Endpoint.CHAT)
    assert features.needs == {Ability.VISION}
    assert features.prompt_tokens >= IMAGE_TOKENS


def test_plain_settings_need_nothing() -> None:
    body = chat(
        {"role": "user", "content": "x"}, n=1, logprobs=False, tools=[], response_format={"type": "json_object"}
    )
    assert extract_features(body, Endpoint.CHAT).needs == frozenset()


def test_a_tool_result_at_the_end_is_a_tool_loop() -> None:
    messages = [{"role": "user", "content": "x"}, {"role": "assistant"}, {"role": "tool", "content": "7"}]
    assert extract_features(chat(*messages), Endpoint.CHAT).in_tool_loop
    assert not extract_features(chat(*messages, {"role": "user", "content": "y"}), Endpoint.CHAT).in_tool_loop


def test_responses_input_items_are_understood() -> None:
    body = {
        "instructions": "Be brief.",
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "List files"}]},
            {"type": "function_call", "name": "ls", "arguments": "{}"},
            {"type": "function_call_output", "output": "a b"},
        ],
    }
    features = extract_features(body, Endpoint.RESPONSES)
    assert (features.ask, features.in_tool_loop) == ("List files", True)


def test_completions_and_embeddings_read_their_own_fields() -> None:
    assert extract_features({"prompt": "Once"}, Endpoint.COMPLETIONS).ask == "Once"
    assert extract_features({"input": ["a", "b"]}, Endpoint.EMBEDDINGS).ask == "a\nb"


def test_tokens_are_estimated_for_ascii_and_for_other_scripts() -> None:
    english = estimate_tokens(chat({"role": "user", "content": "a" * 4000}))
    chinese = estimate_tokens(chat({"role": "user", "content": "中" * 1000}))
    assert english == 1004
    assert chinese == 1004


def test_base64_pictures_are_not_counted_as_text() -> None:
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 5_000_000}}
    assert estimate_tokens(chat({"role": "user", "content": [part]})) < 1000


def test_the_opening_stays_the_same_as_a_conversation_grows() -> None:
    start = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    grown = [*start, {"role": "assistant", "content": "a"}, {"role": "user", "content": "more"}]
    assert (
        extract_features(chat(*start), Endpoint.CHAT).opening == extract_features(chat(*grown), Endpoint.CHAT).opening
    )


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("What is the capital of France and how large is it?", "en"),
        ("¿Cuál es la capital de Francia y por qué?", "es"),
        ("Was ist die Hauptstadt von Frankreich und wie groß ist sie?", "de"),
        ("Quelle est la capitale de la France et pour quelle raison?", "fr"),
        ("法国的首都是哪里？", "zh"),
        ("フランスの首都はどこですか", "ja"),
        ("ما هي عاصمة فرنسا؟", "ar"),
        ("12 + 7", "und"),
        ("", "und"),
    ],
)
def test_language_is_guessed(text: str, code: str) -> None:
    assert guess_language(text) == code


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["messages", "prompt", "input", "tools", "response_format", "n", "max_tokens", "instructions"]),
        json_values,
    ),
    st.sampled_from(list(Endpoint)),
)
def test_odd_shapes_never_raise(body: dict[str, object], endpoint: Endpoint) -> None:
    assert extract_features(body, endpoint).prompt_tokens >= 1
