"""The event-loop lag: seen when something blocks the loop, and gone once closed."""

from __future__ import annotations

import asyncio
import time

from gateway.telemetry.loop_lag import LoopLag


async def test_a_blocked_loop_shows_as_lag() -> None:
    seen: list[float] = []
    lag = LoopLag(seen.append, interval_s=0.01)
    await lag.start()
    await asyncio.sleep(0)
    time.sleep(0.2)
    await asyncio.sleep(0.03)
    await lag.close()
    assert max(seen) > 0.1


async def test_closing_stops_the_measurement() -> None:
    seen: list[float] = []
    lag = LoopLag(seen.append, interval_s=0.005)
    await lag.start()
    await lag.close()
    await asyncio.sleep(0.03)
    assert seen == []
