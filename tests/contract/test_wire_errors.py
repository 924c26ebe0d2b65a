"""Errors keep their status, code and headers, and ours look like OpenAI's (points E1 to E16)."""

from __future__ import annotations

from typing import Any

import httpx
import openai
import pytest

from tests.contract.conftest import ASK, Wire
from tests.support.scripted_upstream import Reply, error_answer


def error_of(response: httpx.Response) -> dict[str, Any]:
    """The error object; every one has these four fields, the message not empty, and the answer a request id."""
    error: dict[str, Any] = response.json()["error"]
    assert set(error) >= {"message", "type", "param", "code"}
    assert error["message"]
    assert response.headers["x-request-id"]
    assert response.headers["content-type"].startswith("application/json")
    return error


UPSTREAM_ERRORS = {
    "E1 context length": (400, "context_length_exceeded", "invalid_request_error"),
    "E2 unsupported value": (400, "unsupported_value", "invalid_request_error"),
    "E3 upstream key": (401, "invalid_api_key", "invalid_request_error"),
    "E4 model": (404, "model_not_found", "invalid_request_error"),
    "E5 rate": (429, "rate_limit_exceeded", "requests"),
    "quota": (429, "insufficient_quota", "insufficient_quota"),
    "E7 server": (500, None, "server_error"),
    "E8 overloaded": (503, "overloaded", "server_error"),
    "permission": (403, "permission_denied", "permission_error"),
    "conflict": (409, None, "conflict"),
    "unprocessable": (422, "invalid_value", "invalid_request_error"),
}


@pytest.mark.parametrize(("status", "code", "kind"), UPSTREAM_ERRORS.values(), ids=UPSTREAM_ERRORS)
async def test_upstream_errors_come_back_as_they_are(wire: Wire, status: int, code: str | None, kind: str) -> None:
    scripted = error_answer(status, "Their words.", code, kind)
    scripted.body["error"]["param"] = "messages"
    response = await wire.chat(scripted)
    assert response.status_code == status
    assert response.json() == scripted.body


async def test_retry_headers_come_back_unprefixed(wire: Wire) -> None:  # E6
    sent = {"retry-after": "17", "retry-after-ms": "17250", "x-should-retry": "false", "x-request-id": "req_1"}
    response = await wire.chat(Reply(429, {"error": {"message": "slow", "code": "rate_limit_exceeded"}}, sent))
    assert {name: response.headers.get(name) for name in sent} == sent


async def test_an_html_error_becomes_json(wire: Wire) -> None:  # E9
    html = Reply(502, b"<html><body>Bad Gateway</body></html>", {"content-type": "text/html"})
    response = await wire.chat(html)
    assert response.status_code == 502
    assert "text/html" in error_of(response)["message"]


async def test_html_with_status_200_is_a_bad_gateway(wire: Wire) -> None:
    response = await wire.chat(Reply(200, b"<html>Welcome to WiFi</html>", {"content-type": "text/html"}))
    assert response.status_code == 502
    assert error_of(response)["code"] == "upstream_bad_reply"


async def test_an_error_without_a_body_gets_one(wire: Wire) -> None:
    response = await wire.chat(Reply(500, b""))
    assert response.status_code == 500
    assert error_of(response)["type"] == "upstream_error"


async def test_a_redirecting_upstream_is_not_followed(wire: Wire) -> None:
    response = await wire.chat(Reply(307, b"", {"location": "http://127.0.0.1:9/v1"}))
    assert response.status_code == 502
    assert "redirect" in error_of(response)["message"]


async def test_an_upstream_that_cuts_its_answer_is_a_bad_gateway(wire: Wire) -> None:
    cut = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{"id": '
    response = await wire.chat(Reply(raw=cut))
    assert response.status_code == 502
    assert error_of(response)["code"] == "upstream_bad_reply"


async def test_an_upstream_that_speaks_no_http_is_a_bad_gateway(wire: Wire) -> None:
    response = await wire.chat(Reply(raw=b"SSH-2.0-OpenSSH_9.2\r\n"))
    assert response.status_code == 502
    error_of(response)


async def test_an_upstream_that_refuses_the_connection_is_a_bad_gateway(wire: Wire) -> None:
    await wire.upstream.stop()
    response = await wire.chat()
    assert response.status_code == 502
    assert error_of(response)["code"] == "upstream_unreachable"
    assert "127.0.0.1" not in response.text


BAD_BODIES: dict[str, tuple[bytes, str | None]] = {
    "E10 malformed": (b'{"model": "small", "messages": [', None),
    "empty": (b"", None),
    "not an object": (b'["small"]', None),
    "not UTF-8": (b'{"model": "sm\xff"}', None),
    "NaN": (b'{"model": "small", "messages": [{}], "temperature": NaN}', None),
    "deep": (b'{"model":"small","messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}", None),
    "E11 no messages": (b'{"model": "small"}', "messages"),
    "messages not a list": (b'{"model": "small", "messages": "hi"}', "messages"),
    "messages empty": (b'{"model": "small", "messages": []}', "messages"),
    "message not an object": (b'{"model": "small", "messages": [{"role": "user"}, 7]}', "messages[1]"),
    "E12 no model": (b'{"messages": [{"role": "user", "content": "hi"}]}', "model"),
    "model null": (b'{"model": null, "messages": [{}]}', "model"),
    "model not a text": (b'{"model": 7, "messages": [{}]}', "model"),
    "stream not a flag": (b'{"model": "small", "messages": [{}], "stream": "yes"}', "stream"),
    "stream options": (b'{"model": "small", "messages": [{}], "stream_options": []}', "stream_options"),
    "unknown wish": (b'{"model": "small", "messages": [{}], "orbweaver": {"qality": 1}}', "orbweaver.qality"),
    "wish out of range": (b'{"model": "small", "messages": [{}], "orbweaver": {"quality": 2}}', "orbweaver.quality"),
}


@pytest.mark.parametrize(("body", "param"), BAD_BODIES.values(), ids=BAD_BODIES)
async def test_a_bad_body_is_refused_with_the_field_at_fault(wire: Wire, body: bytes, param: str | None) -> None:
    response = await wire.http.post("/v1/chat/completions", content=body)
    assert response.status_code == 400
    assert error_of(response)["type"] == "invalid_request_error"
    assert error_of(response)["param"] == param
    assert not wire.upstream.requests


async def test_deep_json_that_is_still_valid_passes(wire: Wire) -> None:
    deep: Any = 1
    for _ in range(200):
        deep = [deep]
    assert (await wire.chat(x_deep=deep)).status_code == 200


async def test_deep_json_that_has_to_be_rewritten_is_refused_or_passed_but_never_breaks(wire: Wire) -> None:
    body = b'{"model":"small","orbweaver":{},"messages":[{}],"x":' + b"[" * 400 + b"]" * 400 + b"}"
    response = await wire.http.post("/v1/chat/completions", content=body)
    assert response.status_code == 400
    error_of(response)


async def test_an_unknown_model_is_not_found_with_near_names(wire: Wire) -> None:  # E13
    response = await wire.chat(model="smal")
    assert response.status_code == 404
    assert error_of(response)["code"] == "model_not_found"
    assert "'small'" in error_of(response)["message"]


@pytest.mark.parametrize("path", ["/v1/unknown", "/unknown", "/v1/chat", "/v1/chat/completions/x", "/v1"])
async def test_an_unknown_path_is_a_json_404(wire: Wire, path: str) -> None:  # E14
    response = await wire.http.post(path, json={})
    assert response.status_code == 404
    assert error_of(response)["code"] == "unknown_url"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/embeddings", "/completions", "/v1/responses/"])
async def test_get_on_a_post_endpoint_is_a_json_405(wire: Wire, path: str) -> None:  # E15
    response = await wire.http.get(path)
    assert response.status_code == 405
    assert response.headers["allow"] == "POST"
    error_of(response)


async def test_the_sdk_raises_its_own_errors(wire: Wire) -> None:  # E16
    wire.upstream.script(
        error_answer(429, "Slow down.", "rate_limit_exceeded", x_request_id="req_limit"),
        error_answer(400, "Too long.", "context_length_exceeded"),
    )
    with pytest.raises(openai.RateLimitError) as limited:
        await wire.sdk.chat.completions.create(model="small", messages=ASK)
    assert limited.value.request_id == "req_limit"
    with pytest.raises(openai.BadRequestError) as too_long:
        await wire.sdk.chat.completions.create(model="small", messages=ASK)
    assert too_long.value.code == "context_length_exceeded"
    with pytest.raises(openai.NotFoundError) as unknown:
        await wire.sdk.chat.completions.create(model="none", messages=ASK)
    assert unknown.value.code == "model_not_found"
