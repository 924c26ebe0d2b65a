"""Measures how late the event loop runs: the one number that shows that something blocks it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class LoopLag:
    """Sleeps `interval_s` over and over and reports by how much each sleep overran, in seconds."""

    def __init__(self, report: Callable[[float], None], *, interval_s: float = 0.5) -> None:
        self._report = report
        self._interval_s = interval_s
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin measuring on the running loop."""
        if self._task is None:
            self._task = asyncio.create_task(self._measure(), name="orbweaver-loop-lag")

    async def close(self) -> None:
        """Stop measuring; returns once the task is gone."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _measure(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + self._interval_s
            await asyncio.sleep(self._interval_s)
            self._report(max(loop.time() - due, 0.0))
