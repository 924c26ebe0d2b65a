"""`UpstreamSource`: a candidate as an `AnswerSource`, through the gateway's own upstream layer."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from itertools import count
from typing import Any

import orjson

from aptitude_tests.item import ToolCall
from aptitude_tests.source import AskFailure, Completion, FailureKind, Question
from gateway.errors import UpstreamBadReply, UpstreamError, UpstreamTimeout
from gateway.registry.records import Candidate, Deployment, Endpoint
from gateway.upstreams.base import Timeouts, UpstreamCall, UpstreamReply
from gateway.upstreams.failures import parse_error
from gateway.upstreams.headers import retry_after_s
from gateway.upstreams.probe import UpstreamFor
from gateway.upstreams.sse import EventSplitter, parse_event, split_events

# More than this is no answer to any of our questions, whatever it is.
MAX_ANSWER_BYTES = 4 * 2**20
_NO_SUCH_MODEL = re.compile(r"model\b.{0,160}\b(?:not exist|not found|unknown|no such|not available)", re.I | re.S)


class UpstreamSource:
    """Asks a candidate's deployments in turn. Belongs to one event loop.

    Args:
        upstream_for: gives the upstream of a provider; opened and closed by the caller.
    """

    def __init__(
        self,
        candidate: Candidate,
        upstream_for: UpstreamFor,
        timeouts: Timeouts,
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._candidate = candidate
        self._upstream_for, self._timeouts, self._clock = upstream_for, timeouts, clock
        self._turn = count()
        self._answered = False
        self._limit_field = "max_tokens"
        self._temperature: float | None = 0.0

    @property
    def identity(self) -> str:
        """Provider, address and name of the model there: another name at the gateway is the same model."""
        place = self._candidate.deployments[0]
        return f"{place.provider}|{place.base_url}|{place.upstream_model}"

    async def ask(self, question: Question, limit_s: float) -> Completion:
        """One call; a second one only where the server refused the form of the first."""
        places = self._candidate.deployments
        place = places[next(self._turn) % len(places)]
        try:
            async with asyncio.timeout(limit_s):
                while True:
                    try:
                        completion = await self._send(question, place)
                        break
                    except AskFailure as failure:
                        if not self._adapted(failure):
                            raise
        except TimeoutError:
            raise AskFailure("timeout", f"No whole answer within {limit_s:g} s.") from None
        except UpstreamError as error:
            raise _from_transport(error) from error
        except ImportError as error:
            raise AskFailure("unauthorized", str(error), hint="Install the package that it names.") from error
        self._answered = True
        return completion

    async def _send(self, question: Question, place: Deployment) -> Completion:
        began = self._clock()
        body = {"model": place.upstream_model, **question.fields, self._limit_field: question.max_tokens}
        if self._temperature is not None:
            body.setdefault("temperature", self._temperature)
        if question.stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        call = UpstreamCall(Endpoint.CHAT, place, orjson.dumps(body), {}, question.stream, self._timeouts)
        reply = await self._upstream_for(place.provider).send(call)
        try:
            if question.stream and 200 <= reply.status < 300:
                return await self._read_stream(reply, began)
            received = await _read_all(reply)
        finally:
            reply.close()
        if not 200 <= reply.status < 300:
            raise self._refusal(reply, received, place)
        return _completion(received, self._clock() - began)

    async def _read_stream(self, reply: UpstreamReply, began: float) -> Completion:
        """Put the pieces of a streamed answer together."""
        splitter, size, first_s = EventSplitter(), 0, None
        texts: list[str] = []
        finish: str | None = None
        usage: dict[str, Any] = {}
        while chunk := await reply.chunk():
            size += len(chunk)
            if size > MAX_ANSWER_BYTES:
                raise AskFailure("bad_reply", f"The stream goes on after {MAX_ANSWER_BYTES >> 20} MiB.")
            for raw in split_events(splitter.feed(chunk)):
                event = parse_event(raw) or {}
                if event.get("error"):
                    raise AskFailure("server", f"The stream ended in an error: {_short(event['error'])}")
                choice = _first_choice(event)
                delta = choice.get("delta") or {}
                text = delta.get("content") or delta.get("reasoning_content") or ""
                if first_s is None and (text or delta.get("tool_calls")):
                    first_s = self._clock() - began
                texts.append(delta.get("content") or "")
                finish = choice.get("finish_reason") or finish
                usage = event.get("usage") or usage
        return Completion(
            "".join(texts), (), finish, *_tokens(usage), first_token_s=first_s, duration_s=self._clock() - began
        )

    def _refusal(self, reply: UpstreamReply, received: bytes, place: Deployment) -> AskFailure:
        error = parse_error(received)
        words = error.get("message") if isinstance(error, dict) else error
        code = str(error.get("code")) if isinstance(error, dict) else ""
        status = reply.status
        said = _sentence(words or received.decode(errors="replace") or "nothing")
        message = f"The server answered {status}: {said}"
        kind = self._kind(status, code, str(words))
        hint = None
        if kind == "unauthorized":
            name = place.api_key_env
            hint = f"Check the key in {name} where this runs." if name else "Register the model with --api-key-env VAR."
        elif kind == "unknown_model":
            hint = f"The server does not know {place.upstream_model!r}; correct --upstream-model."
        return AskFailure(kind, message, hint=hint, retry_after_s=retry_after_s(reply.headers))

    def _kind(self, status: int, code: str, words: str) -> FailureKind:
        if status == 429:
            return "unauthorized" if code == "insufficient_quota" else "rate_limited"
        if status in (401, 402, 407) or (status == 403 and not self._answered):
            return "unauthorized"
        if status == 404 and not self._answered and (code == "model_not_found" or _NO_SUCH_MODEL.search(words)):
            return "unknown_model"
        if status in (408, 504, 524):
            return "timeout"
        return "server" if status >= 500 else "refused"

    def _adapted(self, failure: AskFailure) -> bool:
        """Whether the server named a field that it does not take, and the next try leaves it out."""
        if failure.kind != "refused":
            return False
        if self._limit_field == "max_tokens" and "max_completion_tokens" in failure.message:
            self._limit_field = "max_completion_tokens"
            return True
        if self._temperature is not None and "temperature" in failure.message:
            self._temperature = None
            return True
        return False


def _from_transport(error: UpstreamError) -> AskFailure:
    if isinstance(error, UpstreamTimeout):
        return AskFailure("timeout" if error.phase != "connect" else "unreachable", error.message, hint=error.hint)
    kind: FailureKind = "bad_reply" if isinstance(error, UpstreamBadReply) else "unreachable"
    return AskFailure(kind, error.message, hint=error.hint)


async def _read_all(reply: UpstreamReply) -> bytes:
    parts, size = [], 0
    while chunk := await reply.chunk():
        parts.append(chunk)
        size += len(chunk)
        if size > MAX_ANSWER_BYTES:
            raise AskFailure("bad_reply", f"The answer goes on after {MAX_ANSWER_BYTES >> 20} MiB.")
    return b"".join(parts)


def _completion(received: bytes, duration_s: float) -> Completion:
    """The answer in OpenAI's form as a value. Raises AskFailure."""
    try:
        answer = orjson.loads(received)
        choice = _first_choice(answer)
        message = choice["message"]
        calls = tuple(
            ToolCall(str(call["function"]["name"]), str(call["function"].get("arguments") or ""))
            for call in message.get("tool_calls") or ()
        )
        content = message.get("content") or message.get("refusal") or ""
        if isinstance(content, list):
            content = "".join(str(part.get("text") or "") for part in content)
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        raise AskFailure(
            "bad_reply",
            f"This is no answer in OpenAI's form: {_short(received.decode(errors='replace') or 'nothing')}",
            hint="Check base_url; most servers answer below /v1.",
        ) from None
    return Completion(
        str(content), calls, choice.get("finish_reason"), *_tokens(answer.get("usage")), duration_s=duration_s
    )


def _first_choice(answer: Any) -> dict[str, Any]:
    choices = answer.get("choices") if isinstance(answer, dict) else None
    return choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}


def _tokens(usage: Any) -> tuple[int | None, int | None]:
    usage = usage if isinstance(usage, dict) else {}
    found = (usage.get("prompt_tokens"), usage.get("completion_tokens"))
    sent, got = (value if isinstance(value, int) else None for value in found)
    return sent, got


def _short(value: Any, length: int = 300) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= length else text[: length - 1] + "…"


def _sentence(value: Any) -> str:
    text = _short(value)
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."
