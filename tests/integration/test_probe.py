"""`models test`: real calls to a scripted server, and what is said where they fail."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.registry.records import Candidate, Deployment, Endpoint
from gateway.upstreams.base import Timeouts
from gateway.upstreams.probe import Probe, ProbeUpstreams, probe
from tests.support.scripted_upstream import (
    DONE,
    Received,
    Reply,
    ScriptedUpstream,
    chat_answer,
    chat_chunk,
    error_answer,
    event,
)


async def proved(upstream: ScriptedUpstream, *, deadline_s: float = 10.0, **changes: object) -> list[Probe]:
    place = Deployment("small#0", upstream.base_url, "scripted-1")
    candidate = replace(Candidate("small", (place,)), **changes)  # type: ignore[arg-type]
    async with ProbeUpstreams() as upstream_for:
        return await probe(candidate, upstream_for, Timeouts(connect_s=2.0), deadline_s=deadline_s)


async def test_a_good_server_passes_unary_and_streaming() -> None:
    async with ScriptedUpstream() as upstream:
        unary, stream = await proved(upstream)
    assert (unary.ok, stream.ok) == (True, True)
    assert (unary.prompt_tokens, unary.completion_tokens, unary.answered_as) == (9, 3, "scripted-1")
    assert (stream.prompt_tokens, stream.completion_tokens, stream.reply) == (9, 4, "Hello there.")
    assert stream.first_token_s is not None


@pytest.mark.parametrize("endpoint", [Endpoint.COMPLETIONS, Endpoint.RESPONSES])
async def test_other_endpoints_are_probed_in_their_own_form(endpoint: Endpoint) -> None:
    async with ScriptedUpstream() as upstream:
        results = await proved(upstream, endpoints=frozenset({endpoint}))
        assert upstream.last.path.endswith(endpoint.value)
    assert [result.ok for result in results] == [True, True]
    assert results[1].reply


async def test_an_embedding_model_is_probed_with_an_embedding() -> None:
    async with ScriptedUpstream() as upstream:
        (result,) = await proved(upstream, endpoints=frozenset({Endpoint.EMBEDDINGS}))
    assert result.ok
    assert result.prompt_tokens == 5


async def test_every_deployment_is_probed() -> None:
    async with ScriptedUpstream() as first, ScriptedUpstream() as second:
        places = tuple(Deployment(f"s#{n}", up.base_url, "scripted-1") for n, up in enumerate((first, second)))
        results = await proved(first, deployments=places)
    assert [(result.deployment, result.ok) for result in results] == [("s#0", True)] * 2 + [("s#1", True)] * 2


async def test_a_model_that_wants_max_completion_tokens_gets_them() -> None:
    def picky(received: Received) -> Reply:
        if "max_tokens" in received.json:
            return error_answer(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
        return Reply(body=chat_answer("ready"))

    async with ScriptedUpstream(picky, picky) as upstream:
        unary = (await proved(upstream))[0]
    assert unary.ok
    assert unary.reply == "ready"


@pytest.mark.parametrize(
    ("reply", "error", "hint"),
    [
        (error_answer(401, "Bad key"), "401: Bad key", "--api-key-env"),
        (error_answer(404, "No such model"), "404: No such model", "base_url"),
        (error_answer(429, "Slow down"), "429", "try again later"),
        (Reply(body="<html>hi</html>", headers={"content-type": "text/html"}), "no answer in OpenAI's form", None),
        (Reply(drop=True), "connection", None),
    ],
    ids=["key", "model", "limit", "html", "drop"],
)
async def test_a_failure_says_what_happened_and_what_to_do(reply: Reply, error: str, hint: str | None) -> None:
    async with ScriptedUpstream(reply) as upstream:
        (result,) = await proved(upstream)
    assert not result.ok
    assert error in (result.error or "")
    assert hint is None or hint in (result.hint or "")


async def test_a_wrong_model_name_is_told_what_the_server_has() -> None:
    async with ScriptedUpstream(error_answer(404, "No such model")) as upstream:
        place = Deployment("small#0", upstream.base_url, "scripted-7")
        (result,) = await proved(upstream, deployments=(place,))
    assert result.hint == "The server does not list 'scripted-7'; it has scripted-1."


@pytest.mark.parametrize(
    "stream",
    [
        Reply(pieces=[event({"error": {"message": "out of memory"}}), DONE]),
        Reply(body=chat_answer("not a stream")),
        Reply(pieces=[event(chat_chunk({"content": "Hel"}))], drop=True),
    ],
    ids=["error event", "unary answer", "dies"],
)
async def test_a_server_that_cannot_stream_fails_there(stream: Reply) -> None:
    async with ScriptedUpstream(Reply(body=chat_answer()), stream) as upstream:
        unary, streamed = await proved(upstream)
    assert unary.ok
    assert not streamed.ok
    assert streamed.error


async def test_a_server_that_hangs_is_given_up_on() -> None:
    async with ScriptedUpstream(Reply(hang=True)) as upstream:
        (result,) = await proved(upstream, deadline_s=0.3)
    assert result.error == "No whole answer within 0.3 s."


async def test_a_server_that_is_not_there_is_said_to_refuse() -> None:
    upstream = ScriptedUpstream()
    async with upstream:
        pass
    (result,) = await proved(upstream)
    assert "refused the connection" in (result.error or "")
