"""`Executor`: tries candidates in the decision's order until one answers; nothing is sent to the client before that."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gateway.errors import Overloaded, UpstreamBadReply, UpstreamError, UpstreamTimeout
from gateway.registry.records import Candidate, Deployment, Endpoint
from gateway.registry.snapshot import Snapshot
from gateway.settings import RetrySettings
from gateway.upstreams.answer import AnswerReader, reader_for
from gateway.upstreams.base import RawHeaders, Timeouts, UpstreamCall, UpstreamReply
from gateway.upstreams.failures import Failure, from_error, from_error_event, from_status, parse_error, unsupported
from gateway.upstreams.headers import find_header, relayed_headers
from gateway.upstreams.health import HealthBoard
from gateway.upstreams.openai_http import OpenAIUpstream, decompress
from gateway.upstreams.outbound import Attempt, OutboundRequest, Served
from gateway.upstreams.relay_stream import RelayStream
from gateway.upstreams.watchdog import Receive, Watch, Watchdog

if TYPE_CHECKING:
    from gateway.upstreams.litellm_upstream import LitellmUpstream

logger = logging.getLogger(__name__)

# Longest `retry-after` of a 503 that a retry waits for.
PATIENCE_S = 2.0
CHARACTERS_PER_TOKEN = 4


@dataclass(slots=True)
class _Run:
    """What one request has been through so far; `called` is when the newest try began."""

    request: OutboundRequest
    watch: Watch
    started: float
    called: float = 0.0
    attempts: list[Attempt] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)


class Executor:
    """Calls upstreams with retries and fallbacks. One for each process; use it on one event loop only."""

    def __init__(
        self,
        board: HealthBoard,
        *,
        timeouts: Timeouts,
        retry: RetrySettings,
        clock: Callable[[], float] = time.perf_counter,
        rng: random.Random | None = None,
    ) -> None:
        self.board = board
        self.watchdog = Watchdog()
        self._timeouts = timeouts
        self._retry = retry
        self._clock = clock
        self._rng = rng or random.Random()
        self._openai = OpenAIUpstream()
        self._litellm: LitellmUpstream | None = None

    def watch(self, receive: Receive | None) -> Watch:
        """A watch for a request that this task serves; enter it before `execute` and keep it to the last byte."""
        return self.watchdog.watch(receive)

    async def execute(self, order: Sequence[Candidate], request: OutboundRequest, watch: Watch) -> Served:
        """The first answer that `order` gives, by the rules of the module.

        An error status of the upstream is an answer where nothing else was left to try.
        Raises:
            UpstreamError: no upstream answered at all.
        """
        run = _Run(request, watch, self._clock())
        watch.limit_total(self._timeouts.total_s)
        floor = 0
        for position, candidate in enumerate(order):
            if floor and (candidate.context_window or 0) <= floor:
                continue
            last = position == len(order) - 1
            found = await self._ask(candidate, run, last=last)
            if isinstance(found, Served):
                return found
            if found is None:
                continue
            if found.too_long:
                known = candidate.context_window or len(request.raw) // CHARACTERS_PER_TOKEN
                floor = max(floor, known)
            elif not found.others:
                break
        if order and not run.attempts:  # every circuit was open
            found = await self._ask(order[0], run, last=True, shaky=True)
            if isinstance(found, Served):
                return found
        return self._give_up(order, run)

    def follow(self, snapshot: Snapshot) -> None:
        """The registry has changed: get ready for its candidates and forget the health of those that are gone.

        Where one needs litellm, its import begins now, in the background, instead of with the first request.
        """
        self.board.follow(snapshot.candidates.values())
        if any(place.provider != "openai" for each in snapshot.enabled.values() for place in each.deployments):
            self._translator().warm_up()

    async def close(self) -> None:
        """Close all connections."""
        await self._openai.close()
        if self._litellm is not None:
            await self._litellm.close()

    async def _ask(
        self, candidate: Candidate, run: _Run, *, last: bool, shaky: bool = False
    ) -> Served | Failure | None:
        """Ask one candidate: each of its deployments once, and again where that may help. None: none is usable."""
        tried: set[str] = set()
        retries = 0
        failure: Failure | None = None
        while True:
            deployment = self.board.pick(candidate, tried)
            if deployment is None and failure is None and shaky and candidate.deployments:
                deployment = self.board.last_resort(candidate)
            if deployment is None:
                if failure is None or not failure.again or retries >= self._retry.retries:
                    return failure
                if not await self._pause(failure, retries, run):
                    return failure
                retries += 1
                tried.clear()
                deployment = self.board.pick(candidate) or self.board.last_resort(candidate)
            alone = last and self.board.pick(candidate, {*tried, deployment.id}) is None
            found = await self._try(candidate, deployment, run, alone=alone)
            if isinstance(found, Served):
                return found
            failure = found
            run.failures.append(found)
            tried.add(deployment.id)
            if not found.elsewhere:
                return found

    async def _pause(self, failure: Failure, retries: int, run: _Run) -> bool:
        """Wait before a retry; false where the provider wants more patience than we have."""
        wait = self._retry.backoff_s * 2**retries * (0.5 + self._rng.random())
        if failure.retry_after_s is not None:
            if failure.retry_after_s > PATIENCE_S:
                return False
            wait = failure.retry_after_s
        run.watch.pause()
        try:
            await asyncio.sleep(wait)
        except asyncio.CancelledError:
            if run.watch.reason is None or run.watch.reason == "disconnected":
                raise
            run.watch.take()
            return False
        return True

    async def _try(self, candidate: Candidate, deployment: Deployment, run: _Run, *, alone: bool) -> Served | Failure:
        """One call to one deployment, up to the first token."""
        if run.request.endpoint is Endpoint.RESPONSES and deployment.provider != "openai":
            run.attempts.append((candidate.name, deployment.id, "unsupported"))
            return unsupported(candidate.name, run.request.endpoint.value)
        run.called = self._clock()
        self.board.started(candidate, deployment)
        reply: UpstreamReply | None = None
        try:
            reply = await self._send(deployment, run, alone=alone)
            found = await self._take(candidate, deployment, reply, run, alone=alone)
        except UpstreamError as error:
            found = from_error(error)
        except asyncio.CancelledError:
            if reply is not None:
                reply.close()
            if run.watch.reason is None or run.watch.reason == "disconnected":
                self.board.finished(deployment, "cancelled")
                run.attempts.append((candidate.name, deployment.id, "cancelled"))
                raise
            found = from_error(_expired(run.watch.take() or "total", candidate, self._timeouts))
        except BaseException:
            self.board.finished(deployment, "cancelled")
            raise
        if isinstance(found, Served):
            return found
        if reply is not None:
            reply.close()
        logger.info("%s failed: %s", deployment.id, found.label)
        run.attempts.append((candidate.name, deployment.id, found.label))
        self.board.finished(deployment, found.outcome, retry_after_s=found.retry_after_s, reason=found.label)
        return found

    async def _send(self, deployment: Deployment, run: _Run, *, alone: bool) -> UpstreamReply:
        request = run.request
        if request.stream:
            run.watch.expect_first_token(self._timeouts.first_token_s)
        elif alone:
            run.watch.pause()  # nobody else could answer: it may take all the time there is
        else:
            run.watch.expect_answer(self._timeouts.answer_s)
        headers = request.headers
        if request.accepts_gzip and not request.stream:
            headers = {**headers, "accept-encoding": "gzip"}
        body = request.encode(deployment.upstream_model)
        call = UpstreamCall(request.endpoint, deployment, body, headers, request.stream, self._timeouts)
        return await (self._openai if deployment.provider == "openai" else self._translator()).send(call)

    def _translator(self) -> LitellmUpstream:
        if self._litellm is None:
            from gateway.upstreams.litellm_upstream import LitellmUpstream

            self._litellm = LitellmUpstream()
        return self._litellm

    async def _take(
        self, candidate: Candidate, deployment: Deployment, reply: UpstreamReply, run: _Run, *, alone: bool
    ) -> Served | Failure:
        """Read a reply whose head is here: whole where it is unary or an error, else up to the first token."""
        status, headers = reply.status, reply.headers
        if not 200 <= status < 300:
            return from_status(status, headers, _plain(await self._read(reply, run), headers))
        kind = (find_header(headers, b"content-type") or b"").lower()
        if run.request.stream and (b"event-stream" in kind or not kind):
            return await self._open_stream(candidate, deployment, reply, run, alone=alone)
        body = await self._read(reply, run)
        encoding = find_header(headers, b"content-encoding")
        if encoding is not None and not (run.request.accepts_gzip and encoding == b"gzip"):
            body, encoding = _plain(body, headers), None
        if encoding is None and not _is_json_object(body):
            shown = kind.decode("latin-1").partition(";")[0] or "no content type"
            raise UpstreamBadReply(f"The upstream answered {status} with {shown} that is no JSON object.")
        reply.close()
        if encoding is None and not run.request.named and body.startswith(b'{"error"'):
            error = parse_error(body)
            if error is not None:
                return from_error_event(error, headers)
        run.attempts.append((candidate.name, deployment.id, "ok"))
        waited = self._clock() - run.started
        self.board.finished(deployment, "ok")
        content_type = (b"content-type", find_header(headers, b"content-type") or b"application/json")
        return Served(
            candidate,
            deployment,
            status,
            [content_type, *relayed_headers(headers)],
            body,
            None,
            tuple(run.attempts),
            content_encoding=encoding,
            waited_s=waited,
        )

    async def _read(self, reply: UpstreamReply, run: _Run) -> bytes:
        """The whole body; each pause in it is limited."""
        run.watch.expect_next(self._timeouts.idle_s)
        run.watch.waiting = True
        body = await reply.read(run.watch.move_on)
        run.watch.pause()
        return body

    async def _open_stream(
        self, candidate: Candidate, deployment: Deployment, reply: UpstreamReply, run: _Run, *, alone: bool
    ) -> Served | Failure:
        """Let a stream through as soon as it shows its first token."""
        request = run.request
        # Translated streams always report their usage.
        hide_usage = request.hide_usage or (deployment.provider != "openai" and not request.expects_usage)
        reader = reader_for(request.endpoint, hide_usage=hide_usage, count_text=not request.expects_usage)

        def finish(stream: RelayStream) -> None:
            self._finish_stream(deployment, stream, run.called)

        stream = RelayStream(reply, reader, run.watch, self._timeouts, self._clock, finish)
        failure = await stream.open(alone=alone)
        if failure is not None:
            return failure
        run.attempts.append((candidate.name, deployment.id, "ok"))
        content_type = find_header(reply.headers, b"content-type") or b"text/event-stream; charset=utf-8"
        headers = [(b"content-type", content_type), *relayed_headers(reply.headers)]
        attempts, waited = tuple(run.attempts), self._clock() - run.started
        return Served(candidate, deployment, reply.status, headers, stream.first, stream, attempts, waited_s=waited)

    def _finish_stream(self, deployment: Deployment, stream: RelayStream, called: float) -> None:
        token_at = stream.first_token_at
        if stream.outcome == "disconnected":
            self.board.finished(deployment, "cancelled")
        elif stream.outcome == "ok" and token_at is not None:
            tokens = output_tokens(stream.reader)
            spent = self._clock() - token_at
            self.board.finished(
                deployment,
                "ok",
                ttft_s=token_at - called,
                tokens_per_s=tokens / spent if tokens and spent > 0 else None,
                output_tokens=tokens,
            )
        else:
            self.board.finished(deployment, "failed", reason=stream.outcome)

    def _give_up(self, order: Sequence[Candidate], run: _Run) -> Served:
        """The failure that the client should hear of: the first of those that it can do most about."""
        if not run.failures:
            raise Overloaded("No model that could take this request is usable at the moment.", hint="Try again soon.")
        worst = max(run.failures, key=lambda failure: failure.blame)
        place = run.attempts[run.failures.index(worst)]
        if worst.reply is None:
            error = worst.error or UpstreamError("The upstream failed.")
            error.attempts = tuple(run.attempts)
            raise error
        candidate = next(each for each in order if each.name == place[0])
        deployment = next(each for each in candidate.deployments if each.id == place[1])
        reply = worst.reply
        return Served(
            candidate,
            deployment,
            reply.status,
            [(b"content-type", reply.content_type), *reply.headers],
            reply.body,
            None,
            tuple(run.attempts),
            waited_s=self._clock() - run.started,
            ok=False,
        )


def output_tokens(reader: AnswerReader) -> float | None:
    """Tokens of a streamed answer: as reported, else from its characters."""
    usage = reader.usage or {}
    for name in ("completion_tokens", "output_tokens"):
        value = usage.get(name)
        if isinstance(value, int | float) and value > 0:
            return float(value)
    return reader.characters / CHARACTERS_PER_TOKEN or None


def _expired(reason: str, candidate: Candidate, timeouts: Timeouts) -> UpstreamTimeout:
    limits = {"first_token": timeouts.first_token_s, "answer": timeouts.answer_s, "idle": timeouts.idle_s}
    limit = limits.get(reason, timeouts.total_s)
    what = {"first_token": "sent no token", "answer": "sent no answer", "idle": "sent nothing more"}
    said = what.get(reason, "did not finish")
    return UpstreamTimeout(f"Model {candidate.name!r} {said} within {limit:g} s.", phase=reason)


def _plain(body: bytes, headers: RawHeaders) -> bytes:
    """The body unpacked. Raises UpstreamBadReply."""
    encoding = find_header(headers, b"content-encoding")
    if encoding is None:
        return body
    try:
        return decompress(body, encoding.decode("latin-1"))
    except (ValueError, OverflowError) as error:
        raise UpstreamBadReply(f"The upstream's answer cannot be unpacked: {error}.") from error


def _is_json_object(body: bytes) -> bool:
    """A cheap look that tells JSON from HTML and from a body that was cut; full parsing would cost twice."""
    with suppress(IndexError):
        return body.lstrip()[:1] == b"{" and body.rstrip()[-1:] == b"}"
    return False
