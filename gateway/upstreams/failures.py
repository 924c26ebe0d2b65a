"""`Failure`: why one try did not give an answer, and where it makes sense to try next. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import orjson

from gateway.errors import UpstreamBadReply, UpstreamError, UpstreamTimeout, UpstreamUnreachable
from gateway.upstreams.base import RawHeaders
from gateway.upstreams.headers import find_header, relayed_headers, retry_after_s
from gateway.upstreams.health import Outcome

# A 4xx of the provider that is not the caller's fault: its key, its plan, its model name. Elsewhere may do better.
_OURS = frozenset({401, 402, 403, 404, 407})
_MAY_PASS = frozenset({408, 425, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529})
_WORTH_A_RETRY = frozenset({502, 503, 504})
_TOO_LONG_STATUS = frozenset({400, 413, 422})
_TOO_LONG = re.compile(
    rb"context_length_exceeded|exceed_context_size|maximum context length|context (?:length|window|size)"
    rb"|prompt is too long|input is too long|too many (?:input )?tokens|longer than the model|requested token count",
    re.IGNORECASE,
)
# How far into an error's body the words above are looked for.
_LOOK_AT = 4096


@dataclass(slots=True)
class ErrorReply:
    """An error answer ready to be relayed: status, headers without length and type, body."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    content_type: bytes = b"application/json"


@dataclass(slots=True)
class Failure:
    """One failed try, before any byte was sent to the client.

    `again` allows the same deployment once more, `elsewhere` another deployment of the same candidate, `others` other
    candidates; `too_long` restricts those to larger context windows. Exactly one of `error` and `reply` is set.
    `blame` orders failures for the answer when nothing worked: the highest is told to the client.
    """

    outcome: Outcome
    label: str
    error: UpstreamError | None = None
    reply: ErrorReply | None = None
    again: bool = False
    elsewhere: bool = True
    others: bool = True
    too_long: bool = False
    retry_after_s: float | None = None
    blame: int = 1


def from_error(error: UpstreamError) -> Failure:
    """The failure behind an exception of the transport."""
    if isinstance(error, UpstreamTimeout):
        return Failure("failed", f"timeout_{error.phase}", error, again=error.phase == "connect")
    if isinstance(error, UpstreamUnreachable):
        return Failure("failed", "unreachable", error, again=True)
    return Failure("failed", "bad_reply", error)


def is_too_long(words: bytes | str) -> bool:
    """Whether an error says that the prompt does not fit the model's context window."""
    return _TOO_LONG.search(words.encode() if isinstance(words, str) else words) is not None


def from_status(status: int, headers: RawHeaders, body: bytes) -> Failure:
    """The failure behind an error status. `body` is unpacked already."""
    reply = error_reply(status, headers, body)
    wait = retry_after_s(headers)
    if status == 429:
        return Failure("limited", "429", reply=reply, retry_after_s=wait, blame=3)
    if status in _TOO_LONG_STATUS and is_too_long(body[:_LOOK_AT]):
        return Failure("refused", "too_long", reply=reply, elsewhere=False, too_long=True, blame=4)
    if status in _OURS:
        return Failure("failed", str(status), reply=reply, blame=0)
    if status in _MAY_PASS or status >= 500:
        return Failure("failed", str(status), reply=reply, again=status in _WORTH_A_RETRY, retry_after_s=wait)
    if status < 400:
        error = UpstreamBadReply(f"The upstream answered with a redirect ({status}).", hint="Correct its base_url.")
        return Failure("failed", str(status), error)
    return Failure("refused", str(status), reply=reply, elsewhere=False, others=False, blame=4)


def from_error_event(error: Any, headers: RawHeaders) -> Failure:
    """The failure behind an error event that came before the first token; it becomes a plain HTTP error."""
    status = _status_of(error)
    body = orjson.dumps({"error": error if isinstance(error, dict) else {"message": str(error), "type": None}})
    return from_status(status, headers, body)


def unsupported(model: str, endpoint: str) -> Failure:
    """The failure of an endpoint that cannot be translated for a provider."""
    error = {
        "message": f"The model {model!r} cannot be reached by /{endpoint}. Use /chat/completions.",
        "type": "invalid_request_error",
        "param": "model",
        "code": "unsupported_endpoint",
    }
    return Failure("refused", "unsupported", reply=ErrorReply(400, [], orjson.dumps({"error": error})))


def parse_error(body: bytes) -> Any:
    """The error object of a body, None where it holds none."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return (value.get("error") or None) if isinstance(value, dict) else None


def error_reply(status: int, headers: RawHeaders, body: bytes) -> ErrorReply:
    """The upstream's own error as it came; what is no JSON object (an HTML page, say) is replaced by one."""
    kept = relayed_headers(headers)
    stripped = body.strip()
    if stripped.startswith(b"{") and stripped.endswith(b"}"):
        return ErrorReply(status, kept, body, find_header(headers, b"content-type") or b"application/json")
    sent = (find_header(headers, b"content-type") or b"no content type").decode("latin-1").partition(";")[0]
    what = f"with {sent} instead of JSON" if stripped else "without a body"
    error = {
        "message": f"The upstream answered {status} {what}.",
        "type": "upstream_error",
        "param": None,
        "code": "upstream_bad_reply",
    }
    return ErrorReply(status, kept, orjson.dumps({"error": error}))


def _status_of(error: Any) -> int:
    """The HTTP status that an error object stands for."""
    if not isinstance(error, dict):
        return 502
    for field in ("status", "status_code", "code"):
        value = error.get(field)
        if isinstance(value, str) and value.isdigit():
            value = int(value)
        if isinstance(value, int) and 400 <= value <= 599:
            return value
    words = f"{error.get('code')} {error.get('type')}"
    if "rate_limit" in words or "insufficient_quota" in words:
        return 429
    if "overloaded" in words:
        return 503
    if "context_length" in words or "invalid_request" in words:
        return 400
    return 502
