"""Pure parts of the data plane: headers that cross, errors that are read, bodies that are rewritten."""

from __future__ import annotations

import email.utils
import time
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import InvalidBody, UpstreamBadReply, UpstreamTimeout, UpstreamUnreachable
from gateway.registry.records import Endpoint
from gateway.upstreams.failures import Failure, from_error, from_error_event, from_status
from gateway.upstreams.headers import forwarded_headers, relayed_headers, retry_after_s
from gateway.upstreams.openai_http import decompress
from gateway.upstreams.outbound import OutboundRequest, replace_model

JSON_ERROR = b'{"error": {"message": "no"}}'


def test_only_named_headers_go_to_the_upstream() -> None:
    inbound = {
        b"authorization": b"Bearer secret",
        b"cookie": b"a=b",
        b"host": b"x",
        b"x-stainless-lang": b"python",
        b"x-orbweaver-quality": b"1",
        b"traceparent": b"00-1",
        b"openai-project": b"p",
        b"anthropic-beta": b"b",
    }
    assert forwarded_headers(inbound) == {"traceparent": "00-1", "openai-project": "p", "anthropic-beta": "b"}


def test_headers_of_the_connection_do_not_come_back() -> None:
    outbound = [(b"Retry-After", b"3"), (b"Connection", b"close"), (b"Set-Cookie", b"a"), (b"X-Orbweaver-Model", b"m")]
    assert relayed_headers(outbound) == [(b"retry-after", b"3")]
    assert relayed_headers(outbound) == [(b"retry-after", b"3")]  # once more, from what was decided before


RETRY: dict[str, tuple[list[tuple[bytes, bytes]], float | None]] = {
    "seconds": ([(b"Retry-After", b"3")], 3.0),
    "fraction": ([(b"retry-after", b"0.25")], 0.25),
    "milliseconds first": ([(b"retry-after", b"9"), (b"retry-after-ms", b"1500")], 1.5),
    "nonsense": ([(b"retry-after", b"soon")], None),
    "none": ([], None),
    "past": ([(b"retry-after", b"Wed, 21 Oct 2015 07:28:00 GMT")], 0.0),
}


@pytest.mark.parametrize(("headers", "seconds"), RETRY.values(), ids=RETRY)
def test_retry_after_is_read_in_all_its_forms(headers: list[tuple[bytes, bytes]], seconds: float | None) -> None:
    assert retry_after_s(headers) == seconds


def test_retry_after_may_be_a_date() -> None:
    text = email.utils.formatdate(time.time() + 30, usegmt=True).encode()
    found = retry_after_s([(b"retry-after", text)])
    assert found is not None
    assert 25 < found <= 31


RULES: dict[str, tuple[Failure, tuple[str, bool, bool, bool]]] = {
    # outcome for the health board, same deployment again, other deployments, other candidates
    "refused connection": (from_error(UpstreamUnreachable("x")), ("failed", True, True, True)),
    "connect timeout": (from_error(UpstreamTimeout("x", phase="connect")), ("failed", True, True, True)),
    "first token timeout": (from_error(UpstreamTimeout("x", phase="first_token")), ("failed", False, True, True)),
    "bad reply": (from_error(UpstreamBadReply("x")), ("failed", False, True, True)),
    "429": (from_status(429, [], JSON_ERROR), ("limited", False, True, True)),
    "500": (from_status(500, [], JSON_ERROR), ("failed", False, True, True)),
    "503": (from_status(503, [], JSON_ERROR), ("failed", True, True, True)),
    "401": (from_status(401, [], JSON_ERROR), ("failed", False, True, True)),
    "400": (from_status(400, [], JSON_ERROR), ("refused", False, False, False)),
    "too long": (
        from_status(400, [], b'{"error":{"code":"context_length_exceeded"}}'),
        ("refused", False, False, True),
    ),
}


@pytest.mark.parametrize(("failure", "expected"), RULES.values(), ids=RULES)
def test_where_to_try_next(failure: Failure, expected: tuple[str, bool, bool, bool]) -> None:
    assert (failure.outcome, failure.again, failure.elsewhere, failure.others) == expected


TOO_LONG = [
    b'{"error":{"code":"context_length_exceeded"}}',
    b'{"error":{"message":"This model\'s maximum context length is 8192 tokens."}}',
    b'{"object":"error","message":"The input (9000 tokens) is longer than the model\'s context length (8192 tokens)."}',
    b'{"error":{"message":"Requested token count exceeds the model\'s maximum context length of 4096 tokens."}}',
    b'{"type":"error","error":{"message":"prompt is too long: 300000 tokens > 200000 maximum"}}',
    b'{"error":{"code":400,"type":"exceed_context_size_error","message":"request exceeds the available context size"}}',
]


@pytest.mark.parametrize("body", TOO_LONG)
def test_every_servers_words_for_too_long_are_understood(body: bytes) -> None:
    assert from_status(400, [], body).too_long


EVENT_STATUS: dict[str, tuple[Any, int]] = {
    "status in code": ({"code": 429}, 429),
    "code as text": ({"code": "503"}, 503),
    "by name": ({"code": "rate_limit_exceeded"}, 429),
    "overloaded": ({"type": "overloaded_error"}, 503),
    "bad request": ({"type": "invalid_request_error"}, 400),
    "unknown": ({"message": "x"}, 502),
    "a text": ("it broke", 502),
}


@pytest.mark.parametrize(("error", "status"), EVENT_STATUS.values(), ids=EVENT_STATUS)
def test_an_error_event_has_a_status(error: Any, status: int) -> None:
    reply = from_error_event(error, []).reply
    assert reply is not None
    assert reply.status == status
    assert "error" in orjson.loads(reply.body)


names = st.text(min_size=1, max_size=8)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text(max_size=12)
    | st.just('"model"')
    | st.just("model"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names | st.just("model"), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(names, values, max_size=4), names, names, st.booleans())
def test_replacing_the_model_changes_nothing_else(
    rest: dict[str, Any], model: str, other: str, model_first: bool
) -> None:
    rest.pop("model", None)
    body = {"model": model, **rest} if model_first else {**rest, "model": model}
    replaced = replace_model(orjson.dumps(body), model, other)
    if replaced is not None:
        assert orjson.loads(replaced) == {**body, "model": other}


UNSAFE = {
    "twice": b'{"model":"a","x":{"model":"a"}}',
    "as a value": b'{"model":"a","x":"model"}',
    "escaped key": b'{"\\u006dodel":"a","x":{"model":"a"}}',
    "other value": b'{"x":{"model":"b"}}',
    "no key": b'{"x":1}',
}


@pytest.mark.parametrize("raw", UNSAFE.values(), ids=UNSAFE)
def test_a_model_that_cannot_be_told_apart_is_not_replaced_in_place(raw: bytes) -> None:
    assert replace_model(raw, "a", "z") is None


def outbound(body: dict[str, Any], raw: bytes | None = None, verbatim: bool = True) -> OutboundRequest:
    return OutboundRequest(Endpoint.CHAT, raw or orjson.dumps(body), body, False, {}, True, verbatim)


def test_a_body_with_the_right_name_goes_out_as_it_came() -> None:
    raw = b'{ "model" : "a", "x": 1.50 }'
    assert outbound({"model": "a", "x": 1.5}, raw).encode("a") is raw


def test_a_changed_body_is_written_anew() -> None:
    request = outbound({"model": "a", "y": 1}, b'{"model":"a","y":1,"orbweaver":{}}', verbatim=False)
    assert orjson.loads(request.encode("b")) == {"model": "b", "y": 1}


def test_a_body_too_deep_to_be_written_is_the_callers_fault() -> None:
    deep: Any = 1
    for _ in range(400):
        deep = [deep]
    with pytest.raises(InvalidBody, match="Nest it less"):
        outbound({"model": "a", "x": deep}, b"{}", verbatim=False).encode("b")


@pytest.mark.parametrize("encoding", ["br", "zstd", "nonsense"])
def test_unknown_encodings_are_named(encoding: str) -> None:
    with pytest.raises(ValueError, match=encoding):
        decompress(b"x", encoding)
