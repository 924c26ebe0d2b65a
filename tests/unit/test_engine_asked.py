"""Bodies of requests: what is read, and what is refused with which field."""

from __future__ import annotations

from typing import Any

import pytest

from merge_backends.engine.asked import read_chat, read_completion, read_embeddings
from merge_backends.engine.errors import EngineError

ASK = [{"role": "user", "content": "hi"}]


def refused(read: Any, body: Any) -> EngineError:
    with pytest.raises(EngineError) as caught:
        read(body)
    assert caught.value.status == 400
    return caught.value


def test_defaults_are_openais() -> None:
    asked = read_chat({"model": "m", "messages": ASK})
    assert (asked.sampling.temperature, asked.sampling.top_p, asked.choices, asked.limit) == (1.0, 1.0, 1, None)
    assert not asked.stream
    assert read_completion({"model": "m", "prompt": "x"}).limit == 16


def test_parts_of_text_are_joined_and_developers_are_the_system() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    asked = read_chat({"model": "m", "messages": [{"role": "developer", "content": parts}]})
    assert asked.messages == ({"role": "system", "content": "ab"},)


def test_max_completion_tokens_goes_before_max_tokens() -> None:
    assert read_chat({"model": "m", "messages": ASK, "max_tokens": 5, "max_completion_tokens": 7}).limit == 7


def test_fields_without_an_effect_are_let_through() -> None:
    asked = read_chat({"model": "m", "messages": ASK, "user": "u", "metadata": {}, "tools": [], "tool_choice": "none"})
    assert asked.model == "m"


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"messages": []}, "messages", "missing_required_parameter"),
        ({"messages": None}, "messages", "missing_required_parameter"),
        ({"messages": ["hi"]}, "messages[0]", "invalid_value"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role", "invalid_value"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content", "invalid_value"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0]", "unsupported_parameter"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages[0].content[0]",
            "unsupported_parameter",
        ),
        ({"model": None}, "model", "missing_required_parameter"),
        ({"model": 3}, "model", "missing_required_parameter"),
        ({"tools": [{"type": "function"}]}, "tools", "unsupported_parameter"),
        ({"functions": [{}]}, "functions", "unsupported_parameter"),
        ({"response_format": {"type": "json_object"}}, "response_format", "unsupported_parameter"),
        ({"modalities": ["audio"]}, "modalities", "unsupported_parameter"),
        ({"reasoning_effort": "low"}, "reasoning_effort", "unsupported_parameter"),
        ({"temprature": 1}, "temprature", "unknown_parameter"),
        ({"temperature": 2.1}, "temperature", "invalid_value"),
        ({"temperature": float("nan")}, "temperature", "invalid_value"),
        ({"temperature": True}, "temperature", "invalid_value"),
        ({"top_p": -0.1}, "top_p", "invalid_value"),
        ({"n": 0}, "n", "invalid_value"),
        ({"n": 1000}, "n", "invalid_value"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"max_tokens": 1.5}, "max_tokens", "invalid_value"),
        ({"stop": [""]}, "stop", "invalid_value"),
        ({"stop": list("abcde")}, "stop", "invalid_value"),
        ({"stop": 3}, "stop", "invalid_value"),
        ({"seed": "x"}, "seed", "invalid_value"),
        ({"stream": "yes"}, "stream", "invalid_value"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value"),
        ({"top_logprobs": 3}, "top_logprobs", "invalid_value"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "invalid_value"),
        ({"logit_bias": {"1": 101}}, "logit_bias", "invalid_value"),
        ({"logit_bias": {"a": 1}}, "logit_bias", "invalid_value"),
        ({"orbweaver": {"preference": {"a": "much"}}}, "orbweaver.preference", "invalid_value"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named(change: dict[str, Any], param: str, code: str) -> None:
    error = refused(read_chat, {"model": "m", "messages": ASK} | change)
    assert (error.param, error.code) == (param, code)
    assert error.message


@pytest.mark.parametrize("body", [[], "x", None, 3])
def test_a_body_that_is_no_object_is_refused(body: Any) -> None:
    assert refused(read_chat, body).code == "invalid_body"


@pytest.mark.parametrize("prompt", ["a", [1, 2], ["a", "b"], [[1], [2, 3]]])
def test_prompts_are_texts_or_tokens(prompt: Any) -> None:
    asked = read_completion({"model": "m", "prompt": prompt})
    assert len(asked.prompts) == (2 if prompt in (["a", "b"], [[1], [2, 3]]) else 1)


@pytest.mark.parametrize("prompt", [None, [], [[]], [1, "a"], [True], {"a": 1}, 5])
def test_other_prompts_are_refused(prompt: Any) -> None:
    assert refused(read_completion, {"model": "m", "prompt": prompt}).param == "prompt"


@pytest.mark.parametrize("change", [{"echo": True}, {"suffix": "x"}, {"best_of": 3}, {"logprobs": 6}])
def test_what_completions_cannot_do_is_named(change: dict[str, Any]) -> None:
    assert refused(read_completion, {"model": "m", "prompt": "x", **change}).param == next(iter(change))


@pytest.mark.parametrize("change", [{"input": []}, {"input": None}, {"encoding_format": "hex"}, {"dimensions": 0}])
def test_wrong_embeddings_requests_are_named(change: dict[str, Any]) -> None:
    assert refused(read_embeddings, {"model": "m", "input": "x", **change}).param == next(iter(change))
