"""Limits shared by several gateways through Redis: each decision is one atomic script, the same windows as in memory.

Redis being away never fails a request: after a bounded wait the limiter in memory decides, and `status` says so.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

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
from gateway.limits.memory import MemoryLimiter
from gateway.registry.records import ClientKey
from gateway.shared.redis_link import RedisLink

log = logging.getLogger(__name__)
MONEY_KEPT_S = 40 * 86400

_WINDOW = f"""
local now, piece_s, window_s = tonumber(ARGV[1]), {PIECE_S}, {WINDOW_S}
local function load(key)
  local flat, pieces, used = redis.call('HGETALL', key), {{}}, 0
  for i = 1, #flat, 2 do
    local start, held = tonumber(flat[i]), tonumber(flat[i + 1])
    if start + piece_s + window_s <= now then
      redis.call('HDEL', key, flat[i])
    else
      pieces[#pieces + 1] = {{start, held}}
      used = used + held
    end
  end
  table.sort(pieces, function(a, b) return a[1] < b[1] end)
  return pieces, used
end
local function wait(pieces, used, amount, limit)
  local excess = used + amount - limit
  for _, piece in ipairs(pieces) do
    if excess <= 0 then break end
    excess = excess - piece[2]
    if excess <= 0 then return piece[1] + piece_s + window_s - now end
  end
  return 0
end
local function reset(pieces, used)
  if used == 0 or #pieces == 0 then return 0 end
  return pieces[#pieces][1] + piece_s + window_s - now
end
local function add(key, amount)
  redis.call('HINCRBY', key, string.format('%d', math.floor(now / piece_s) * piece_s), amount)
  redis.call('EXPIRE', key, piece_s + window_s + 1)
end
local function text(number) return string.format('%.3f', number) end
"""

# KEYS: requests, tokens, money. ARGV: now, requests per minute, tokens per minute, tokens, budget (-1: no limit).
# Answers: verdict, then what the verdict needs.
_ADMIT = (
    _WINDOW
    + """
local rpm, tpm, tokens, budget = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local spent = '0'
if budget >= 0 then
  spent = redis.call('GET', KEYS[3])
  if not spent then return {'unknown'} end
  if tonumber(spent) >= budget then return {'money', spent} end
end
local r, r_used, t, t_used = {}, 0, {}, 0
if rpm >= 0 then
  r, r_used = load(KEYS[1])
  local pause = wait(r, r_used, 1, rpm)
  if pause > 0 or rpm < 1 then return {'requests', text(r_used), text(pause)} end
end
if tpm >= 0 then
  t, t_used = load(KEYS[2])
  local pause = wait(t, t_used, tokens, tpm)
  if pause > 0 then return {'tokens', text(t_used), text(pause)} end
  add(KEYS[2], tokens)
end
if rpm >= 0 then add(KEYS[1], 1) end
return {'ok', text(r_used + 1), text(t_used + tokens), spent}
"""
)

# KEYS: tokens, money. ARGV: now, change in tokens, USD, counts tokens (0 or 1), seconds to keep the money.
# Answers: the money spent; '0' where Redis holds no count.
_SETTLE = (
    _WINDOW
    + """
local change = tonumber(ARGV[2])
if ARGV[4] == '1' then
  local pieces, used = load(KEYS[1])
  if change > 0 then add(KEYS[1], change) end
  for _, piece in ipairs(pieces) do
    if change >= 0 then break end
    local part = math.min(piece[2], -change)
    redis.call('HINCRBY', KEYS[1], string.format('%d', piece[1]), -part)
    change = change + part
  end
end
if tonumber(ARGV[3]) > 0 and redis.call('EXISTS', KEYS[2]) == 1 then
  redis.call('INCRBYFLOAT', KEYS[2], ARGV[3])
  redis.call('EXPIRE', KEYS[2], ARGV[5])
end
return redis.call('GET', KEYS[2]) or '0'
"""
)

# KEYS: money. ARGV: the durable count, seconds to keep it. The count in Redis is never lowered.
_RAISE = """
local held = redis.call('GET', KEYS[1])
if not held or tonumber(held) < tonumber(ARGV[1]) then redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2]) end
return 1
"""


class RedisLimiter:
    """Exact sliding windows shared through Redis.

    Args:
        url: `redis://[user:password@]host[:port][/db]`, or `rediss://` for TLS.
        local: decides while Redis is away. It learns what Redis knows to be spent, so that a budget that is used up
            stays so where the durable count is away as well, and where Redis comes back empty.
        spent: the durable count of money, which Redis starts from and is corrected by.

    The callers' clocks stamp the windows: gateways whose clocks differ by a second see windows shifted by a second.
    """

    def __init__(
        self,
        url: str,
        local: MemoryLimiter,
        spent: SpentReader | None = None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._link = RedisLink(
            url, what="limits are counted in this process", back="limits are shared", monotonic=monotonic
        )
        self._admit = self._link.redis.register_script(_ADMIT)
        self._settle = self._link.redis.register_script(_SETTLE)
        self._raise = self._link.redis.register_script(_RAISE)
        self._spent = spent
        self._local = local
        self._admitted_here: Counter[str] = Counter()
        self._used: OrderedDict[str, tuple[float, int, int]] = OrderedDict()
        self._loaded_at: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._loading: dict[tuple[str, str], asyncio.Task[None]] = {}

    async def admit(self, key: ClientKey, tokens: int, now: float) -> None:
        if not has_limits(key):
            return
        if key.tokens_per_minute is not None and tokens > key.tokens_per_minute:
            raise refuse_size(key, tokens)
        answer = await self._ask_admission(key, tokens, now)
        if answer is None:
            await self._local.admit(key, tokens, now)
            self._admitted_here[key.id] += 1
            return
        verdict = answer[0]
        if key.budget_usd is not None and verdict in ("money", "ok"):
            self._local.learn_spent(key, float(answer[-1]), now)
        if verdict == "money":
            raise refuse_money(key, float(answer[1]), now)
        if verdict in ("requests", "tokens"):
            limit = key.requests_per_minute if verdict == "requests" else key.tokens_per_minute
            raise refuse_rate(verdict, key, limit or 0, int(float(answer[1])), float(answer[2]))
        self._used[key.id] = (now, int(float(answer[1])), int(float(answer[2])))
        self._used.move_to_end(key.id)
        if len(self._used) > MAX_KEYS:
            self._used.popitem(last=False)

    async def settle(self, key: ClientKey, *, reserved: int, used: int, cost_usd: float, now: float) -> None:
        if not has_limits(key):
            return
        if self._admitted_here[key.id] > 0:
            # What was admitted in memory is settled there; its money reaches Redis through the ledger.
            self._admitted_here[key.id] -= 1
            if not self._admitted_here[key.id]:
                del self._admitted_here[key.id]
            await self._local.settle(key, reserved=reserved, used=used, cost_usd=cost_usd, now=now)
            return
        money = cost_usd if key.budget_usd is not None else 0.0
        counts_tokens = "0" if key.tokens_per_minute is None else "1"
        arguments = [repr(now), used - reserved, f"{money:.12f}", counts_tokens, MONEY_KEPT_S]
        answer = await self._ask(self._settle, _names(key, now)[1:], arguments)
        if key.budget_usd is not None and answer is not None:
            self._local.learn_spent(key, float(answer), now)

    def headers(self, key: ClientKey, now: float) -> dict[str, str]:
        if not has_limits(key):
            return {}
        if self._link.degraded:
            return self._local.headers(key, now)
        at, requests, tokens = self._used.get(key.id, (now, 0, 0))
        reset_s = max(0.0, at + WINDOW_S + PIECE_S - now)
        rooms = {}
        if key.requests_per_minute is not None:
            rooms["requests"] = Room(key.requests_per_minute, requests, reset_s if requests else 0.0)
        if key.tokens_per_minute is not None:
            rooms["tokens"] = Room(key.tokens_per_minute, tokens, reset_s if tokens else 0.0)
        return rate_headers(rooms)

    def status(self) -> LimiterStatus:
        return LimiterStatus(backend="redis", degraded=self._link.degraded, failures=self._link.failures)

    async def close(self) -> None:
        tasks = list(self._loading.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._local.close()
        await self._link.close()

    async def _ask_admission(self, key: ClientKey, tokens: int, now: float) -> Sequence[str] | None:
        """Redis's verdict; None where Redis is away."""
        if key.budget_usd is not None:
            await self._keep_money_right(key, now, wait=False)
        limits = [key.requests_per_minute, key.tokens_per_minute, tokens, key.budget_usd]
        arguments = [repr(now), *(-1 if limit is None else limit for limit in limits)]
        answer = await self._ask(self._admit, _names(key, now), arguments)
        if answer is not None and answer[0] == "unknown":
            await self._keep_money_right(key, now, wait=True)
            answer = await self._ask(self._admit, _names(key, now), arguments)
            if answer is not None and answer[0] == "unknown":
                return None
        found: Sequence[str] | None = answer
        return found

    async def _keep_money_right(self, key: ClientKey, now: float, *, wait: bool) -> None:
        """Raise Redis's count of money to the durable one every few seconds; at once where Redis holds none."""
        place = (key.id, period_start(key.budget_period, now))
        if not wait and now - self._loaded_at.get(place, now - RELOAD_SPENT_S) < RELOAD_SPENT_S:
            return
        task = self._loading.get(place)
        if task is None:
            task = self._loading[place] = asyncio.create_task(self._reload(key, place, now))
            task.add_done_callback(lambda _: self._loading.pop(place, None))
        if wait:
            await asyncio.shield(task)

    async def _reload(self, key: ClientKey, place: tuple[str, str], now: float) -> None:
        spent = self._local.known_spent(key, now)
        if self._spent is not None:
            try:
                async with asyncio.timeout(SPENT_WAIT_S):
                    spent = max(spent, await self._spent.spent(key.id, place[1]))
            except (OrbweaverError, TimeoutError) as error:
                log.warning("Budget of key %r: going on with what is counted here. %s", key.name, error)
        await self._ask(self._raise, _names(key, now)[2:], [f"{spent:.12f}", MONEY_KEPT_S])
        self._loaded_at[place] = now
        if len(self._loaded_at) > MAX_KEYS:
            self._loaded_at.popitem(last=False)

    async def _ask(self, script: Any, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """Run a script; None where Redis does not answer in time."""
        return await self._link.ask(lambda: script(keys=list(keys), args=list(arguments)))


def _names(key: ClientKey, now: float) -> list[str]:
    """Redis keys of a client key; the braces keep them on one node of a cluster."""
    base = f"orbweaver:{{{key.id}}}:"
    return [base + "requests", base + "tokens", f"{base}usd:{key.budget_period}:{period_start(key.budget_period, now)}"]
