"""The decision log: one JSON line for each finished request, written by a thread. Hashes and features, never text."""

from __future__ import annotations

import sys
import threading
from collections import deque
from typing import Any, Protocol, TextIO

import orjson

from gateway.telemetry.labels import endpoint_of, route_of
from gateway.telemetry.record import RequestRecord

MAX_QUEUED = 10_000


class _Writable(Protocol):
    def write(self, text: str, /) -> object: ...

    def flush(self) -> object: ...


def log_fields(record: RequestRecord) -> dict[str, Any]:
    """What of a request may be logged.

    The requested model is told as its route (`auto`, a preset, `named`, `unknown`): a client may have put anything
    into that field, a key or a prompt by mistake included. A model or key is told by the gateway's own name for it.
    """
    decision = record.decision
    named = decision is not None and decision.rule == "named"
    fields: dict[str, Any] = {
        "time": record.started_at,
        "event": "request",
        "request_id": record.request_id,
        "endpoint": endpoint_of(record.endpoint),
        "route": route_of(record.requested_model, record.model, named=named),
        "model": record.model,
        "deployment": record.deployment,
        "key_id": record.key_id,
        "stream": record.stream,
        "status": record.status,
        "outcome": record.outcome,
        "attempts": [list(attempt) for attempt in record.attempts],
        "duration_ms": round(record.duration_s * 1e3, 3),
        "overhead_ms": round(record.overhead_s * 1e3, 3),
        "first_token_ms": None if record.first_token_s is None else round(record.first_token_s * 1e3, 3),
        "cost_usd": record.cost_usd,
        "baseline_cost_usd": record.baseline_cost_usd,
    }
    if record.usage is not None:
        fields["tokens_in"], fields["tokens_out"] = record.usage.prompt_tokens, record.usage.completion_tokens
    if decision is not None and not named:
        chosen = decision.chosen
        fields["decision"] = {
            "id": decision.id,
            "chosen": decision.model,
            "rule": decision.rule,
            "reason": decision.reason,
            "order": list(decision.order),
            "p": chosen.p if chosen else None,
            "p_low": chosen.p_low if chosen else None,
            "p_high": chosen.p_high if chosen else None,
            "quality": decision.quality,
            "scorer": decision.scorer,
            "prior": decision.prior,
            "ask_hash": decision.ask_hash,
            "novelty": decision.novelty,
            "features": decision.features,
            "excluded": {v.model: v.excluded_because for v in decision.candidates if v.excluded_because},
            "decide_ms": round(record.decide_s * 1e3, 3),
        }
    return fields


class DecisionLog:
    """Implements `Sink`. Lines go to `stream` (standard error by default) from a thread of their own.

    The queue is bounded: while the stream cannot keep up, the newest lines are dropped and counted in `dropped`.
    """

    def __init__(self, stream: _Writable | TextIO | None = None) -> None:
        self._stream = stream
        self._queue: deque[RequestRecord] = deque()
        self._wake = threading.Event()
        self._closing = False
        self._thread: threading.Thread | None = None
        self.dropped = 0

    def start(self) -> None:
        """Start the writing thread; the first record does so too."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._write_forever, name="orbweaver-decision-log", daemon=True)
            self._thread.start()

    def record(self, record: RequestRecord) -> None:
        """Queue one line."""
        self.start()
        if len(self._queue) >= MAX_QUEUED:
            self.dropped += 1
            return
        self._queue.append(record)
        self._wake.set()

    def close(self, *, timeout_s: float = 5.0) -> None:
        """Write what is queued and stop the thread, waiting `timeout_s` at most."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._closing = True
            self._wake.set()
            thread.join(timeout_s)

    def _write_forever(self) -> None:
        while not (self._closing and not self._queue):
            self._wake.wait()
            self._wake.clear()
            lines = []
            while self._queue:
                lines.append(orjson.dumps(log_fields(self._queue.popleft()), default=str).decode())
            if not lines:
                continue
            stream = self._stream or sys.stderr
            try:
                stream.write("\n".join(lines) + "\n")
                stream.flush()
            except (OSError, ValueError):  # the stream is closed or full: logging must not take the gateway down
                self.dropped += len(lines)
