"""The executor on its own: deployments of one candidate, windows, and what the health board learns."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import orjson
import pytest

from gateway.errors import Overloaded, UpstreamUnreachable
from gateway.registry.records import Candidate, Deployment, Endpoint
from gateway.settings import CircuitSettings, RetrySettings
from gateway.upstreams.base import Timeouts
from gateway.upstreams.execute import Executor
from gateway.upstreams.health import HealthBoard
from gateway.upstreams.outbound import OutboundRequest, Served
from tests.support.scripted_upstream import Reply, ScriptedUpstream, chat_answer, chat_stream, error_answer

TOO_LONG = error_answer(400, "prompt is too long: 9000 tokens", "context_length_exceeded")


def candidate(name: str, *upstreams: ScriptedUpstream, window: int | None = None) -> Candidate:
    places = [Deployment(f"{name}#{index}", each.base_url, f"{name}-model") for index, each in enumerate(upstreams)]
    return Candidate(name, tuple(places), context_window=window)


def request(*, stream: bool = False, named: bool = False) -> OutboundRequest:
    body = {"model": "any", "messages": [{"role": "user", "content": "hi"}], "stream": stream}
    return OutboundRequest(Endpoint.CHAT, orjson.dumps(body), body, stream, {}, named)


@asynccontextmanager
async def an_executor(retries: int = 0, answer_s: float = 20) -> AsyncIterator[Executor]:
    board = HealthBoard(CircuitSettings(failures=2, cooldown_s=30), time.monotonic)
    limits = Timeouts(connect_s=5, first_token_s=5, answer_s=answer_s, idle_s=5, total_s=20)
    executor = Executor(board, timeouts=limits, retry=RetrySettings(retries=retries, backoff_s=0))
    try:
        yield executor
    finally:
        await executor.close()


async def run(executor: Executor, order: Sequence[Candidate], outbound: OutboundRequest | None = None) -> Served:
    with executor.watch(None) as watch:
        served = await executor.execute(order, outbound or request(), watch)
        if served.stream is not None:
            async for _ in served.stream:
                pass
            served.stream.end()
            await served.stream.release()
        return served


async def test_another_deployment_of_the_same_model_takes_over() -> None:
    async with ScriptedUpstream() as first, ScriptedUpstream() as second, an_executor() as executor:
        first.always(error_answer(500, "no"))
        served = await run(executor, [candidate("m", first, second)], request(named=True))
        assert served.ok
        assert {model for model, _, _ in served.attempts} == {"m"}
        assert served.attempts[-1] == ("m", "m#1", "ok")


async def test_a_model_that_never_answers_is_left_for_the_next_one_but_the_last_may_take_its_time() -> None:
    async with ScriptedUpstream() as silent, ScriptedUpstream() as slow, an_executor(answer_s=0.2) as executor:
        silent.always(Reply(hang=True))
        slow.always(Reply(delay_s=0.6, body=chat_answer("late but here")))
        served = await run(executor, [candidate("silent", silent), candidate("slow", slow)])
        assert served.ok
        assert [label for _, _, label in served.attempts] == ["timeout_answer", "ok"]


async def test_a_rate_limited_deployment_hands_over_to_the_next() -> None:
    async with ScriptedUpstream() as first, ScriptedUpstream() as second, an_executor() as executor:
        first.always(error_answer(429, "slow", retry_after="60"))
        model = candidate("m", first, second)
        for _ in range(6):
            assert (await run(executor, [model], request(named=True))).ok
        assert len(first.requests) <= 1
        assert executor.board.vitals(model).available


async def test_busy_deployments_share_the_load() -> None:
    async with ScriptedUpstream() as first, ScriptedUpstream() as second, an_executor() as executor:
        model = candidate("m", first, second)
        for upstream in (first, second):
            upstream.always(Reply(body=chat_answer(), delay_s=0.1))
        await asyncio.gather(*(run(executor, [model]) for _ in range(10)))
        assert (len(first.requests), len(second.requests)) == (5, 5)


WINDOWS = {
    "only larger ones": ([8_000, 4_000, 8_000, 32_000, 64_000], "c3"),
    "unknown ones are not larger": ([8_000, None, 32_000], "c2"),
}


@pytest.mark.parametrize(("windows", "answered"), WINDOWS.values(), ids=WINDOWS)
async def test_a_prompt_too_long_goes_to_a_larger_window_only(windows: list[int | None], answered: str) -> None:
    async with ScriptedUpstream() as small, ScriptedUpstream() as large, an_executor() as executor:
        small.always(TOO_LONG)
        order = [candidate(f"c{index}", small if not index else large, window=w) for index, w in enumerate(windows)]
        served = await run(executor, order)
        assert served.candidate.name == answered
        assert len(small.requests) == 1


async def test_a_prompt_too_long_for_all_is_told_as_the_upstream_said_it() -> None:
    async with ScriptedUpstream() as small, an_executor() as executor:
        small.always(TOO_LONG)
        served = await run(executor, [candidate("a", small, window=32_000), candidate("b", small, window=8_000)])
        assert (served.status, served.ok) == (400, False)
        assert orjson.loads(served.body)["error"]["code"] == "context_length_exceeded"
        assert len(small.requests) == 1


async def test_it_keeps_to_the_order_and_never_asks_twice() -> None:
    async with ScriptedUpstream() as broken, ScriptedUpstream() as working, an_executor() as executor:
        broken.always(error_answer(500, "no"))
        order = [candidate(name, broken) for name in ("a", "b", "c")] + [candidate("d", working)]
        served = await run(executor, order)
        assert [model for model, _, _ in served.attempts] == ["a", "b", "c", "d"]


async def test_open_circuits_are_skipped_until_nothing_else_is_left() -> None:
    async with ScriptedUpstream() as broken, ScriptedUpstream() as working, an_executor() as executor:
        broken.always(error_answer(500, "no"))
        order = [candidate("a", broken), candidate("b", working)]
        for _ in range(4):
            assert (await run(executor, order)).candidate.name == "b"
        assert len(broken.requests) == 2
        assert (await run(executor, order[:1])).status == 500
        assert len(broken.requests) == 3


async def test_when_nobody_can_be_reached_the_error_lists_all_tries() -> None:
    async with ScriptedUpstream() as gone, an_executor(retries=1) as executor:
        order = [candidate("a", gone), candidate("b", gone)]
        await gone.stop()
        with pytest.raises(UpstreamUnreachable) as raised:
            await run(executor, order)
        assert [model for model, _, _ in raised.value.attempts] == ["a", "a", "b", "b"]


async def test_an_empty_order_is_refused() -> None:
    async with an_executor() as executor:
        with pytest.raises(Overloaded):
            await run(executor, [])


async def test_the_board_learns_speed_from_streams() -> None:
    async with ScriptedUpstream() as upstream, an_executor() as executor:
        upstream.always(chat_stream(usage={"prompt_tokens": 1, "completion_tokens": 40, "total_tokens": 41}))
        model = candidate("m", upstream)
        await run(executor, [model], request(stream=True))
        vitals = executor.board.vitals(model)
        assert vitals.ttft_s is not None
        assert vitals.output_tokens == 40
        assert vitals.tokens_per_s is not None


async def test_a_stream_that_breaks_counts_against_its_deployment() -> None:
    async with ScriptedUpstream() as upstream, an_executor() as executor:
        script = chat_stream()
        upstream.always(Reply(pieces=list(script.pieces or ())[:3], drop=True))
        model = candidate("m", upstream)
        for _ in range(2):
            served = await run(executor, [model], request(stream=True))
            assert served.stream is not None
            assert served.stream.outcome == "upstream_error"
        assert not executor.board.vitals(model).available


async def test_a_translated_provider_has_no_responses_endpoint() -> None:
    async with an_executor() as executor:
        model = Candidate("claude", (Deployment("claude#0", "http://127.0.0.1:9", "c", provider="anthropic"),))
        outbound = request(named=True)
        outbound.endpoint = Endpoint.RESPONSES
        served = await run(executor, [model], outbound)
        assert served.status == 400
        assert orjson.loads(served.body)["error"]["code"] == "unsupported_endpoint"
