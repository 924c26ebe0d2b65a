"""A candidate as an answer source: OpenAI's form and its many variants, failures with their kind, and the probes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from aptitude_tests.build import build_suite
from aptitude_tests.caller import Caller, FlowLimits, FlowStopped
from aptitude_tests.item import ToolCall
from aptitude_tests.probes import Finding, Probes, probe
from aptitude_tests.source import AskFailure, Question
from gateway.aptitude.abilities import corrected
from gateway.aptitude.source import UpstreamSource
from gateway.registry.records import Ability
from gateway.upstreams.base import Timeouts
from gateway.upstreams.probe import ProbeUpstreams
from tests.support.answering import AnsweringModel, write_suite
from tests.support.registry import candidate
from tests.support.scripted_upstream import (
    Received,
    Reply,
    Script,
    ScriptedUpstream,
    chat_answer,
    chat_stream,
    error_answer,
)

QUESTION = Question({"messages": [{"role": "user", "content": "Hello?"}]}, 50)


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as upstream:
        yield upstream


@pytest.fixture
async def source(upstream: ScriptedUpstream) -> AsyncIterator[UpstreamSource]:
    async with ProbeUpstreams() as upstream_for:
        yield UpstreamSource(candidate("new", upstream.base_url), upstream_for, Timeouts(connect_s=2.0))


async def test_an_answer_comes_with_tokens_and_tool_calls(source: UpstreamSource, upstream: ScriptedUpstream) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    upstream.script(Reply(body=chat_answer(None, message={"tool_calls": [call]})))
    found = await source.ask(QUESTION, 5.0)
    assert (found.text, found.tool_calls) == ("", (ToolCall("f", '{"a": 1}'),))
    assert (found.prompt_tokens, found.completion_tokens) == (9, 3)
    assert upstream.last.json["model"] == "new-1"


async def test_a_stream_is_put_together_and_timed(source: UpstreamSource, upstream: ScriptedUpstream) -> None:
    upstream.script(chat_stream(["Hel", "lo"], usage={"prompt_tokens": 3, "completion_tokens": 2}))
    found = await source.ask(replace(QUESTION, stream=True), 5.0)
    assert (found.text, found.finish, found.completion_tokens) == ("Hello", "stop", 2)
    assert found.first_token_s is not None
    assert found.first_token_s <= found.duration_s


async def test_a_server_that_names_a_field_it_does_not_take_is_asked_without_it(
    source: UpstreamSource, upstream: ScriptedUpstream
) -> None:
    upstream.script(error_answer(400, "Use 'max_completion_tokens' instead of 'max_tokens'."))
    upstream.script(error_answer(400, "Unsupported value: 'temperature' must be 1."))
    await source.ask(QUESTION, 5.0)
    body = upstream.last.json
    assert body["max_completion_tokens"] == 50
    assert not {"max_tokens", "temperature"} & body.keys()


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (error_answer(401, "Bad key"), "unauthorized"),
        (error_answer(403, "Not yours"), "unauthorized"),
        (error_answer(404, "The model `x` does not exist", "model_not_found"), "unknown_model"),
        (error_answer(404, "no recorded answer", "prompt_not_recorded"), "refused"),
        (error_answer(400, "Too many tokens"), "refused"),
        (error_answer(429, "Slow down", retry_after="7"), "rate_limited"),
        (error_answer(503, "Busy"), "server"),
        (Reply(body={"hello": 1}), "bad_reply"),
        (Reply(drop=True), "unreachable"),
        (Reply(hang=True), "timeout"),
    ],
)
async def test_a_failure_has_its_kind(
    source: UpstreamSource, upstream: ScriptedUpstream, reply: Script, kind: str
) -> None:
    upstream.always(reply)
    with pytest.raises(AskFailure) as caught:
        await source.ask(QUESTION, 0.5)
    assert caught.value.kind == kind
    assert caught.value.retry_after_s == (7.0 if kind == "rate_limited" else None)


async def test_the_same_model_elsewhere_under_another_name_keeps_its_answers(upstream: ScriptedUpstream) -> None:
    one, other = candidate("one", upstream.base_url), candidate("other", upstream.base_url)
    other = replace(other, deployments=(replace(other.deployments[0], upstream_model="one-1"),))
    async with ProbeUpstreams() as upstream_for:
        identities = {UpstreamSource(each, upstream_for, Timeouts()).identity for each in (one, other)}
    assert len(identities) == 1


async def test_probes_tell_what_an_endpoint_can(
    source: UpstreamSource, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    upstream.always(AnsweringModel(build_suite(str(write_suite(tmp_path / "n.jsonl")))))
    found = await probe(Caller(source, FlowLimits(concurrency=4)))
    able = {name: finding.able for name, finding in found.abilities.items()}
    assert able == {"streaming": True, "tools": True, "json_schema": True, "vision": False}
    assert found.context_accepted == 9  # as the scripted server reports it
    assert found.languages == ()


async def test_the_limit_on_a_prompt_is_found_and_believed(source: UpstreamSource, upstream: ScriptedUpstream) -> None:
    def answer(received: Received) -> Reply:
        if len(received.body) > 20_000:
            return error_answer(400, "This model's maximum context length is 4096 tokens.", "context_length_exceeded")
        return Reply(body=chat_answer("ready"))

    upstream.always(answer)
    found = await probe(Caller(source, FlowLimits(concurrency=4)))
    assert (found.context_limit, found.context_accepted) == (4096, 9)


async def test_probes_of_an_endpoint_for_recorded_prompts_say_nothing(
    source: UpstreamSource, upstream: ScriptedUpstream
) -> None:
    upstream.always(error_answer(404, "no recorded answer", "prompt_not_recorded"))
    found = await probe(Caller(source))
    assert {finding.able for finding in found.abilities.values()} == {None}
    assert len(upstream.requests) == 1


async def test_probes_end_at_once_with_a_wrong_key(source: UpstreamSource, upstream: ScriptedUpstream) -> None:
    upstream.always(error_answer(401, "Bad key"))
    with pytest.raises(FlowStopped, match="Bad key"):
        await probe(Caller(source))
    assert len(upstream.requests) == 1


def test_declared_abilities_are_filled_in_and_false_ones_corrected_with_a_warning() -> None:
    declared = candidate(can=frozenset({Ability.TOOLS, Ability.AUDIO}), context_window=32_000)
    probes = Probes(
        {"tools": Finding(False, "it answered in words"), "vision": Finding(True), "json_schema": Finding(None)},
        context_limit=8192,
    )
    shown, warnings = corrected(declared, probes)
    assert shown.can == {Ability.VISION, Ability.AUDIO}
    assert shown.context_window == 8192
    assert len(warnings) == 2
    kept, more = corrected(replace(declared, source="config"), probes)
    assert kept.can == declared.can
    assert "config file" in more[-1]
