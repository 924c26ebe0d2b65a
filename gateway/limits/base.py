"""Limits of a client key: requests and tokens per minute, and money. The Protocol and what both limiters share."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from gateway.errors import LimitExceeded
from gateway.registry.records import ClientKey

WINDOW_S = 60
# Width of the pieces a window is counted in. A piece leaves the window when its last moment does, so no 60 seconds
# ever see more than the limit; the price is that room may come back up to one piece late.
PIECE_S = 1
RELOAD_SPENT_S = 5.0
# A durable count that does not come in this time is gone without: a hanging database must not hang requests.
SPENT_WAIT_S = 2.0
# Keys counted at once; beyond that the one unused for longest is forgotten.
MAX_KEYS = 100_000


@dataclass(frozen=True, slots=True)
class LimiterStatus:
    """For metrics and /readyz. `failures` counts calls that the shared store did not answer; `degraded`: it is away."""

    backend: str
    degraded: bool = False
    failures: int = 0


class Limiter(Protocol):
    """Counts what client keys use. Keys without limits cost nothing. `now` is wall time in seconds."""

    async def admit(self, key: ClientKey, tokens: int, now: float) -> None:
        """Let a request of about `tokens` tokens in and reserve them.

        Raises:
            LimitExceeded: `rate_limit_exceeded` with the seconds until there is room, or `insufficient_quota`.
        """
        ...

    async def settle(self, key: ClientKey, *, reserved: int, used: int, cost_usd: float, now: float) -> None:
        """Replace a reservation by what was used, and count the money. Call it once for each admitted request."""
        ...

    def headers(self, key: ClientKey, now: float) -> dict[str, str]:
        """`x-ratelimit-*` of the limits this key has; empty for a key without limits."""
        ...

    def status(self) -> LimiterStatus: ...

    async def close(self) -> None: ...


class SpentReader(Protocol):
    """The durable count of money, kept by the ledger: what a limiter starts from after a restart."""

    async def spent(self, key_id: str, since_day: str) -> float:
        """USD spent by a key on and after a UTC day (ISO date). Raises RegistryError."""
        ...


@dataclass(frozen=True, slots=True)
class Room:
    """One limit of a key at a moment: `reset_s` is the time until all of it is free again."""

    limit: int
    used: int
    reset_s: float

    @property
    def remaining(self) -> int:
        return max(0, self.limit - self.used)


def has_limits(key: ClientKey) -> bool:
    """Whether anything of this key has to be counted."""
    return key.requests_per_minute is not None or key.tokens_per_minute is not None or key.budget_usd is not None


def period_start(period: str, now: float) -> str:
    """First UTC day of the budget period that `now` lies in; the day before all days for `total`."""
    if period == "total":
        return "0000-00-00"
    day = time.strftime("%Y-%m-%d", time.gmtime(now))
    return day if period == "day" else day[:8] + "01"


def period_end_s(period: str, now: float) -> float | None:
    """Seconds until the budget period ends; None for `total`."""
    if period == "total":
        return None
    moment = time.gmtime(now)
    midnight = now - (moment.tm_hour * 3600 + moment.tm_min * 60 + moment.tm_sec) - now % 1
    if period == "day":
        return midnight + 86400 - now
    year, month = moment.tm_year + moment.tm_mon // 12, moment.tm_mon % 12 + 1
    import calendar

    return calendar.timegm((year, month, 1, 0, 0, 0)) - now


def refuse_rate(what: str, key: ClientKey, limit: int, used: int, retry_after_s: float) -> LimitExceeded:
    """The error for a full window. `what` is `requests` or `tokens`."""
    return LimitExceeded(
        f"Rate limit reached for key {key.name!r} on {what} per minute: limit {limit}, used {used}.",
        hint=f"Try again in {retry_after_s:.0f} s." if retry_after_s >= 1 else "Try again in a moment.",
        retry_after_s=retry_after_s,
    )


def refuse_size(key: ClientKey, tokens: int) -> LimitExceeded:
    """The error for one request that is larger than the whole window; waiting does not help."""
    return LimitExceeded(
        f"Request too large for key {key.name!r}: about {tokens} tokens, limit {key.tokens_per_minute} per minute.",
        hint="Shorten the input or lower max_tokens.",
    )


def refuse_money(key: ClientKey, spent: float, now: float) -> LimitExceeded:
    """The error for a used-up budget."""
    ends = period_end_s(key.budget_period, now)
    per = "in total" if ends is None else f"per {key.budget_period}"
    return LimitExceeded(
        f"The budget of key {key.name!r} is used up: {spent:.4f} of {key.budget_usd:.4f} USD {per}.",
        hint="Ask the operator for a larger budget."
        if ends is None
        else f"It starts anew in {math.ceil(ends / 60)} min; or ask the operator for a larger budget.",
        code="insufficient_quota",
        retry_after_s=ends,
    )


def rate_headers(rooms: Mapping[str, Room]) -> dict[str, str]:
    """OpenAI's header names and its way to write times (`6m0s`)."""
    headers = {}
    for what, room in rooms.items():
        headers[f"x-ratelimit-limit-{what}"] = str(room.limit)
        headers[f"x-ratelimit-remaining-{what}"] = str(room.remaining)
        headers[f"x-ratelimit-reset-{what}"] = _duration(room.reset_s)
    return headers


def _duration(seconds: float) -> str:
    whole = math.ceil(seconds)
    return f"{whole // 60}m{whole % 60}s" if whole >= 60 else f"{whole}s"
