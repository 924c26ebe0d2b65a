"""`RelayStream`: a streamed answer, held back until its first token and then passed on piece by piece as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from gateway.errors import UpstreamBadReply, UpstreamError
from gateway.upstreams.answer import AnswerReader
from gateway.upstreams.base import Timeouts, UpstreamReply
from gateway.upstreams.failures import Failure, from_error_event
from gateway.upstreams.sse import DONE_EVENT, EventSplitter, is_done, parse_event, split_events
from gateway.upstreams.watchdog import Watch

OnEnd = Callable[["RelayStream"], None]

# Where nobody else can answer, pings are let through after this time, so that proxies do not cut the client off.
HOLD_BACK_S = 10.0
# How long the end of a transfer may take after the end of its answer.
DRAIN_S = 0.5
STOPPED = "The gateway is being stopped and could not wait for the end of this answer."
_EXPIRED = {
    "first_token": "The upstream sent no token in time.",
    "idle": "The upstream stopped sending in the middle of its answer.",
    "total": "The answer took longer than is allowed in total.",
}


class RelayStream:
    """`open` it, then iterate: blocks of whole events. Iterating never raises for the upstream's faults.

    A failure after `open` becomes one SSE error event, and then there is no `[DONE]`. `outcome` tells how it ended:
    `ok`, `upstream_error`, `timeout` or `disconnected`; None until then. `on_end` is called once, by `end` at the
    latest. After a successful `open`, call `end` and then `release` in any case. Times are those of `clock`.
    """

    def __init__(
        self,
        reply: UpstreamReply,
        reader: AnswerReader,
        watch: Watch,
        timeouts: Timeouts,
        clock: Callable[[], float],
        on_end: OnEnd,
    ) -> None:
        self.reader = reader
        self.outcome: str | None = None
        self.error_code: str | None = None
        self.first_token_at: float | None = None
        self.first = b""
        self._reply = reply
        self._splitter = EventSplitter()
        self._watch = watch
        self._timeouts = timeouts
        self._clock = clock
        self._on_end: OnEnd | None = on_end

    async def open(self, *, alone: bool) -> Failure | None:
        """Wait for the first token; `first` then holds what may be sent at once.

        Args:
            alone: nobody else could answer instead, so there is no reason to hold back what is no ping.
        Returns:
            The failure, where an error event came first.
        Raises:
            UpstreamError: the answer broke off or ended without a token.
        """
        began = self._clock()
        held = b""
        while self.first_token_at is None:
            self._watch.waiting = True
            chunk = await self._reply.chunk()
            block = self._splitter.feed(chunk) if chunk else self._splitter.flush() + b"\n\n"
            held += block
            opening = False
            for event in split_events(block):
                kind, error = self.reader.kind(event)
                if kind == "error":
                    return from_error_event(error, self._reply.headers)
                if kind in ("token", "end"):
                    self._note_first_token()
                    break
                opening = opening or kind == "opening"
            if self.first_token_at is not None or (alone and opening):
                break
            if not chunk:
                raise UpstreamBadReply("The upstream ended its stream without a token.")
            if alone and held and self._clock() - began > HOLD_BACK_S:
                break
        self.first = self.reader.pass_on(held)
        if self.reader.done:
            self._end("ok")
        return None

    def __aiter__(self) -> RelayStream:
        return self

    async def __anext__(self) -> bytes:
        watch, reader = self._watch, self.reader
        while self.outcome is None:
            watch.waiting = True
            try:
                chunk = await self._reply.chunk()
            except UpstreamError as error:
                return self._fail("upstream_error", error.message, "upstream_bad_reply")
            except asyncio.CancelledError:
                if watch.reason == "disconnected":
                    raise
                if watch.reason is None:  # the server ends and has waited as long as it may
                    return self._fail("gateway_error", STOPPED, "shutting_down")
                return self._fail("timeout", _EXPIRED[watch.take() or "total"], "upstream_timeout")
            if not chunk:
                return self._at_end()
            if self.first_token_at is not None:
                watch.waiting, watch.moved = False, True
            block = self._splitter.feed(chunk)
            if block:
                if self.first_token_at is None:
                    self._look_for_token(block)
                out = reader.pass_on(block)
                if reader.done:
                    self._end("upstream_error" if reader.error is not None else "ok")
                if out:
                    return out
        raise StopAsyncIteration

    def end(self) -> None:
        """Nothing more is read for the client; `outcome` is settled by now."""
        self._end("disconnected")

    async def release(self) -> None:
        """Free the upstream after `end`.

        After a complete answer the last bytes of its transfer are awaited for a moment, so that the connection can be
        used again; in any other case it is cut at once.
        """
        if self.outcome == "ok":
            with suppress(TimeoutError, UpstreamError):
                async with asyncio.timeout(DRAIN_S):
                    while await self._reply.chunk():
                        pass
        self._reply.close()

    def _look_for_token(self, block: bytes) -> None:
        if any(self.reader.kind(event)[0] in ("token", "end") for event in split_events(block)):
            self._note_first_token()

    def _note_first_token(self) -> None:
        self.first_token_at = self._clock()
        self._watch.expect_next(self._timeouts.idle_s)

    def _at_end(self) -> bytes:
        """The upstream has closed its stream cleanly: complete what is missing, or say that it is cut short."""
        reader = self.reader
        rest = self._splitter.flush()
        out = b""
        if is_done(rest):
            out = reader.pass_on(DONE_EVENT)
        elif parse_event(rest) is not None:
            out = reader.pass_on(rest.rstrip(b"\r\n") + b"\n\n")
        closing = reader.finish()
        if closing is None:
            return out + self._fail("upstream_error", "The upstream ended its answer early.", "upstream_bad_reply")
        self._end("upstream_error" if reader.error is not None else "ok")
        if out or closing:
            return out + closing
        raise StopAsyncIteration

    def _fail(self, outcome: str, message: str, code: str) -> bytes:
        self.error_code = code
        self._end(outcome)
        return self.reader.failure(message, code)

    def _end(self, outcome: str) -> None:
        if self.outcome is None:
            self.outcome = outcome
        if self._on_end is not None:
            on_end, self._on_end = self._on_end, None
            self._watch.pause()
            if self.outcome != "ok":
                self._reply.close()
            on_end(self)
