"""Unary answers come back as the upstream gave them (points U1 to U16 of the conformance list)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.conftest import ASK, Wire
from tests.support.scripted_upstream import Reply, chat_answer, encode_body

TOOL_CALLS = [
    {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Rom"}'}},
    {"id": "call_2", "type": "function", "function": {"name": "get_time", "arguments": "{}"}},
]


async def test_answers_with_a_chat_completion(wire: Wire) -> None:  # U1
    response = await wire.chat(Reply(body=chat_answer("Hi.")))
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("application/json")
    assert response.json()["object"] == "chat.completion"
    assert response.json()["choices"][0]["message"]["content"] == "Hi."


async def test_the_body_is_relayed_byte_for_byte(wire: Wire) -> None:
    body = b'{ "object":"chat.completion","n":1.50,  "big":123456789012345678901234567890, "choices": [] }'
    response = await wire.chat(Reply(body=body))
    assert response.content == body


async def test_unicode_content_is_intact(wire: Wire) -> None:  # U2
    text = "Grüße, 世界 \U0001f30d \u2028 \x7f"
    response = await wire.chat(Reply(body=chat_answer(text)))
    assert response.json()["choices"][0]["message"]["content"] == text


KEPT_AT_TOP: dict[str, Any] = {
    "U3 usage": {
        "usage": {
            "prompt_tokens": 91,
            "completion_tokens": 17,
            "total_tokens": 108,
            "prompt_tokens_details": {"cached_tokens": 64, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 5, "accepted_prediction_tokens": 1},
        }
    },
    "U4 id and created": {"id": "chatcmpl-their-own", "created": 1712345678},
    "U5 fingerprint and tier": {"system_fingerprint": "fp_44709d6fcb", "service_tier": "default"},
    "U14 unknown fields": {"citations": ["https://example.org"], "x_vendor": {"a": [1, None]}},
}


@pytest.mark.parametrize("fields", KEPT_AT_TOP.values(), ids=KEPT_AT_TOP)
async def test_top_level_fields_are_kept(wire: Wire, fields: dict[str, Any]) -> None:
    answer = (await wire.chat(Reply(body=chat_answer(**fields)))).json()
    assert {name: answer[name] for name in fields} == fields


KEPT_IN_MESSAGE: dict[str, Any] = {
    "U8 tool calls": {"content": None, "tool_calls": TOOL_CALLS},
    "U9 refusal": {"content": None, "refusal": "I cannot help with that."},
    "U13 reasoning": {"content": "4", "reasoning_content": "2 and 2"},
}


@pytest.mark.parametrize("message", KEPT_IN_MESSAGE.values(), ids=KEPT_IN_MESSAGE)
async def test_message_fields_are_kept(wire: Wire, message: dict[str, Any]) -> None:
    answer = (await wire.chat(Reply(body=chat_answer(message=message)))).json()
    found = answer["choices"][0]["message"]
    assert {name: found[name] for name in message} == message


async def test_request_id_of_the_upstream_comes_back(wire: Wire) -> None:  # U6
    response = await wire.chat(Reply(body=chat_answer(), headers={"x-request-id": "req_theirs"}))
    assert response.headers.get_list("x-request-id") == ["req_theirs"]


async def test_an_own_request_id_is_given_where_the_upstream_has_none(wire: Wire) -> None:  # U6
    response = await wire.chat(Reply(body=chat_answer()))
    assert response.headers["x-request-id"].startswith("req_")


async def test_limits_and_other_headers_of_the_upstream_come_back_unprefixed(wire: Wire) -> None:  # U7
    sent = {
        "x-ratelimit-limit-requests": "5000",
        "x-ratelimit-remaining-tokens": "149984",
        "x-ratelimit-reset-requests": "12ms",
        "openai-processing-ms": "37",
        "openai-organization": "org-1",
        "openai-version": "2020-10-01",
    }
    response = await wire.chat(Reply(body=chat_answer(), headers=sent))
    assert {name: response.headers.get(name) for name in sent} == sent


async def test_headers_of_the_connection_stay_behind(wire: Wire) -> None:
    sent = {"set-cookie": "session=1", "strict-transport-security": "max-age=1", "x-orbweaver-model": "forged"}
    response = await wire.chat(Reply(body=chat_answer(), headers=sent))
    assert "set-cookie" not in response.headers
    assert response.headers.get_list("x-orbweaver-model") == ["small"]
    assert response.headers["content-length"] == str(len(response.content))


async def test_several_choices_stay_in_order(wire: Wire) -> None:  # U10
    first = chat_answer("one")["choices"][0]
    choices = [{**first, "index": 0}, {**first, "index": 1, "message": {"role": "assistant", "content": "two"}}]
    answer = (await wire.chat(Reply(body=chat_answer(choices=choices)), n=2)).json()
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]
    assert answer["choices"][1]["message"]["content"] == "two"


@pytest.mark.parametrize("reason", ["length", "content_filter", "tool_calls"])
async def test_finish_reason_is_kept(wire: Wire, reason: str) -> None:  # U11
    answer = (await wire.chat(Reply(body=chat_answer(choice={"finish_reason": reason})))).json()
    assert answer["choices"][0]["finish_reason"] == reason


async def test_logprobs_are_kept(wire: Wire) -> None:  # U12
    token = {"token": "Hi", "logprob": -0.25, "bytes": [72, 105], "top_logprobs": []}
    logprobs = {"content": [token], "refusal": None}
    answer = (await wire.chat(Reply(body=chat_answer(choice={"logprobs": logprobs})), logprobs=True)).json()
    assert answer["choices"][0]["logprobs"] == logprobs


@pytest.mark.parametrize("accepted", ["gzip", "identity"])
async def test_a_compressed_upstream_body_arrives_readable(wire: Wire, accepted: str) -> None:  # U15
    response = await wire.chat(Reply(body=chat_answer("Packed."), gzip=True), headers={"accept-encoding": accepted})
    assert response.json()["choices"][0]["message"]["content"] == "Packed."
    assert response.headers.get("content-encoding") == ("gzip" if accepted == "gzip" else None)


async def test_the_sdk_parses_the_answer_and_finds_the_request_id(wire: Wire) -> None:  # U16
    wire.upstream.script(Reply(body=chat_answer("Hi."), headers={"x-request-id": "req_sdk"}))
    answer = await wire.sdk.chat.completions.create(model="small", messages=ASK)
    assert answer.choices[0].message.content == "Hi."
    assert answer._request_id == "req_sdk"


async def test_a_large_answer_is_relayed_whole(wire: Wire) -> None:
    answer = chat_answer("x" * 3_000_000)
    response = await wire.chat(Reply(body=answer))
    assert response.content == encode_body(answer)


async def test_decision_headers_tell_who_answered(wire: Wire) -> None:
    response = await wire.chat(Reply(body=chat_answer()))
    assert response.headers["x-orbweaver-model"] == "small"
    assert response.headers["x-orbweaver-decision-id"]
    assert response.headers["x-orbweaver-reason"].startswith("named")
    assert float(response.headers["x-orbweaver-overhead-ms"]) >= 0
    assert response.headers["x-orbweaver-fallbacks"] == "0"
