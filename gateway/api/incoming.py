"""`IncomingRequest`: a data-plane request read, parsed and checked. Unknown fields are kept; wrong ones are named."""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson

from gateway.errors import BodyTooLarge, Forbidden, InvalidBody, NotFound, RequestError
from gateway.middleware.inbound import Inbound, Receive
from gateway.registry.records import Candidate, ClientKey, Endpoint
from gateway.registry.snapshot import Snapshot
from gateway.routing.wishes import NOTHING, PRESETS, Wishes, parse_wishes
from gateway.upstreams.openai_http import decompress

# Unpacking more than this is moved to a thread.
LARGE_BODY = 2**18
LONGEST_MERGE = 512
_WISH = b"x-orbweaver-"


class ClientGone(Exception):
    """The client left before its request was complete; there is nobody to answer."""


@dataclass(slots=True)
class IncomingRequest:
    """What the client asks for. `candidate` is set for a named model and None where the router chooses.

    `raw` are the bytes of `body`; both still hold the field `orbweaver`, whose content is in `wishes`.
    """

    inbound: Inbound
    endpoint: Endpoint
    raw: bytes
    body: dict[str, Any]
    model: str
    stream: bool
    wishes: Wishes
    snapshot: Snapshot
    candidate: Candidate | None

    @property
    def key(self) -> ClientKey | None:
        return self.inbound.key


async def read_body(inbound: Inbound, receive: Receive, most_bytes: int) -> bytes:
    """The request body, unpacked where the client compressed it.

    Raises:
        ClientGone: the client left.
        RequestError: too large when unpacked, broken, or in an encoding that we do not know.
    """
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGone
    body: bytes = message.get("body", b"")
    if message.get("more_body", False):
        parts = [body]
        while message.get("more_body", False):
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            parts.append(message.get("body", b""))
        body = b"".join(parts)
    encoding = inbound.headers.get(b"content-encoding")
    if encoding is None:
        return body
    return await _unpack(body, encoding.decode("latin-1").strip(), most_bytes)


async def _unpack(body: bytes, encoding: str, most_bytes: int) -> bytes:
    if encoding.lower() not in ("gzip", "x-gzip", "deflate", "identity"):
        raise InvalidBody(f"Content-Encoding {encoding!r} is not known.", hint="Use gzip or deflate.", status=415)
    try:
        if len(body) < LARGE_BODY:
            return decompress(body, encoding, most_bytes)
        return await asyncio.to_thread(decompress, body, encoding, most_bytes)
    except OverflowError:
        raise BodyTooLarge(
            f"The request body is larger than {most_bytes} bytes when unpacked.",
            hint="Send less, or raise server.max_body_bytes.",
        ) from None
    except ValueError as error:
        raise InvalidBody(f"The request body cannot be unpacked: {error}.") from None


def check_request(inbound: Inbound, endpoint: Endpoint, raw: bytes, snapshot: Snapshot) -> IncomingRequest:
    """Parse and check a body, and find out who may answer. Raises RequestError."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        what = "is empty" if not raw.strip() else f"is not valid JSON: {error}"
        raise InvalidBody(f"The request body {what}.", hint="Send a JSON object.", code="invalid_json") from None
    if not isinstance(body, dict):
        raise _wrong_type("The request body", body, "an object")
    model = body.get("model")
    if not isinstance(model, str) or not model:
        if model is None or model == "":
            raise _missing("model", "Give the name of a model, or `auto`.")
        raise _wrong_type("`model`", model, "a text", "model")
    stream = body.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise _wrong_type("`stream`", stream, "true or false", "stream")
    if not isinstance(body.get("stream_options"), dict | None):
        raise _wrong_type("`stream_options`", body["stream_options"], "an object", "stream_options")
    _CHECKS[endpoint](body)
    wishes = _wishes(body, inbound.headers, model)
    if wishes.preference:
        model = preferred_merge(model, wishes)
    candidate = None if model in PRESETS else named_candidate(model, snapshot, inbound.key)
    streams = bool(stream) and endpoint is not Endpoint.EMBEDDINGS
    return IncomingRequest(inbound, endpoint, raw, body, model, streams, wishes, snapshot, candidate)


def named_candidate(model: str, snapshot: Snapshot, key: ClientKey | None) -> Candidate:
    """The candidate of this name. Raises NotFound with near names, or Forbidden."""
    candidate = snapshot.enabled.get(model) or merge_on_request(model, snapshot)
    if candidate is None:
        raise unknown_model(model, snapshot, key)
    if key is not None and key.models and candidate.name not in key.models:
        raise Forbidden(
            f"The key {key.name!r} may not use the model {model!r}.",
            hint=f"It may use: {', '.join(sorted(key.models)[:20])}.",
            code="model_not_allowed",
            param="model",
        )
    return candidate


def preferred_merge(model: str, wishes: Wishes) -> str:
    """The name of the merge that `orbweaver.preference` asks for. Raises InvalidBody where the model is no merge."""
    if not model.endswith("/merge"):
        raise InvalidBody(
            f"`orbweaver.preference` weighs the experts of a merge, and {model[:128]!r} is none.",
            hint="Use it with a model called FAMILY/merge, for example zoo/merge.",
            param="orbweaver.preference",
        )
    return f"{model}:{','.join(f'{name}={weight:.4g}' for name, weight in wishes.preference)}"


def merge_on_request(model: str, snapshot: Snapshot) -> Candidate | None:
    """`FAMILY/merge:expert=0.7,other=0.3`: the candidate `FAMILY/merge` with these weights, which its engine checks."""
    name, separator, weights = model.partition("/merge:")
    found = snapshot.enabled.get(f"{name}/merge") if separator and weights and len(model) <= LONGEST_MERGE else None
    if found is None:
        return None
    return replace(found, deployments=tuple(replace(place, upstream_model=model) for place in found.deployments))


def unknown_model(model: str, snapshot: Snapshot, key: ClientKey | None) -> RequestError:
    """Why a model cannot be used, with what the caller could have meant."""
    visible = [name for name in snapshot.enabled if key is None or not key.models or name in key.models]
    shown = model if len(model) <= 128 else model[:128] + "..."
    if model in snapshot.candidates and (key is None or not key.models or model in key.models):
        message, hint = f"The model {shown!r} is switched off.", f"Switch it on: `orbweaver models enable {model}`."
    else:
        message = f"The model {shown!r} does not exist or you do not have access to it."
        near = difflib.get_close_matches(model[:128], [*visible, *PRESETS], n=3, cutoff=0.5)
        if near:
            hint = f"Did you mean {' or '.join(repr(name) for name in near)}?"
        elif visible:
            hint = f"Known models: {', '.join([*visible[:10], 'auto'])}."
        else:
            hint = "No model is registered yet: `orbweaver models add NAME --base-url URL`."
    return NotFound(message, hint=hint, code="model_not_found", param="model")


def _wishes(body: Mapping[str, Any], headers: Mapping[bytes, bytes], model: str) -> Wishes:
    given = {
        name.decode("latin-1"): value.decode("latin-1") for name, value in headers.items() if name.startswith(_WISH)
    }
    if not given and "orbweaver" not in body and model not in PRESETS:
        return NOTHING
    return parse_wishes(body.get("orbweaver"), given, model if model in PRESETS else "auto")


def _check_chat(body: dict[str, Any]) -> None:
    messages = body.get("messages")
    if messages is None:
        raise _missing("messages", "Give a list of messages.")
    if not isinstance(messages, list):
        raise _wrong_type("`messages`", messages, "a list", "messages")
    if not messages:
        raise InvalidBody("`messages` is empty.", hint="Give at least one message.", param="messages")
    for index, message in enumerate(messages):
        if not isinstance(message, dict):
            raise _wrong_type(f"`messages[{index}]`", message, "an object", f"messages[{index}]")


def _check_completion(body: dict[str, Any]) -> None:
    if not isinstance(body.get("prompt"), str | list | None):
        raise _wrong_type("`prompt`", body["prompt"], "a text or a list", "prompt")


def _check_embedding(body: dict[str, Any]) -> None:
    if body.get("input") is None:
        raise _missing("input", "Give a text or a list of texts.")
    if not isinstance(body["input"], str | list):
        raise _wrong_type("`input`", body["input"], "a text or a list", "input")


def _check_response(body: dict[str, Any]) -> None:
    if not isinstance(body.get("input"), str | list | None):
        raise _wrong_type("`input`", body["input"], "a text or a list", "input")


_CHECKS = {
    Endpoint.CHAT: _check_chat,
    Endpoint.COMPLETIONS: _check_completion,
    Endpoint.EMBEDDINGS: _check_embedding,
    Endpoint.RESPONSES: _check_response,
}

_JSON_NAMES = {
    dict: "an object",
    list: "a list",
    str: "a text",
    bool: "a truth value",
    int: "a number",
    float: "a number",
}


def _missing(field: str, hint: str) -> InvalidBody:
    return InvalidBody(f"You must provide `{field}`.", hint=hint, code="missing_required_parameter", param=field)


def _wrong_type(what: str, value: Any, wanted: str, param: str | None = None) -> InvalidBody:
    found = _JSON_NAMES.get(type(value), "null")
    return InvalidBody(f"{what} must be {wanted}, not {found}.", code="invalid_type", param=param)
