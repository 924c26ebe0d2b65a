"""The thread that computes: it owns the lanes of models that share a base and steps each in turn."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from merge_backends.engine.causal import CausalModel, inference
from merge_backends.engine.errors import EngineError
from merge_backends.engine.lane import Lane, Row

logger = logging.getLogger(__name__)
RETRY_AFTER_S = 1.0


class Worker:
    """Runs lanes in one thread. `submit` may be called from any thread; all else happens in the worker's own.

    Args:
        slots: rows of a batch.
        queue: sequences that may wait; more are refused with 429.
        queue_s: seconds that one may wait.
        answer_s: seconds that one may take, waiting included.
        kv_bytes: memory for keys and values of one lane.
        after_step: called after each round, to hand over what the rows emitted.
    """

    def __init__(
        self,
        name: str,
        *,
        slots: int,
        queue: int,
        queue_s: float,
        answer_s: float,
        kv_bytes: int,
        after_step: Callable[[], None],
    ) -> None:
        self._slots = slots
        self._queue = queue
        self._queue_s = queue_s
        self._answer_s = answer_s
        self._kv_bytes = kv_bytes
        self._after_step = after_step
        self._change = threading.Condition()
        self._arrived: deque[tuple[CausalModel, Row]] = deque()
        self._lanes: dict[CausalModel, Lane] = {}
        self._waiting: dict[CausalModel, list[Row]] = {}
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=f"engine-{name}", daemon=True)
        self._thread.start()

    @property
    def running(self) -> int:
        """Rows in the batches now."""
        return sum(len(lane) for lane in list(self._lanes.values()))

    @property
    def waiting(self) -> int:
        """Sequences that wait for a row."""
        return len(self._arrived) + sum(len(rows) for rows in list(self._waiting.values()))

    def submit(self, model: CausalModel, rows: Sequence[Row]) -> None:
        """Queue sequences.

        Raises:
            EngineError: 429 where too many wait; 413 where one needs more memory than there is.
        """
        probe = Lane(model, slots=1, kv_bytes=self._kv_bytes)
        if not all(probe.fits_ever(row) for row in rows):
            raise EngineError(
                "The prompt with its answer needs more memory for keys and values than the engine may use.",
                status=413,
                code="memory_budget_exceeded",
                param="max_tokens",
            )
        now = time.monotonic()
        with self._change:
            if self._closing:
                raise shutting_down()
            if self.waiting + len(rows) > max(self._queue, len(rows) if self.waiting == 0 else 0):
                raise EngineError(
                    f"{self.waiting} requests wait already.",
                    status=429,
                    code="queue_full",
                    retry_after_s=RETRY_AFTER_S,
                )
            for row in rows:
                row.arrived = now
                self._arrived.append((model, row))
            self._change.notify()

    def close(self) -> None:
        """End all rows with an error and stop the thread."""
        with self._change:
            self._closing = True
            self._change.notify()
        self._thread.join(timeout=10)

    def _run(self) -> None:
        with inference():
            while self._next_round():
                for model in list(self._waiting):
                    self._step(model)
                self._after_step()
            for lane in self._lanes.values():
                lane.fail(shutting_down())
            for rows in self._waiting.values():
                for row in rows:
                    row.fail(shutting_down())
            self._after_step()

    def _next_round(self) -> bool:
        """Wait for work; False where the worker closes."""
        with self._change:
            while not (self._closing or self._arrived or any(self._lanes.values()) or any(self._waiting.values())):
                self._change.wait()
            while self._arrived:
                model, row = self._arrived.popleft()
                self._waiting.setdefault(model, []).append(row)
            return not self._closing

    def _step(self, model: CausalModel) -> None:
        lane = self._lanes.get(model)
        if lane is None:
            lane = self._lanes[model] = Lane(model, slots=self._slots, kv_bytes=self._kv_bytes)
        waiting = self._waiting[model]
        self._expire(lane, waiting)
        try:
            for row in lane.admit(waiting):
                waiting.remove(row)
            if len(lane):
                lane.step()
        except Exception as error:  # the border of the thread: one broken batch must not end all others
            logger.exception("a step of %s failed", model.name)
            lane.fail(EngineError(f"The model failed: {error}", status=500, code="model_failed"))
        if not len(lane) and not waiting:
            # A model without work is not kept alive by its worker, so that the library may unload it.
            del self._lanes[model], self._waiting[model]

    def _expire(self, lane: Lane, waiting: list[Row]) -> None:
        now = time.monotonic()
        lane.expire(now - self._answer_s, timed_out(self._answer_s))
        for row in [each for each in waiting if each.cancelled or each.arrived < now - self._queue_s]:
            waiting.remove(row)
            if not row.cancelled:
                row.fail(
                    EngineError(
                        f"No place in the batch came free in {self._queue_s:g} s.",
                        status=503,
                        code="overloaded",
                        retry_after_s=RETRY_AFTER_S,
                    )
                )


def shutting_down() -> EngineError:
    """The engine stops; another replica or a later try can answer."""
    return EngineError("The engine is shutting down.", status=503, code="shutting_down", retry_after_s=RETRY_AFTER_S)


def timed_out(seconds: float) -> EngineError:
    """The answer took longer than it may."""
    return EngineError(f"The answer was not finished in {seconds:g} s.", status=504, code="timeout")
