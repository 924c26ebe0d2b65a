"""`RelayStream`: the rest of a streamed answer after its head was let through, piece by piece as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from gateway.errors import UpstreamError
from gateway.upstreams.answer import AnswerReader
from gateway.upstreams.base import Timeouts, UpstreamReply
from gateway.upstreams.sse import DONE_EVENT, EventSplitter, is_done, parse_event, split_events
from gateway.upstreams.watchdog import Watch

Finish = Callable[["RelayStream"], None]

DRAIN_S = 0.5
_EXPIRED = {
    "first_token": "The upstream sent no token in time.",
    "idle": "The upstream stopped sending in the middle of its answer.",
    "total": "The answer took longer than is allowed in total.",
}


class RelayStream:
    """An async iterator of blocks of whole events. It never raises for the upstream's faults.

    A failure after the head becomes one SSE error event, and then there is no `[DONE]`. `outcome` tells how it ended:
    `ok`, `upstream_error`, `timeout` or `disconnected`; None until then. `on_end` is called once, by `end` at the
    latest. Call `end` and then `release` in any case.
    """

    def __init__(
        self,
        reply: UpstreamReply,
        reader: AnswerReader,
        splitter: EventSplitter,
        watch: Watch,
        timeouts: Timeouts,
        on_end: Finish,
    ) -> None:
        self.reader = reader
        self.outcome: str | None = None
        self.error_code: str | None = None
        self.token_seen = True
        self._reply = reply
        self._splitter = splitter
        self._watch = watch
        self._timeouts = timeouts
        self._on_end: Finish | None = on_end

    def begin(self, held: bytes, *, token_seen: bool) -> bytes:
        """What of the events held back may go out first; from now on only whole blocks come."""
        self.token_seen = token_seen
        if token_seen:
            self._watch.expect_next(self._timeouts.idle_s)
        out = self.reader.pass_on(held)
        if self.reader.done:
            self._end("ok")
        return out

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
                if watch.reason is None or watch.reason == "disconnected":
                    raise
                return self._fail("timeout", _EXPIRED[watch.take() or "total"], "upstream_timeout")
            if not chunk:
                return self._at_end()
            if self.token_seen:
                watch.waiting, watch.moved = False, True
            block = self._splitter.feed(chunk)
            if block:
                if not self.token_seen:
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
        if any(self.reader.kind(event)[0] != "nothing" for event in split_events(block)):
            self.token_seen = True
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
        if self.reader.done:
            self._end("ok")
            raise StopAsyncIteration
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
