"""`Watchdog`: limits and client disconnects of all calls in flight, with one coarse timer for the whole process.

A timer and a listening task for each request would cost more than relaying it. So a single tick looks at all watches:
a call that outlives its limit, or whose client has left, gets its task cancelled with the reason noted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Literal

Reason = Literal["first_token", "answer", "idle", "total", "disconnected"]
Phase = Literal["first_token", "answer", "idle"]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

TICK_S = 0.1
NEVER = float("inf")


class Watch:
    """One request under watch; use it as a context manager inside the task that serves the request.

    `waiting` says that the task waits for the other side now, `moved` that something came since the last tick; both
    are plain attributes because they are set for each piece of a stream. `reason` is set when the watchdog has
    cancelled the task. Whoever handles that calls `take`, which makes the task usable again; for `disconnected`
    nobody but the outermost handler should.
    """

    __slots__ = (
        "_deadline",
        "_dog",
        "_limit_s",
        "_listener",
        "_phase",
        "_receive",
        "_total_deadline",
        "moved",
        "reason",
        "task",
        "waiting",
    )

    def __init__(self, dog: Watchdog, task: asyncio.Task[Any], receive: Receive | None) -> None:
        self.reason: Reason | None = None
        self.task = task
        self._dog = dog
        self._receive = receive
        self._listener: asyncio.Task[Any] | None = None
        self._phase: Phase = "idle"
        self._limit_s = self._deadline = self._total_deadline = NEVER
        self.waiting = self.moved = False

    def __enter__(self) -> Watch:
        self._dog.add(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._dog.remove(self)
        if self._listener is not None:
            self._listener.cancel()
            self._listener = None  # the listener knows the watch: together they would wait for the garbage collector

    def limit_total(self, seconds: float) -> None:
        """The whole call may take this long from now on."""
        self._total_deadline = self._dog.now() + seconds

    def expect_first_token(self, seconds: float) -> None:
        """From now on, until `expect_next`, something must come within this time; `moved` does not extend it."""
        self._expect("first_token", seconds)

    def expect_answer(self, seconds: float) -> None:
        """The same for a unary answer, whose head comes when all of it has been generated."""
        self._expect("answer", seconds)

    def _expect(self, phase: Phase, seconds: float) -> None:
        self._phase, self._limit_s, self.moved = phase, seconds, False
        self._deadline = self._dog.now() + seconds
        self.waiting = True

    def expect_next(self, seconds: float) -> None:
        """From now on each piece may take this long; only time in which the task waits counts."""
        self._phase, self._limit_s = "idle", seconds
        self._deadline = NEVER
        self.moved = True

    def move_on(self) -> None:
        """The upstream has sent something and the task waits for more."""
        self.moved = True

    def pause(self) -> None:
        """No limit but the total one applies."""
        self.waiting = False
        self._deadline = NEVER

    def take(self) -> Reason | None:
        """Why the watchdog cancelled the task, if it did; the task can go on afterwards."""
        reason, self.reason = self.reason, None
        if reason is not None:
            self.task.uncancel()
        return reason

    def check(self, now: float) -> None:
        """Called by the watchdog at each tick."""
        if self.reason is not None:
            return
        if self._listener is None and self._receive is not None:
            self._listener = asyncio.ensure_future(self._listen(self._receive))
        if now >= self._total_deadline:
            self._stop("total")
        elif self._phase != "idle":
            if self.waiting and now >= self._deadline:
                self._stop(self._phase)
        elif not self.waiting or self.moved:
            self.moved = False
            self._deadline = now + self._limit_s
        elif now >= self._deadline:
            self._stop("idle")

    async def _listen(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        if self.reason is None:
            self._stop("disconnected")

    def _stop(self, reason: Reason) -> None:
        self.reason = reason
        self.task.cancel()


class Watchdog:
    """Ticks while anything is under watch. One for each event loop."""

    def __init__(self, tick_s: float = TICK_S) -> None:
        self._tick_s = tick_s
        self._watches: set[Watch] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ticking = False

    def watch(self, receive: Receive | None) -> Watch:
        """A watch over the running task. `receive` is the request's own, its body read to the end."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a watch needs a running task")
        return Watch(self, task, receive)

    def now(self) -> float:
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        return loop.time()

    def add(self, watch: Watch) -> None:
        self._watches.add(watch)
        if not self._ticking:
            self._ticking = True
            self._loop = asyncio.get_running_loop()
            self._loop.call_later(self._tick_s, self._tick)

    def remove(self, watch: Watch) -> None:
        self._watches.discard(watch)

    def _tick(self) -> None:
        if not self._watches or self._loop is None:
            self._ticking = False
            return
        now = self._loop.time()
        for watch in list(self._watches):
            watch.check(now)
        self._loop.call_later(self._tick_s, self._tick)
