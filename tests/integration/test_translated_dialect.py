"""Anthropic's dialect behind the gateway becomes OpenAI's wire format: unary, streams, tools, errors, cancellation."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from gateway.routing.prior import PriorScorer
from tests.support.live_gateway import gateway_settings, live_gateway
from tests.support.scripted_anthropic import anthropic_error, anthropic_reply
from tests.support.scripted_upstream import Reply, ScriptedUpstream

pytest.importorskip("litellm", reason="the extra `providers` is not installed")
pytestmark = [
    # litellm and what it imports use deprecated features of their dependencies, and leave sockets to the collector.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
ASK: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Say hello."}]
PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOLS: Any = [{"type": "function", "function": {"name": "get_weather", "strict": True, "parameters": PARAMETERS}}]


@pytest.fixture
async def anthropic() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as upstream:
        yield upstream.always(anthropic_reply)


@pytest.fixture
async def sdk(
    anthropic: ScriptedUpstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[AsyncOpenAI]:
    monkeypatch.setenv("CLAUDE_KEY", "sk-ant-secret")
    claude = {
        "name": "claude",
        "provider": "anthropic",
        "base_url": anthropic.base_url,
        "upstream_model": "claude-scripted",
        "api_key_env": "CLAUDE_KEY",
        "can": ["tools"],
    }
    settings = gateway_settings(tmp_path, [claude], retry={"retries": 0, "backoff_s": 0.0})
    async with (
        live_gateway(settings, scorer=PriorScorer()) as gateway,
        AsyncOpenAI(base_url=gateway.base_url, api_key="sk-client", max_retries=0, timeout=60) as sdk,
    ):
        yield sdk


async def test_a_unary_answer(sdk: AsyncOpenAI, anthropic: ScriptedUpstream) -> None:
    raw = await sdk.chat.completions.with_raw_response.create(model="claude", messages=ASK, max_tokens=50, seed=1)
    answer = raw.parse()
    assert answer.object == "chat.completion"
    assert answer.choices[0].message.content == "Hello there."
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (11, 5)
    assert answer._request_id == "req_anthropic"
    assert raw.headers["x-orbweaver-model"] == "claude"
    assert anthropic.last.path == "/v1/messages"
    assert anthropic.last.headers["x-api-key"] == "sk-ant-secret"
    assert anthropic.last.json["system"][0]["text"] == "Be brief."
    assert anthropic.last.json["max_tokens"] == 50


async def test_auto_reaches_it_too(sdk: AsyncOpenAI) -> None:
    answer = await sdk.chat.completions.create(model="auto", messages=ASK)
    assert answer.choices[0].message.content == "Hello there."


async def test_a_stream_ends_with_done_and_without_usage(sdk: AsyncOpenAI) -> None:
    async with sdk.chat.completions.with_streaming_response.create(model="claude", messages=ASK, stream=True) as raw:
        text = await raw.text()
    assert raw.headers["content-type"].startswith("text/event-stream")
    assert text.endswith("data: [DONE]\n\n")
    assert text.count("[DONE]") == 1
    assert '"usage"' not in text


async def test_the_chunks_of_a_stream(sdk: AsyncOpenAI) -> None:
    options: Any = {"include_usage": True}
    stream = await sdk.chat.completions.create(model="claude", messages=ASK, stream=True, stream_options=options)
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == "Hello there."
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]].count("stop") == 1
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 5


async def test_a_tool_call(sdk: AsyncOpenAI, anthropic: ScriptedUpstream) -> None:
    answer = await sdk.chat.completions.create(model="claude", messages=ASK, tools=TOOLS)
    (call,) = answer.choices[0].message.tool_calls or []
    assert (call.id, call.type) == ("toolu_1", "function")
    assert call.function.name == "get_weather"
    assert call.function.arguments == '{"city": "Turin"}'
    assert answer.choices[0].finish_reason == "tool_calls"
    assert answer.choices[0].message.content is None
    assert anthropic.last.json["tools"][0]["name"] == "get_weather"


async def test_a_streamed_tool_call(sdk: AsyncOpenAI) -> None:
    async with sdk.chat.completions.stream(model="claude", messages=ASK, tools=TOOLS) as stream:
        final = await stream.get_final_completion()
    (call,) = final.choices[0].message.tool_calls or []
    assert call.function.parsed_arguments == {"city": "Turin"}


async def test_the_turn_after_a_tool_call(sdk: AsyncOpenAI, anthropic: ScriptedUpstream) -> None:
    call = {"id": "toolu_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Turin"}'}}
    turns: Any = [
        *ASK,
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "toolu_1", "content": "sun"},
    ]
    await sdk.chat.completions.create(model="claude", messages=turns)
    assert anthropic.last.json["messages"][-1]["content"][0]["type"] == "tool_result"


ERRORS: dict[str, tuple[Reply, type[openai.APIStatusError], str | None]] = {
    "rate limit": (
        anthropic_error(429, "rate_limit_error", "Slow down.", retry_after="7"),
        openai.RateLimitError,
        "rate_limit_exceeded",
    ),
    "too long": (
        anthropic_error(400, "invalid_request_error", "prompt is too long: 300000 tokens > 200000 maximum"),
        openai.BadRequestError,
        "context_length_exceeded",
    ),
    "key": (anthropic_error(401, "authentication_error", "Bad key."), openai.AuthenticationError, "invalid_api_key"),
    "model": (anthropic_error(404, "not_found_error", "No such model."), openai.NotFoundError, "model_not_found"),
    "server": (anthropic_error(500, "api_error", "Sorry."), openai.InternalServerError, None),
}


@pytest.mark.parametrize(("reply", "error", "code"), ERRORS.values(), ids=ERRORS)
@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
async def test_errors(
    sdk: AsyncOpenAI,
    anthropic: ScriptedUpstream,
    reply: Reply,
    error: type[openai.APIStatusError],
    code: str | None,
    stream: bool,
) -> None:
    anthropic.script(reply)
    with pytest.raises(error) as raised:
        await sdk.chat.completions.create(model="claude", messages=ASK, stream=stream)
    assert raised.value.code == code
    assert reply.body["error"]["message"] in raised.value.message
    assert "litellm" not in raised.value.message
    assert raised.value.response.headers.get("retry-after") == reply.headers.get("retry-after")


async def test_a_client_that_leaves_ends_the_call(sdk: AsyncOpenAI, anthropic: ScriptedUpstream) -> None:
    await sdk.chat.completions.create(model="claude", messages=ASK)
    anthropic.script(Reply(hang=True))
    request = asyncio.ensure_future(sdk.chat.completions.create(model="claude", messages=ASK))
    received = await anthropic.wait_for_requests(2)
    request.cancel()
    await asyncio.wait_for(received.left.wait(), 2)


async def test_a_client_cannot_redirect_the_call_or_the_key(sdk: AsyncOpenAI, anthropic: ScriptedUpstream) -> None:
    async with ScriptedUpstream() as attacker:
        attacker.always(anthropic_reply)
        elsewhere = {"api_base": attacker.base_url, "base_url": attacker.base_url, "api_key": "x", "mock_response": "x"}
        answer = await sdk.chat.completions.create(model="claude", messages=ASK, extra_body=elsewhere)
        assert answer.choices[0].message.content == "Hello there."
        assert not attacker.requests
        assert anthropic.last.headers["x-api-key"] == "sk-ant-secret"


def test_litellm_is_not_imported_until_a_call_needs_it() -> None:
    code = (
        "import sys, gateway.app, gateway.upstreams.litellm_upstream as m; m.LitellmUpstream();"
        "sys.exit('litellm' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
