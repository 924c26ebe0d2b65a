"""Other dialects (Anthropic, Gemini, Bedrock, ...) through litellm: the only module that imports it, when first used.

litellm takes seconds to import and milliseconds for each call, so it lives on a thread with an event loop of its own.
What comes out is OpenAI's wire format, so that nothing else has to know.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Any, TypeVar

import orjson

from gateway.errors import UpstreamBadReply, UpstreamTimeout, UpstreamUnreachable
from gateway.registry.records import Deployment, Endpoint
from gateway.settings import read_secret
from gateway.upstreams.base import RawHeaders, UpstreamCall
from gateway.upstreams.sse import DONE_EVENT, format_event

logger = logging.getLogger(__name__)
Result = TypeVar("Result")

# Everything else in a body stays here: among litellm's own arguments are the address and the key to use.
_PASSED_ON = frozenset(
    {
        *("messages", "prompt", "input", "suffix", "echo", "best_of", "encoding_format", "dimensions"),
        *("temperature", "top_p", "top_k", "n", "stop", "seed", "max_tokens", "max_completion_tokens", "user"),
        *("presence_penalty", "frequency_penalty", "logit_bias", "logprobs", "top_logprobs", "modalities", "audio"),
        *("response_format", "tools", "tool_choice", "parallel_tool_calls", "functions", "function_call"),
        *("reasoning_effort", "verbosity", "thinking", "web_search_options", "prediction", "service_tier", "stream"),
    }
)
_CODES = {
    "ContextWindowExceededError": "context_length_exceeded",
    "ContentPolicyViolationError": "content_policy_violation",
    "RateLimitError": "rate_limit_exceeded",
    "AuthenticationError": "invalid_api_key",
    "NotFoundError": "model_not_found",
}
_TYPES = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_PREFIX = re.compile(r"^(?:litellm\.)?\w+(?:Error|Exception)\s*[:-]\s*")
_CHOICE_EXTRAS = ("provider_specific_fields", "function_call")


class _Worker:
    """The thread that litellm lives on. One for the process, for as long as it runs: litellm keeps its connections in
    globals, by event loop, and would use them again on a loop that is closed."""

    def __init__(self) -> None:
        self.litellm: Any = None
        self._starting = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def loop(self) -> asyncio.AbstractEventLoop:
        with self._starting:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="litellm", daemon=True).start()
            return self._loop

    async def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run on the other thread's loop; cancelling here cancels there."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self.loop()))

    async def load(self) -> Any:
        """litellm itself; only called on the worker's own loop, so the import happens once."""
        if self.litellm is None:
            self.litellm = await asyncio.to_thread(_import)
        return self.litellm


def _import() -> Any:
    # Without this the import fetches a price list over the network.
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    import litellm

    litellm.suppress_debug_info = True
    litellm.telemetry = False
    litellm.drop_params = True
    # Its own transport over aiohttp leaves sessions open.
    litellm.disable_aiohttp_transport = True
    return litellm


_worker = _Worker()


class LitellmUpstream:
    """Implements `Upstream`. litellm is imported with the first call, or by `warm_up`."""

    def warm_up(self) -> None:
        """Begin to import litellm in the background."""
        asyncio.run_coroutine_threadsafe(_worker.load(), _worker.loop())

    async def send(self, call: UpstreamCall) -> LitellmReply:
        """Raises UpstreamUnreachable or UpstreamTimeout; an error of the provider is a reply."""
        return await _worker.run(self._call(call))

    async def close(self) -> None:
        """Nothing: the worker serves the whole process."""

    async def _call(self, call: UpstreamCall) -> LitellmReply:
        litellm = await _worker.load()
        body = orjson.loads(call.body)
        options = _options(call, body)
        try:
            if call.endpoint is Endpoint.CHAT:
                answer = await litellm.acompletion(**options)
            elif call.endpoint is Endpoint.COMPLETIONS:
                answer = await litellm.atext_completion(**options)
            else:
                answer = await litellm.aembedding(**options)
        except Exception as error:
            return self._error_reply(litellm, error, call)
        if call.stream:
            events = _stream_events(answer, self._error_of)
            return LitellmReply(200, [(b"content-type", b"text/event-stream; charset=utf-8")], events)
        whole = orjson.dumps(_clean(answer.model_dump()))
        return LitellmReply(200, [_JSON, *_response_headers(answer)], _once(whole))

    def _error_reply(self, litellm: Any, error: Exception, call: UpstreamCall) -> LitellmReply:
        name = f"the provider of {call.deployment.id.rpartition('#')[0]!r}"
        if isinstance(error, litellm.Timeout):
            raise UpstreamTimeout(f"No answer from {name} in time.", phase="total") from error
        if isinstance(error, litellm.APIConnectionError):
            logger.info("call to %s failed: %r", call.deployment.id, error)
            raise UpstreamUnreachable(f"There was no connection to {name}.") from error
        status = getattr(error, "status_code", None)
        if not isinstance(status, int) or not 400 <= status <= 599:
            logger.warning("litellm failed on a call to %s: %r", call.deployment.id, error)
            raise UpstreamBadReply(f"The answer of {name} could not be translated.") from error
        headers = [_JSON, *_retry_headers(error)]
        return LitellmReply(status, headers, _once(orjson.dumps({"error": self._error_of(error)})))

    def _error_of(self, error: Exception) -> dict[str, Any]:
        """An exception of litellm as OpenAI's error object."""
        status = getattr(error, "status_code", 502)
        message = str(getattr(error, "message", None) or error)
        inner = _inner_error(message)
        code = next((_CODES[each.__name__] for each in type(error).__mro__ if each.__name__ in _CODES), None)
        return {
            "message": str(inner.get("message") or _without_prefix(message)),
            "type": str(inner.get("type") or _TYPES.get(status, "upstream_error")),
            "param": None,
            "code": code,
        }


class LitellmReply:
    """Implements `UpstreamReply` over an iterator that lives on litellm's thread."""

    def __init__(self, status: int, headers: RawHeaders, pieces: AsyncIterator[bytes]) -> None:
        self.status = status
        self.headers = headers
        self._pieces: AsyncIterator[bytes] | None = pieces

    async def read(self, on_piece: Callable[[], None]) -> bytes:
        parts = []
        while part := await self.chunk():
            on_piece()
            parts.append(part)
        return b"".join(parts)

    async def chunk(self) -> bytes:
        return b"" if self._pieces is None else await _worker.run(_next(self._pieces))

    def close(self) -> None:
        pieces, self._pieces = self._pieces, None
        if pieces is not None:
            # The call that is cut off stays referenced by the loop until it is closed.
            task = asyncio.ensure_future(_worker.run(_close(pieces)))
            _closing.add(task)
            task.add_done_callback(_closing.discard)


_closing: set[asyncio.Future[bytes]] = set()
_JSON = (b"content-type", b"application/json")


async def _next(pieces: AsyncIterator[bytes]) -> bytes:
    return await anext(pieces, b"")


async def _close(pieces: AsyncIterator[bytes]) -> bytes:
    close = getattr(pieces, "aclose", None)
    if close is not None:
        await close()
    return b""


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body


async def _stream_events(answer: Any, error_of: Callable[[Exception], dict[str, Any]]) -> AsyncIterator[bytes]:
    """litellm's chunks as server-sent events, usage always last; a failure on the way becomes an error event."""
    try:
        async for chunk in answer:
            data = _clean(chunk.model_dump(exclude_none=True))
            usage = data.pop("usage", None)
            choices = data.get("choices") or []
            if usage is None or any(choice.get("delta") or choice.get("finish_reason") for choice in choices):
                for choice in choices:
                    choice.setdefault("finish_reason", None)
                yield format_event(data)
            if usage is not None:
                yield format_event({**data, "choices": [], "usage": usage})
    except Exception as error:
        logger.info("a translated stream broke off: %r", error)
        yield format_event({"error": error_of(error)})
        return
    finally:
        close = getattr(getattr(answer, "completion_stream", None), "aclose", None)
        if close is not None:
            await close()
    yield DONE_EVENT


def _options(call: UpstreamCall, body: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of litellm's call: what the client may set, and what only we do."""
    deployment = call.deployment
    options = {name: value for name, value in body.items() if name in _PASSED_ON and value is not None}
    options |= {
        "model": f"{deployment.provider}/{deployment.upstream_model}",
        "api_key": read_secret(deployment.api_key_env),
        "api_base": _api_base(deployment),
        "timeout": call.timeouts.total_s,
        "num_retries": 0,
        "max_retries": 0,
        # It imports a package that litellm does not install.
        "_skip_mcp_handler": True,
    }
    if call.stream:
        options["stream_options"] = {"include_usage": True}
    return {name: value for name, value in options.items() if value is not None}


def _api_base(deployment: Deployment) -> str | None:
    """litellm puts `/v1/messages` behind Anthropic's address itself."""
    base = deployment.base_url.rstrip("/")
    return (base.removesuffix("/v1") if deployment.provider == "anthropic" else base) or None


def _clean(answer: dict[str, Any]) -> dict[str, Any]:
    """Drop what is litellm's own, and empty fields that OpenAI does not send."""
    for choice in answer.get("choices") or []:
        for place in (choice, choice.get("message"), choice.get("delta")):
            if isinstance(place, dict):
                for name in _CHOICE_EXTRAS:
                    if not place.get(name) or name == "provider_specific_fields":
                        place.pop(name, None)
                if place.get("tool_calls") is None:
                    place.pop("tool_calls", None)
        message = choice.get("message")
        if isinstance(message, dict):
            message.setdefault("refusal", None)
            for tool_call in message.get("tool_calls") or []:
                tool_call.pop("index", None)
            choice.setdefault("logprobs", None)
    usage = answer.get("usage")
    if isinstance(usage, dict):
        answer["usage"] = _without_nulls(usage)
    return answer


def _without_nulls(value: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _without_nulls(each) if isinstance(each, dict) else each
        for name, each in value.items()
        if each is not None
    }


def _without_prefix(message: str) -> str:
    while (shorter := _PREFIX.sub("", message, count=1)) != message:
        message = shorter
    return message


def _inner_error(message: str) -> dict[str, Any]:
    """The provider's own error object, which litellm quotes behind its prefix; empty where it does not."""
    start, end = message.find("{"), message.rfind("}") + 1
    try:
        quoted = orjson.loads(message[start:end]) if 0 <= start < end else None
    except orjson.JSONDecodeError:
        return {}
    if isinstance(quoted, dict) and isinstance(quoted.get("error"), dict):
        return dict(quoted["error"])
    return quoted if isinstance(quoted, dict) else {}


def _retry_headers(error: Exception) -> list[tuple[bytes, bytes]]:
    """The provider's word on when to come back."""
    response = getattr(error, "response", None)
    for source in (getattr(error, "litellm_response_headers", None), getattr(response, "headers", None)):
        if source:
            kept = {name.lower(): str(value) for name, value in dict(source).items()}
            return [
                (b"x-request-id" if name == "request-id" else name.encode(), value.encode("latin-1", "replace"))
                for name, value in kept.items()
                if name in ("retry-after", "retry-after-ms", "x-should-retry", "request-id") or "ratelimit" in name
            ]
    return []


def _response_headers(answer: Any) -> list[tuple[bytes, bytes]]:
    """The provider's request id and limits; litellm keeps them under a prefix."""
    hidden = getattr(answer, "_hidden_params", None) or {}
    kept: dict[bytes, bytes] = {}
    for name, value in (hidden.get("additional_headers") or {}).items():
        plain = name.lower().removeprefix("llm_provider-")
        if plain == "request-id":
            kept[b"x-request-id"] = str(value).encode("latin-1", "replace")
        elif "ratelimit" in plain:
            kept[plain.encode()] = str(value).encode("latin-1", "replace")
    return list(kept.items())
