"""The SDK's retry contract through the gateway: which answers it retries, how long it waits, what it tells us."""

from __future__ import annotations

from collections.abc import AsyncIterator

import openai
import pytest
from openai import AsyncOpenAI

from gateway.telemetry.record import RequestRecord
from tests.contract.conftest import ASK, Wire
from tests.support.scripted_upstream import Reply, chat_answer, error_answer

FINE = Reply(body=chat_answer("At last."))


@pytest.fixture
async def patient(wire: Wire) -> AsyncIterator[AsyncOpenAI]:
    """The SDK with one retry."""
    async with AsyncOpenAI(base_url=wire.gateway.base_url, api_key="sk-client-secret", max_retries=1) as sdk:
        yield sdk


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503])
async def test_the_sdk_retries_what_the_upstream_refused_for_now(wire: Wire, patient: AsyncOpenAI, status: int) -> None:
    wire.upstream.script(error_answer(status, "Not now.", retry_after_ms="1"), FINE)
    answer = await patient.chat.completions.create(model="small", messages=ASK)
    assert answer.choices[0].message.content == "At last."
    assert len(wire.upstream.requests) == 2


@pytest.mark.parametrize(("status", "word", "tries"), [(500, "false", 1), (400, "true", 2)])
async def test_the_upstreams_word_on_retrying_is_followed(
    wire: Wire, patient: AsyncOpenAI, status: int, word: str, tries: int
) -> None:
    wire.upstream.always(error_answer(status, "No.", x_should_retry=word, retry_after_ms="1"))
    with pytest.raises(openai.APIStatusError):
        await patient.chat.completions.create(model="small", messages=ASK)
    assert len(wire.upstream.requests) == tries


async def test_an_idempotency_key_is_the_same_in_both_tries(wire: Wire, patient: AsyncOpenAI) -> None:
    wire.upstream.script(error_answer(503, "Not now.", retry_after_ms="1"), FINE)
    await patient.chat.completions.create(model="small", messages=ASK, extra_headers={"Idempotency-Key": "once"})
    assert [request.headers["idempotency-key"] for request in wire.upstream.requests] == ["once", "once"]


async def test_the_retry_count_of_the_sdk_is_recorded(wire: Wire, patient: AsyncOpenAI) -> None:
    records: list[RequestRecord] = []

    class Keep:
        def record(self, record: RequestRecord) -> None:
            records.append(record)

    wire.gateway.services.sinks = [Keep()]
    wire.upstream.script(error_answer(503, "Not now.", retry_after_ms="1"), FINE)
    await patient.chat.completions.create(model="small", messages=ASK)
    assert [record.retry_count for record in records] == [0, 1]
    assert [record.outcome for record in records] == ["upstream_error", "ok"]


ERRORS: dict[str, tuple[Reply, type[openai.APIStatusError]]] = {
    "401": (error_answer(401, "Bad key.", "invalid_api_key"), openai.AuthenticationError),
    "403": (error_answer(403, "Not you.", "permission_denied"), openai.PermissionDeniedError),
    "404": (error_answer(404, "Nothing.", "model_not_found"), openai.NotFoundError),
    "409": (error_answer(409, "Twice.", "conflict"), openai.ConflictError),
    "422": (error_answer(422, "Odd.", "invalid_value"), openai.UnprocessableEntityError),
    "500": (error_answer(500, "Oops.", None), openai.InternalServerError),
}


@pytest.mark.parametrize(("reply", "kind"), ERRORS.values(), ids=ERRORS)
async def test_each_status_raises_its_own_error_with_code_and_request_id(
    wire: Wire, reply: Reply, kind: type[openai.APIStatusError]
) -> None:
    wire.upstream.script(reply)
    with pytest.raises(kind) as raised:
        await wire.sdk.chat.completions.create(model="small", messages=ASK)
    assert raised.value.code == reply.body["error"]["code"]
    assert raised.value.request_id


async def test_a_body_too_large_raises_with_its_code(wire: Wire) -> None:
    with pytest.raises(openai.APIStatusError) as raised:
        await wire.sdk.chat.completions.create(
            model="small", messages=[{"role": "user", "content": "x" * (32 * 2**20 + 1)}]
        )
    assert raised.value.status_code == 413
    assert raised.value.code == "request_too_large"


async def test_a_number_as_code_reaches_the_sdk_as_the_upstream_wrote_it(wire: Wire) -> None:
    wire.upstream.script(Reply(400, {"error": {"message": "No.", "code": 4711}}))
    with pytest.raises(openai.BadRequestError) as raised:
        await wire.sdk.chat.completions.create(model="small", messages=ASK)
    assert str(raised.value.code) == "4711"


async def test_an_error_that_is_not_wrapped_reaches_the_sdk_whole(wire: Wire) -> None:
    body = {"detail": "Their framework's own words."}
    wire.upstream.script(Reply(422, body))
    with pytest.raises(openai.UnprocessableEntityError) as raised:
        await wire.sdk.chat.completions.create(model="small", messages=ASK)
    assert raised.value.body == body
