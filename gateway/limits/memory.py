"""Limits counted in this process. Budgets start from what the registry's ledger holds, so they survive a restart."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from dataclasses import dataclass, field

from gateway.errors import OrbweaverError
from gateway.limits.base import (
    MAX_KEYS,
    PIECE_S,
    RELOAD_SPENT_S,
    SPENT_WAIT_S,
    WINDOW_S,
    LimiterStatus,
    Room,
    SpentReader,
    has_limits,
    period_start,
    rate_headers,
    refuse_money,
    refuse_rate,
    refuse_size,
)
from gateway.registry.records import ClientKey

log = logging.getLogger(__name__)


class Window:
    """How much was used in the last 60 seconds, counted in pieces of one second: at most 61 numbers."""

    __slots__ = ("pieces", "used")

    def __init__(self) -> None:
        self.pieces: deque[list[int]] = deque()
        self.used = 0

    def forget(self, now: float) -> None:
        """Drop the pieces that have left the window as a whole."""
        pieces = self.pieces
        while pieces and pieces[0][0] + PIECE_S + WINDOW_S <= now:
            self.used -= pieces.popleft()[1]

    def add(self, amount: int, now: float) -> None:
        """Count `amount` now."""
        piece = int(now // PIECE_S) * PIECE_S
        if self.pieces and self.pieces[-1][0] >= piece:
            self.pieces[-1][1] += amount
        else:
            self.pieces.append([piece, amount])
        self.used += amount

    def give_back(self, amount: int) -> None:
        """Take back an unused reservation, from the oldest piece on: erring towards the limit, never over it."""
        for piece in self.pieces:
            part = min(piece[1], amount)
            piece[1] -= part
            self.used -= part
            amount -= part
            if amount == 0:
                return

    def wait(self, amount: int, limit: int, now: float) -> float:
        """Seconds until `amount` more fits under `limit`; 0 if it does now."""
        excess = self.used + amount - limit
        for start, held in self.pieces:
            if excess <= 0:
                break
            excess -= held
            if excess <= 0:
                return start + PIECE_S + WINDOW_S - now
        return 0.0

    def room(self, limit: int, now: float) -> Room:
        """The state of the limit at a moment."""
        self.forget(now)
        reset_s = self.pieces[-1][0] + PIECE_S + WINDOW_S - now if self.used and self.pieces else 0.0
        return Room(limit, self.used, reset_s)


@dataclass(slots=True)
class Money:
    """What a key has spent in its current period. `loaded_at` is when the durable count was last asked for."""

    since_day: str
    spent: float = 0.0
    loaded_at: float = float("-inf")
    loading: asyncio.Task[None] | None = None


@dataclass(slots=True)
class Counters:
    """Everything counted for one key."""

    requests: Window = field(default_factory=Window)
    tokens: Window = field(default_factory=Window)
    money: Money | None = None


class MemoryLimiter:
    """Exact sliding windows in memory, for one gateway process; several replicas share limits through Redis.

    Args:
        spent: the durable count of money; without one budgets start at 0.

    Money is only known after an answer, so requests in flight together may go over a budget by what they cost.
    """

    def __init__(self, spent: SpentReader | None = None) -> None:
        self._spent = spent
        self._counters: OrderedDict[str, Counters] = OrderedDict()

    async def admit(self, key: ClientKey, tokens: int, now: float) -> None:
        if not has_limits(key):
            return
        counters = self._of(key)
        if key.budget_usd is not None:
            spent = await self._money(key, counters, now)
            if spent >= key.budget_usd:
                raise refuse_money(key, spent, now)
        requests, token_window = counters.requests, counters.tokens
        if key.requests_per_minute is not None:
            requests.forget(now)
            wait = requests.wait(1, key.requests_per_minute, now)
            if wait > 0 or key.requests_per_minute < 1:
                raise refuse_rate("requests", key, key.requests_per_minute, requests.used, wait)
        if key.tokens_per_minute is not None:
            if tokens > key.tokens_per_minute:
                raise refuse_size(key, tokens)
            token_window.forget(now)
            wait = token_window.wait(tokens, key.tokens_per_minute, now)
            if wait > 0:
                raise refuse_rate("tokens", key, key.tokens_per_minute, token_window.used, wait)
            token_window.add(tokens, now)
        if key.requests_per_minute is not None:
            requests.add(1, now)

    async def settle(self, key: ClientKey, *, reserved: int, used: int, cost_usd: float, now: float) -> None:
        if not has_limits(key):
            return
        counters = self._of(key)
        if key.tokens_per_minute is not None:
            counters.tokens.forget(now)
            if used > reserved:
                counters.tokens.add(used - reserved, now)
            else:
                counters.tokens.give_back(reserved - used)
        if key.budget_usd is not None:
            self._current(key, counters, now).spent += cost_usd

    def headers(self, key: ClientKey, now: float) -> dict[str, str]:
        if not has_limits(key):
            return {}
        counters = self._of(key)
        rooms = {}
        if key.requests_per_minute is not None:
            rooms["requests"] = counters.requests.room(key.requests_per_minute, now)
        if key.tokens_per_minute is not None:
            rooms["tokens"] = counters.tokens.room(key.tokens_per_minute, now)
        return rate_headers(rooms)

    def known_spent(self, key: ClientKey, now: float) -> float:
        """USD that a key has spent in its period, at least, as far as this process knows."""
        return self._current(key, self._of(key), now).spent

    def learn_spent(self, key: ClientKey, usd: float, now: float) -> None:
        """Take over a count of money from elsewhere where it is the larger one."""
        money = self._current(key, self._of(key), now)
        money.spent = max(money.spent, usd)

    def status(self) -> LimiterStatus:
        return LimiterStatus(backend="memory")

    async def close(self) -> None:
        loading = [c.money.loading for c in self._counters.values() if c.money is not None and c.money.loading]
        for task in loading:
            task.cancel()
        await asyncio.gather(*loading, return_exceptions=True)

    def _of(self, key: ClientKey) -> Counters:
        counters = self._counters.get(key.id)
        if counters is not None:
            self._counters.move_to_end(key.id)
            return counters
        counters = self._counters[key.id] = Counters()
        if len(self._counters) > MAX_KEYS:
            self._counters.popitem(last=False)
        return counters

    def _current(self, key: ClientKey, counters: Counters, now: float) -> Money:
        since_day = period_start(key.budget_period, now)
        if counters.money is None or counters.money.since_day != since_day:
            counters.money = Money(since_day)
        return counters.money

    async def _money(self, key: ClientKey, counters: Counters, now: float) -> float:
        """Spent in this period. The first request of a key waits for the durable count; later ones never wait."""
        money = self._current(key, counters, now)
        if self._spent is None or now - money.loaded_at < RELOAD_SPENT_S:
            return money.spent
        first = money.loaded_at == float("-inf")
        if money.loading is None or money.loading.done():
            money.loading = asyncio.create_task(self._reload(key, money, now))
        if first:
            await asyncio.shield(money.loading)
        return money.spent

    async def _reload(self, key: ClientKey, money: Money, now: float) -> None:
        """Take over the durable count where it is larger: it holds what other gateways and earlier runs spent.

        It lags behind this process by the ledger's queue, so the larger of the two numbers is right within moments.
        """
        assert self._spent is not None
        try:
            async with asyncio.timeout(SPENT_WAIT_S):
                spent = await self._spent.spent(key.id, money.since_day)
        except (OrbweaverError, TimeoutError) as error:
            log.warning("Budget of key %r: going on with what this process has counted. %s", key.name, error)
        else:
            money.spent = max(money.spent, spent)
        money.loaded_at = now
