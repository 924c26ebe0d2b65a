"""`OutboundRequest`: a checked request on its way to some upstream, and `Served`: the answer it got."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from gateway.errors import InvalidBody
from gateway.registry.records import Candidate, Deployment, Endpoint

if TYPE_CHECKING:
    from gateway.upstreams.relay_stream import RelayStream

Attempt = tuple[str, str, str]
"""Candidate name, deployment id, outcome."""


@dataclass(slots=True)
class OutboundRequest:
    """What is sent, whoever answers.

    `raw` is the body as the client sent it; `verbatim` says that nothing but `model` may differ from it. `named` is a
    request for one model, which no other may answer. `expects_usage`: a stream will report its usage;
    `hide_usage`: the client did not ask for that, so it is taken out again.
    """

    endpoint: Endpoint
    raw: bytes
    body: dict[str, Any]
    stream: bool
    headers: Mapping[str, str]
    named: bool
    verbatim: bool = True
    expects_usage: bool = False
    hide_usage: bool = False
    accepts_gzip: bool = False
    _encoded: tuple[str, bytes] | None = field(default=None, init=False)

    def encode(self, upstream_model: str) -> bytes:
        """The body for an upstream that knows the model by this name."""
        if self._encoded is not None and self._encoded[0] == upstream_model:
            return self._encoded[1]
        model = self.body.get("model")
        encoded = None
        if self.verbatim:
            encoded = self.raw if model == upstream_model else replace_model(self.raw, str(model), upstream_model)
        if encoded is None:
            try:
                encoded = orjson.dumps({**self.body, "model": upstream_model})
            except orjson.JSONEncodeError as error:
                raise InvalidBody(f"The request cannot be written as JSON: {error}.", hint="Nest it less.") from error
        self._encoded = (upstream_model, encoded)
        return encoded


def replace_model(raw: bytes, model: str, replacement: str) -> bytes | None:
    """The same JSON with another top-level `model`, every other byte kept; None where that cannot be done safely.

    Safe means: the bytes `"model"` occur once. Inside a string they would stand as `\\"model\\"`, and a key can only
    be written otherwise with `\\u` escapes, so the one occurrence is the key of the parsed body, or (where the body
    holds the key at the top level in another spelling) there is a `\\u` escape and we give up.
    """
    at = raw.find(b'"model"')
    if at < 0 or raw.find(b'"model"', at + 7) >= 0 or (b"\\u00" in raw):
        return None
    start = at + 7
    while raw[start : start + 1] in (b" ", b":", b"\n", b"\t", b"\r"):
        start += 1
    written = orjson.dumps(model)
    if not raw.startswith(written, start):
        return None
    return raw[:start] + orjson.dumps(replacement) + raw[start + len(written) :]


@dataclass(slots=True)
class Served:
    """An answer whose head may go to the client.

    Unary: `body` is whole and `stream` None. Streaming: `body` is what may be sent at once, `stream` the rest. An
    upstream's error status is an answer too, where nothing else could be tried. `waited_s` is the time that all
    tries took, up to this point.
    """

    candidate: Candidate
    deployment: Deployment
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    stream: RelayStream | None
    attempts: tuple[Attempt, ...] = ()
    content_encoding: bytes | None = None
    waited_s: float = 0.0
    ok: bool = True
