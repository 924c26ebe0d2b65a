"""Proves a registration with real calls: one unary and one streamed answer of each deployment, timed."""

from __future__ import annotations

import asyncio
import difflib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson

from gateway.errors import UpstreamError
from gateway.registry.records import Candidate, Deployment, Endpoint
from gateway.settings import read_secret
from gateway.upstreams.base import Timeouts, Upstream, UpstreamCall
from gateway.upstreams.discovery import list_models
from gateway.upstreams.sse import EventSplitter, split_events

PROBE = "Reply with one word: ready"
MAX_TOKENS = 16
MAX_BYTES = 2**20
DEADLINE_S = 60.0


@dataclass(frozen=True, slots=True)
class Probe:
    """One call and what came of it. Times in seconds; tokens None where the server does not report them.

    `ok`: an answer in the endpoint's own form came back to its end. `hint` says what to do where it did not.
    """

    deployment: str
    stream: bool
    ok: bool = False
    status: int | None = None
    duration_s: float = 0.0
    first_token_s: float | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    reply: str = ""
    answered_as: str | None = None
    error: str | None = None
    hint: str | None = None


UpstreamFor = Callable[[str], Upstream]


class ProbeUpstreams:
    """The gateway's own upstream layer, opened for a probe: `async with ProbeUpstreams() as upstream_for`."""

    def __init__(self) -> None:
        self._open: dict[str, Upstream] = {}

    async def __aenter__(self) -> UpstreamFor:
        return self._for

    async def __aexit__(self, *_: object) -> None:
        for upstream in self._open.values():
            await upstream.close()

    def _for(self, provider: str) -> Upstream:
        kind = "openai" if provider == "openai" else "litellm"
        if kind not in self._open:
            self._open[kind] = _upstream(kind)
        return self._open[kind]


def _upstream(kind: str) -> Upstream:
    if kind == "openai":
        from gateway.upstreams.openai_http import OpenAIUpstream

        return OpenAIUpstream()
    from gateway.upstreams.litellm_upstream import LitellmUpstream

    return LitellmUpstream()


async def probe(
    candidate: Candidate,
    upstream_for: UpstreamFor,
    timeouts: Timeouts,
    *,
    deadline_s: float = DEADLINE_S,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Probe]:
    """Call every deployment, unary and streaming (embeddings: unary only); what goes wrong is in the result."""

    async def one(deployment: Deployment) -> list[Probe]:
        endpoint = _endpoint(candidate)
        found = []
        for stream in (False,) if endpoint is Endpoint.EMBEDDINGS else (False, True):
            call = _Call(deployment, endpoint, stream, upstream_for, timeouts, clock)
            result = await call.run(deadline_s)
            found.append(result if result.ok else replace(result, hint=await _hint(deployment, result)))
            if not result.ok:
                break
        return found

    results = await asyncio.gather(*(one(deployment) for deployment in candidate.deployments))
    return [result for each in results for result in each]


class _Call:
    """One call of a probe; fields fill up while it goes on, so that a failure tells how far it came."""

    def __init__(
        self,
        deployment: Deployment,
        endpoint: Endpoint,
        stream: bool,
        upstream_for: UpstreamFor,
        timeouts: Timeouts,
        clock: Callable[[], float],
    ) -> None:
        self._deployment = deployment
        self._endpoint = endpoint
        self._stream = stream
        self._upstream_for = upstream_for
        self._timeouts = timeouts
        self._clock = clock
        self._status: int | None = None
        self._first_token_s: float | None = None

    async def run(self, deadline_s: float) -> Probe:
        began = self._clock()
        result = Probe(self._deployment.id, self._stream)
        try:
            async with asyncio.timeout(deadline_s):
                result = await self._send(_body(self._endpoint, self._deployment, self._stream), began)
                if result.status == 400 and "max_completion_tokens" in (result.error or ""):
                    body = _body(self._endpoint, self._deployment, self._stream)
                    body["max_completion_tokens"] = body.pop("max_tokens")
                    result = await self._send(body, began)
        except TimeoutError:
            result = replace(result, error=f"No whole answer within {deadline_s:g} s.")
        except (UpstreamError, ImportError) as error:
            result = replace(result, error=str(error))
        return replace(
            result,
            status=self._status,
            duration_s=self._clock() - began,
            first_token_s=self._first_token_s,
            ok=result.error is None,
        )

    async def _send(self, body: Mapping[str, Any], began: float) -> Probe:
        upstream = self._upstream_for(self._deployment.provider)
        call = UpstreamCall(self._endpoint, self._deployment, orjson.dumps(body), {}, self._stream, self._timeouts)
        reply = await upstream.send(call)
        result = Probe(self._deployment.id, self._stream)
        received, splitter, events = b"", EventSplitter(), []
        self._status = reply.status
        try:
            while (chunk := await reply.chunk()) and len(received) < MAX_BYTES:
                received += chunk
                fresh = [event for raw in split_events(splitter.feed(chunk)) if (event := _event(raw)) is not None]
                if self._first_token_s is None and any(_text(event) for event in fresh):
                    self._first_token_s = self._clock() - began
                events += fresh
        finally:
            reply.close()
        if not 200 <= reply.status < 300:
            return replace(result, status=reply.status, error=_error_text(reply.status, received))
        return self._read_stream(result, events, received) if self._stream else _read_unary(result, received)

    def _read_stream(self, result: Probe, events: list[Any], received: bytes) -> Probe:
        failed = next((event["error"] for event in events if event.get("error")), None)
        if failed is not None:
            return replace(result, error=f"The stream ended in an error: {_short(failed)}")
        if not events:
            return replace(result, error=f"This is not a stream of events: {_short(received.decode(errors='replace'))}")
        usage = next((event["usage"] for event in reversed(events) if isinstance(event.get("usage"), dict)), None)
        return _filled(result, "".join(_text(event) for event in events), events[0].get("model"), usage)


def _endpoint(candidate: Candidate) -> Endpoint:
    preferred = (Endpoint.CHAT, Endpoint.RESPONSES, Endpoint.COMPLETIONS, Endpoint.EMBEDDINGS)
    return next((endpoint for endpoint in preferred if endpoint in candidate.endpoints), Endpoint.CHAT)


def _body(endpoint: Endpoint, deployment: Deployment, stream: bool) -> dict[str, Any]:
    model = deployment.upstream_model
    if endpoint is Endpoint.EMBEDDINGS:
        return {"model": model, "input": PROBE}
    if endpoint is Endpoint.RESPONSES:
        return {"model": model, "input": PROBE, "max_output_tokens": MAX_TOKENS, "stream": stream}
    extra: dict[str, Any] = {"max_tokens": MAX_TOKENS, "stream": stream}
    if stream:
        extra["stream_options"] = {"include_usage": True}
    if endpoint is Endpoint.COMPLETIONS:
        return {"model": model, "prompt": PROBE, **extra}
    return {"model": model, "messages": [{"role": "user", "content": PROBE}], **extra}


def _read_unary(result: Probe, received: bytes) -> Probe:
    try:
        answer = orjson.loads(received)
    except orjson.JSONDecodeError:
        answer = None
    if not isinstance(answer, dict) or not any(field in answer for field in ("choices", "data", "output")):
        return replace(result, error=f"This is no answer in OpenAI's form: {_short(received.decode(errors='replace'))}")
    return _filled(result, _text(answer), answer.get("model"), answer.get("usage"))


def _filled(result: Probe, text: str, model: Any, usage: Any) -> Probe:
    usage = usage if isinstance(usage, dict) else {}
    prompt = usage.get("prompt_tokens", usage.get("input_tokens"))
    completion = usage.get("completion_tokens", usage.get("output_tokens"))
    return replace(
        result,
        reply=_short(text),
        answered_as=model if isinstance(model, str) else None,
        prompt_tokens=prompt if isinstance(prompt, int) else None,
        completion_tokens=completion if isinstance(completion, int) else None,
    )


def _event(raw: bytes) -> dict[str, Any] | None:
    """The JSON of one event; None for comments, `[DONE]` and anything else."""
    data = b"\n".join(line[5:].strip() for line in raw.splitlines() if line.startswith(b"data:"))
    try:
        event = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    return event if isinstance(event, dict) else None


def _text(answer: Mapping[str, Any]) -> str:
    """The words of an answer or of one piece of a stream; thinking counts where there are no others."""
    if isinstance(answer.get("delta"), str):  # an event of the responses endpoint
        return str(answer["delta"])
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return ""
    place = choices[0].get("delta") or choices[0].get("message") or choices[0]
    if not isinstance(place, dict):
        return ""
    words = place.get("content") or place.get("text") or place.get("reasoning_content") or place.get("reasoning")
    return words if isinstance(words, str) else ""


def _error_text(status: int, received: bytes) -> str:
    try:
        error = orjson.loads(received)["error"]
        words = error["message"] if isinstance(error, dict) else error
    except (orjson.JSONDecodeError, KeyError, TypeError):
        words = received.decode(errors="replace")
    return f"The server answered {status}: {_short(words)}"


def _short(value: Any, length: int = 200) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= length else text[: length - 1] + "…"


async def _hint(deployment: Deployment, result: Probe) -> str | None:
    """What the operator can do about a failed call."""
    variable = deployment.api_key_env
    if result.status in (401, 403):
        if variable is None:
            return "The server wants a key: register the model with --api-key-env VAR."
        state = "is not set here" if read_secret(variable) is None else "is set, but the server does not take its value"
        return f"{variable} {state}."
    if result.status == 404 and deployment.base_url and deployment.provider == "openai":
        secret = read_secret(variable)
        headers = {"authorization": f"Bearer {secret}"} if secret else None
        known = [str(model.get("id")) for model in await list_models(deployment.base_url, headers=headers)]
        if known and deployment.upstream_model not in known:
            near = difflib.get_close_matches(deployment.upstream_model, known, n=3, cutoff=0.4) or known[:3]
            return f"The server does not list {deployment.upstream_model!r}; it has {', '.join(near)}."
        return "Check base_url (most servers answer below /v1) and upstream_model."
    if result.status == 429:
        return "The provider is limiting this key; try again later."
    return None
