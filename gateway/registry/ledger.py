"""The decision log and the count of usage, written behind the requests: a bounded queue and one writer thread.

`record` never blocks and never fails a request. While the database is away everything waits and is tried again; when
the queue is full the oldest decisions are dropped and counted, but tokens and money are summed up and never dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import orjson

from gateway.errors import NotFound, OrbweaverError
from gateway.registry.database import Database
from gateway.registry.ledger_store import COUNTS, Batch, LedgerStore, Period, UsageKey
from gateway.telemetry.record import RequestRecord

log = logging.getLogger(__name__)
Result = TypeVar("Result")
CAPACITY = 20_000
BATCH = 500
FLUSH_S = 0.2
RETRY_S = 0.5
MAX_RETRY_S = 5.0
TRIM_EVERY = 2_000
# How long a reader of one decision waits for it to be written; on a busy disk a first write can take a second.
FIND_S = 5.0


class Ledger:
    """A `Sink` that remembers. Start it before the first request and close it after the last.

    Args:
        database: shared with the registry.
        keep_decisions: how many decisions stay in the database.
        capacity: how many may wait for it in memory.
    """

    def __init__(
        self,
        database: Database,
        *,
        keep_decisions: int = 100_000,
        capacity: int = CAPACITY,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.dropped = 0
        self.written = 0
        self.problem: str | None = None
        self._store = LedgerStore(database)
        self._keep = keep_decisions
        self._capacity = capacity
        self._clock = clock
        self._writer_id = secrets.token_hex(8)
        self._lock = threading.Lock()
        self._queue: deque[tuple[float, RequestRecord]] = deque()
        self._usage: dict[UsageKey, list[float]] = {}
        self._batch: Batch | None = None
        self._batch_number = 0
        self._untrimmed = 0
        self._taken = 0  # records so far, and how many of them are written
        self._settled = 0
        self._day = (0, "")
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._readers = ThreadPoolExecutor(max_workers=2, thread_name_prefix="ledger-read")

    # -- writing -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the writer thread."""
        if self._thread is None:
            self._stopping.clear()
            self._thread = threading.Thread(target=self._write_on, name="ledger-writer", daemon=True)
            self._thread.start()

    async def close(self, timeout_s: float = 5.0) -> None:
        """Write what is waiting, for at most `timeout_s`, and stop."""
        self._stopping.set()
        self._wake.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, timeout_s)
            self._thread = None
        if self.queued:
            log.error("%d decisions could not be written before the end.", self.queued)
        self._readers.shutdown(wait=False, cancel_futures=True)

    def record(self, record: RequestRecord) -> None:
        """Take a finished request. A microsecond's work on the event loop; the rest happens in the writer thread."""
        now = self._clock()
        with self._lock:
            self._taken += 1
            if record.model or record.key_id:
                self._count(record, now)
            if record.decision is None:
                return
            self._queue.append((now, record))
            if len(self._queue) > self._capacity:
                self._queue.popleft()
                self.dropped += 1

    @property
    def queued(self) -> int:
        """Decisions that wait for the database."""
        batch = self._batch
        return len(self._queue) + (len(batch.decisions) if batch is not None else 0)

    def _count(self, record: RequestRecord, now: float) -> None:
        number = int(now // 86400)
        if self._day[0] != number:
            self._day = (number, time.strftime("%Y-%m-%d", time.gmtime(now)))
        key = (record.key_id or "", _clean(record.model, 160), self._day[1])
        counts = self._usage.get(key)
        if counts is None:
            counts = self._usage[key] = [0] * len(COUNTS)
        counts[0] += 1
        counts[1] += record.outcome != "ok"
        if record.usage is not None:
            counts[2] += record.usage.prompt_tokens
            counts[3] += record.usage.completion_tokens
            counts[4] += record.usage.cached_tokens
        counts[5] += record.cost_usd or 0.0
        counts[6] += record.baseline_cost_usd or 0.0

    def _write_on(self) -> None:
        """The writer thread: one batch after the other; after a failure the same batch again."""
        pause = FLUSH_S
        while True:
            self._wake.wait(pause)
            self._wake.clear()
            try:
                while self._write_batch():
                    pass
                pause = FLUSH_S
                if self.problem is not None:
                    log.warning("The decision log can be written again.")
                    self.problem = None
            except OrbweaverError as error:
                self._failed(str(error))
                pause = min(MAX_RETRY_S, max(RETRY_S, pause * 2))
            except Exception:
                # The thread must outlive whatever a database driver throws.
                log.exception("The decision log could not be written.")
                self._failed("The decision log could not be written.")
                pause = MAX_RETRY_S
            if self._stopping.is_set() and (self.problem is not None or not (self._queue or self._usage)):
                return

    def _failed(self, problem: str) -> None:
        if self.problem is None:
            log.error("%s Decisions and usage wait in memory.", problem)
        self.problem = problem

    def _write_batch(self) -> bool:
        """Write one batch; whether there was one. A batch that fails stays, under its number, for the next try."""
        if self._batch is None:
            with self._lock:
                taken = [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
                usage, self._usage = self._usage, {}
                mark = self._taken - len(self._queue)
            if not taken and not usage:
                self._settled = max(self._settled, mark)
                return False
            self._batch_number += 1
            rows = [row for now, record in taken if (row := self._try_row(now, record)) is not None]
            self._batch = Batch(self._batch_number, mark, rows, usage)
        now = self._clock()
        try:
            self._store.save(self._batch, self._writer_id, now)
        except OrbweaverError as error:
            if error.code == "registry_rejected" and self._batch.decisions:
                log.error(
                    "%d decisions are dropped, for they would be refused again: %s", len(self._batch.decisions), error
                )
                self.dropped += len(self._batch.decisions)
                self._batch.decisions = ()
            raise
        self._settled = self._batch.mark
        self.written += len(self._batch.decisions)
        self._untrimmed += len(self._batch.decisions)
        self._batch = None
        if self._untrimmed >= min(TRIM_EVERY, self._keep):
            self._untrimmed = 0
            self._store.trim(self._keep, now)
        return True

    def _try_row(self, now: float, record: RequestRecord) -> dict[str, Any] | None:
        """The row of a record; one that cannot be written as JSON is dropped, not the batch it is in."""
        try:
            return _row(now, record)
        except (TypeError, ValueError) as error:
            log.error("The decision of request %r cannot be written down: %s", record.request_id, error)
            self.dropped += 1
            return None

    # -- reading -------------------------------------------------------------------------------------------------

    async def recent_decisions(
        self,
        limit: int = 50,
        since: float | None = None,
        *,
        before: float | None = None,
        filters: Mapping[str, str] | None = None,
    ) -> list[dict[str, Any]]:
        """Decisions of every gateway on this database, newest first; those still waiting here are among them.

        Args:
            since, before: wall times in seconds; `at` lies strictly between them.
            filters: exact values of model, key_id, rule, outcome or requested.
        Raises:
            RegistryError: the database is away.
        """
        await self.flush()
        return await self._read(lambda: self._store.recent(limit, since, before, filters or {}))

    async def decision(self, decision_id: str) -> dict[str, Any]:
        """One decision with its request and its feedback. Raises NotFound, RegistryError."""
        # Asked before the look: what the writer finishes meanwhile is missed by the first look and found by the second.
        waiting = self._settled < self._taken
        found = await self._read(lambda: self._store.decision(decision_id))
        if found is None and waiting:
            await self.flush(FIND_S)
            found = await self._read(lambda: self._store.decision(decision_id))
        if found is None:
            raise NotFound(
                f"There is no decision {decision_id!r}.",
                hint=f"Its id stands in `x-orbweaver-decision-id`; the newest {self._keep} are kept.",
                param="decision_id",
            )
        return found

    async def add_feedback(self, decision_id: str, score: float) -> dict[str, Any]:
        """Keep a score (0..1) for a decision and return that decision. Raises NotFound, RegistryError."""
        found = await self.decision(decision_id)
        now = self._clock()
        await self._read(lambda: self._store.add_feedback(decision_id, score, now))
        found["feedback"] = {"score": score, "at": now}
        return found

    async def spent(self, key_id: str, since_day: str) -> float:
        """USD spent by a key on and after a UTC day, by every gateway on this database. Raises RegistryError."""
        return await self._read(lambda: self._store.spent(key_id, since_day))

    async def usage(
        self,
        period: Period = "total",
        *,
        since_day: str = "",
        key_id: str | None = None,
        model: str | None = None,
        limit: int = 1000,
    ) -> list[dict[str, Any]]:
        """Requests, tokens and money by key, model and period. Raises RegistryError."""
        await self.flush()
        return await self._read(
            lambda: self._store.usage(period, since_day=since_day, key_id=key_id, model=model, limit=limit)
        )

    async def flush(self, timeout_s: float = 1.0) -> None:
        """Wait until what is waiting now is written; give up after `timeout_s`, or at once while it cannot be."""
        deadline, mark = time.monotonic() + timeout_s, self._taken
        while self._settled < mark and self._thread is not None and self.problem is None:
            self._wake.set()
            if time.monotonic() > deadline:
                return
            await asyncio.sleep(0.01)

    async def _read(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._readers, work)


def _row(now: float, record: RequestRecord) -> dict[str, Any]:
    """One decision as it is stored: columns to search by, and the whole as JSON."""
    decision = record.decision
    assert decision is not None
    chosen = decision.chosen
    columns = {
        "id": decision.id,
        "at": now,
        "request_id": _clean(record.request_id, 128),
        "key_id": record.key_id,
        "requested": _clean(decision.requested, 160),
        "model": _clean(record.model or decision.model, 128),
        "rule": decision.rule,
        "outcome": record.outcome,
        "status": record.status,
        "p": chosen.p if chosen is not None else None,
        "cost_usd": record.cost_usd,
    }
    whole = {
        **columns,
        "reason": decision.reason,
        "endpoint": record.endpoint,
        "stream": record.stream,
        "started_at": record.started_at,
        "deployment": record.deployment,
        "provider": record.provider,
        "error_code": record.error_code,
        "attempts": record.attempts,
        "fallbacks": max(0, len({model for model, _, _ in record.attempts}) - 1),
        "duration_s": record.duration_s,
        "overhead_s": record.overhead_s,
        "decide_s": record.decide_s,
        "first_token_s": record.first_token_s,
        "usage": record.usage,
        "baseline_cost_usd": record.baseline_cost_usd,
        "retry_count": record.retry_count,
        "decision": decision,
    }
    return {**columns, "body": orjson.dumps(whole, default=_plain, option=orjson.OPT_NON_STR_KEYS).decode()}


def _clean(text: str, length: int) -> str:
    """Text from outside, fit for a column: PostgreSQL takes no NUL, no lone surrogate and no overlong value."""
    if text.isascii() and "\0" not in text:
        return text[:length]
    return text[:length].replace("\0", "").encode("utf-8", "replace").decode()


def _plain(value: Any) -> Any:
    """What orjson does not know: sets become sorted lists, anything else its text."""
    if isinstance(value, set | frozenset):
        return sorted(value, key=str)
    with contextlib.suppress(TypeError):
        return dict(value) if isinstance(value, Mapping) else str(value)
    return repr(value)
