"""The watchdog's limits: which one fires, what resets it, and that its victim can go on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from gateway.upstreams.watchdog import Reason, Watch, Watchdog

SOON = 0.05


async def reason_of(
    work: Callable[[Watch], Awaitable[object]], receive: asyncio.Queue[dict[str, str]] | None = None
) -> Reason | None:
    """Why the watchdog stopped some work; None where it did not."""
    with Watchdog(tick_s=0.01).watch(receive.get if receive else None) as watch:
        try:
            async with asyncio.timeout(2):
                await work(watch)
        except asyncio.CancelledError:
            return watch.take()
        return None


async def forever(watch: Watch) -> None:
    watch.waiting = True
    await asyncio.sleep(10)


async def test_the_total_limit_stops_anything() -> None:
    async def work(watch: Watch) -> None:
        watch.limit_total(SOON)
        await asyncio.sleep(10)

    assert await reason_of(work) == "total"


async def test_pieces_do_not_extend_the_first_token_limit() -> None:
    async def work(watch: Watch) -> None:
        watch.expect_first_token(SOON)
        while True:
            watch.waiting = watch.moved = True
            await asyncio.sleep(0.005)

    assert await reason_of(work) == "first_token"


async def test_pieces_extend_the_idle_limit() -> None:
    async def work(watch: Watch) -> None:
        watch.expect_next(0.1)
        for _ in range(30):
            watch.waiting = watch.moved = True
            await asyncio.sleep(0.01)

    assert await reason_of(work) is None


async def test_silence_is_idle() -> None:
    async def work(watch: Watch) -> None:
        watch.expect_next(SOON)
        await forever(watch)

    assert await reason_of(work) == "idle"


async def test_waiting_for_the_client_is_not_idle() -> None:
    async def work(watch: Watch) -> None:
        watch.expect_next(SOON)
        watch.waiting = False
        await asyncio.sleep(0.3)

    assert await reason_of(work) is None


async def test_a_disconnect_stops_the_work() -> None:
    messages: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    messages.put_nowait({"type": "http.disconnect"})
    assert await reason_of(forever, messages) == "disconnected"


async def test_the_task_can_go_on_after_the_reason_was_taken() -> None:
    async def work(watch: Watch) -> None:
        watch.limit_total(SOON)
        await asyncio.sleep(10)

    assert await reason_of(work) == "total"
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0.03)


async def test_a_cancellation_from_elsewhere_has_no_reason() -> None:
    with Watchdog().watch(None) as watch:
        watch.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(1)
        assert watch.take() is None
        watch.task.uncancel()


async def test_it_stops_ticking_when_nothing_is_watched() -> None:
    dog = Watchdog(tick_s=0.01)
    with dog.watch(None):
        await asyncio.sleep(0.03)
    await asyncio.sleep(0.03)
    assert not dog._ticking
    with dog.watch(None) as watch:
        watch.limit_total(0.0)
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(1)
        assert watch.take() == "total"
