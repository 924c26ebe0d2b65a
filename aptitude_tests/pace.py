"""How many calls may be under way: additive increase, halved on 429, and silence for as long as the server asks."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

LONGEST_PAUSE_S = 60.0


class Pace:
    """Lets at most `limit` calls run, fewer after a 429. Belongs to one event loop.

    Args:
        limit: most calls at a time.
        clock: monotonic seconds.
    """

    def __init__(self, limit: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._allowed = float(limit)
        self._running = 0
        self._open_at = 0.0
        self._halved_at = float("-inf")
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._clock = clock
        self._timer: asyncio.TimerHandle | None = None
        self._is_over = False

    @property
    def allowed(self) -> int:
        """Calls that may run now."""
        return max(1, int(self._allowed))

    async def enter(self) -> float:
        """Wait for a place; gives the time of entry, which `leave` and `slow_down` want back."""
        while not self._is_over and (self._running >= self.allowed or self._clock() < self._open_at):
            place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(place)
            self._wake()
            try:
                await place
            except asyncio.CancelledError:
                if place.done():
                    self._wake()  # the place that this task will not take
                else:
                    self._waiting.remove(place)
                raise
        self._running += 1
        return self._clock()

    def leave(self, *, well: bool) -> None:
        """Give the place back; a good answer makes room for more."""
        self._running -= 1
        if well and self._allowed < self._limit:
            self._allowed = min(float(self._limit), self._allowed + 1.0 / self._allowed)
        self._wake()

    def slow_down(self, entered_at: float, retry_after_s: float | None) -> None:
        """After a 429: half as many calls (once for all that were under way together), and none for a while."""
        now = self._clock()
        if entered_at > self._halved_at:
            self._allowed = max(1.0, self._allowed / 2.0)
            self._halved_at = now
        pause = min(LONGEST_PAUSE_S, 1.0 if retry_after_s is None else max(0.0, retry_after_s))
        self._open_at = max(self._open_at, now + pause)

    def open_for_good(self) -> None:
        """Hold nobody back any more: the run is over, and those who enter are told so."""
        self._is_over = True
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)

    def _wake(self) -> None:
        """Let in as many as there is room for; where it is too early, come back when it is time."""
        early = self._open_at - self._clock()
        if early > 0:
            if self._waiting and (self._timer is None or self._timer.when() < asyncio.get_running_loop().time()):
                self._timer = asyncio.get_running_loop().call_later(early + 0.001, self._time_is_up)
            return
        room = self.allowed - self._running
        while room > 0 and self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                room -= 1

    def _time_is_up(self) -> None:
        self._timer = None
        self._wake()
