"""The other endpoints, with and without `/v1` (points O1 to O5), and streams of the Responses API."""

from __future__ import annotations

import json

import openai
import pytest

from tests.contract.conftest import ASK, Wire, events_of
from tests.support.scripted_upstream import DONE, Reply, event, usual_response

PRESETS = ["auto", "auto:best", "auto:balanced", "auto:cheap", "auto:fast"]


async def test_models_are_listed_with_their_limits(wire: Wire) -> None:  # O1
    answer = (await wire.http.get("/v1/models")).json()
    models = {model["id"]: model for model in answer["data"]}
    assert answer["object"] == "list"
    assert list(models) == [*PRESETS, "small"]
    assert all(model["object"] == "model" and model["owned_by"] and model["created"] for model in models.values())
    assert models["small"]["context_window"] == models["auto"]["context_window"] == 32_768
    assert "tools" in models["auto"]["can"]


async def test_the_sdk_lists_and_shows_models(wire: Wire) -> None:  # O2
    assert [model.id async for model in wire.sdk.models.list()] == [*PRESETS, "small"]
    assert (await wire.sdk.models.retrieve("small")).id == "small"
    assert (await wire.sdk.models.retrieve("auto:cheap")).owned_by == "orbweaver"
    with pytest.raises(openai.NotFoundError) as raised:
        await wire.sdk.models.retrieve("smal")
    assert raised.value.code == "model_not_found"


@pytest.mark.parametrize("model", ["small", "auto"])
async def test_embeddings_are_decoded_by_the_sdk(wire: Wire, model: str) -> None:  # O3
    answer = await wire.sdk.embeddings.create(model=model, input=["a", "b"])
    assert [row.embedding for row in answer.data] == [[0.25, -0.5, 0.0], [0.25, -0.5, 1.0]]
    assert wire.upstream.last.json["encoding_format"] == "base64"
    assert wire.upstream.last.path == "/v1/embeddings"


@pytest.mark.parametrize("model", ["small", "auto"])
async def test_legacy_completions(wire: Wire, model: str) -> None:  # O4
    answer = await wire.sdk.completions.create(model=model, prompt="Say hello.")
    assert answer.choices[0].text == "Hello."
    stream = await wire.sdk.completions.create(model=model, prompt="Say hello.", stream=True)
    assert "".join([chunk.choices[0].text async for chunk in stream]) == "Hello."


@pytest.mark.parametrize("model", ["small", "auto"])
async def test_responses(wire: Wire, model: str) -> None:  # O5
    answer = await wire.sdk.responses.create(model=model, input="Say hello.")
    assert answer.output_text == "Hello."
    stream = await wire.sdk.responses.create(model=model, input="Say hello.", stream=True)
    types = [each.type async for each in stream]
    assert types[0] == "response.created"
    assert types[-1] == "response.completed"


async def test_a_stream_of_responses_is_relayed_byte_for_byte_without_done(wire: Wire) -> None:
    script = usual_response({"model": "scripted-1", "stream": True}, {})
    wire.upstream.script(script)
    response = await wire.http.post("/v1/responses", json={"model": "small", "input": "hi", "stream": True})
    assert response.content == b"".join(piece for piece in script.pieces or () if isinstance(piece, bytes))
    assert b"[DONE]" not in response.content


async def test_a_stream_of_responses_that_breaks_off_raises_in_the_sdk(wire: Wire) -> None:
    script = usual_response({"stream": True}, {})
    wire.upstream.script(Reply(pieces=list(script.pieces or ())[:4], drop=True))
    stream = await wire.sdk.responses.create(model="small", input="hi", stream=True)
    with pytest.raises(openai.APIError, match="broke off"):
        [each async for each in stream]


async def test_a_failed_response_before_any_text_is_an_http_error(wire: Wire) -> None:
    failed = {"type": "response.failed", "response": {"error": {"code": "server_error", "message": "Sorry."}}}
    wire.upstream.script(Reply(pieces=[event(failed, "response.failed")]))
    response = await wire.http.post("/v1/responses", json={"model": "small", "input": "hi", "stream": True})
    assert response.status_code == 502
    assert response.json()["error"]["message"] == "Sorry."


@pytest.mark.parametrize("prefix", ["/v1", ""])
@pytest.mark.parametrize("slash", ["", "/"])
async def test_v1_and_a_trailing_slash_are_optional(wire: Wire, prefix: str, slash: str) -> None:
    bodies = {
        "chat/completions": {"messages": ASK},
        "completions": {"prompt": "hi"},
        "embeddings": {"input": "hi"},
        "responses": {"input": "hi"},
    }
    for path, body in bodies.items():
        response = await wire.http.post(f"{prefix}/{path}{slash}", json={"model": "small", **body})
        assert response.status_code == 200, path
        assert wire.upstream.last.path == f"/v1/{path}"
    assert (await wire.http.get(f"{prefix}/models{slash}")).status_code == 200
    assert (await wire.http.get(f"{prefix}/models/small{slash}")).json()["id"] == "small"


async def test_an_upstreams_own_usage_is_kept_out_of_streams_that_did_not_ask(wire: Wire) -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    chunk = {"id": "x", "object": "text_completion", "choices": [{"index": 0, "text": "Hi", "finish_reason": "stop"}]}
    pieces = [event({**chunk, "usage": None}), event({**chunk, "choices": [], "usage": usage}), DONE]
    wire.upstream.script(Reply(pieces=pieces))
    response = await wire.http.post("/v1/completions", json={"model": "small", "prompt": "hi", "stream": True})
    # Not asked for by us either, so it is the upstream's own word and stays.
    assert json.loads(events_of(response.text)[1])["usage"] == usage
