"""`Caller`: one question becomes one answer, with pacing, retries, caps, and a clear end where no answer will come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from aptitude_tests.errors import AptitudeError
from aptitude_tests.pace import Pace
from aptitude_tests.source import FATAL, PASSING, AnswerSource, AskFailure, Completion, Prices, Question

StopKind = Literal[
    "cost_cap", "call_cap", "rate_limited", "unreachable", "unauthorized", "unknown_model", "refused", "cancelled"
]
BACKOFF_S = 0.2
LONGEST_BACKOFF_S = 5.0


@dataclass(frozen=True, slots=True)
class FlowLimits:
    """Bounds of a run.

    Attributes:
        call_s: longest wait for one answer.  max_tokens: longest answer.
        max_usd, max_calls: caps over the whole measurement, what was stored before included.
        retries: further tries after a failure that may pass (a 429 is waited out and is no try).
        patience_s: longest stretch of 429s without one answer.
        hopeless: calls that may fail one after the other before the run ends.
    """

    concurrency: int = 16
    call_s: float = 120.0
    max_tokens: int = 2048
    max_usd: float | None = None
    max_calls: int | None = None
    retries: int = 3
    patience_s: float = 120.0
    hopeless: int = 8


class FlowStopped(AptitudeError):
    """A run ended before its end; what was answered is stored, and a new run goes on from there."""

    def __init__(self, kind: StopKind, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.kind = kind


class Caller:
    """Asks a source under `limits`. Once `stopped` is set nothing more is sent."""

    def __init__(
        self,
        source: AnswerSource,
        limits: FlowLimits | None = None,
        prices: Prices | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.stopped: FlowStopped | None = None
        self.calls = 0
        self.cost_usd = 0.0
        self._calls_before = 0
        self.source, self.limits, self.prices = source, limits or FlowLimits(), prices or Prices()
        self._clock = clock
        self._pace = Pace(self.limits.concurrency, clock=clock)
        self._priced = self._under_way = self._answered = 0
        self._fresh_usd = 0.0
        self._failed_in_a_row = 0
        self._last_answer_at = clock()

    def count_earlier(self, calls: int, cost_usd: float) -> None:
        """What earlier runs of the measurement have used; the caps are over all of them."""
        self._calls_before += calls
        self.cost_usd += cost_usd

    async def ask(self, question: Question) -> tuple[Completion, float | None]:
        """The answer and what it cost.

        Raises:
            AskFailure: this question got none. FlowStopped: no question will.
        """
        tries = 0
        while True:
            entered_at = await self._pace.enter()
            well = False
            try:
                self._check()
                self.calls += 1
                self._under_way += 1
                try:
                    completion = await self.source.ask(question, self.limits.call_s)
                finally:
                    self._under_way -= 1
                well = True
                return completion, self._note_answer(completion, question)
            except AskFailure as failure:
                if failure.kind == "rate_limited":
                    self._pace.slow_down(entered_at, failure.retry_after_s)
                tries += self._count_try(failure, tries)
            finally:
                self._pace.leave(well=well)
            if tries:
                await asyncio.sleep(min(LONGEST_BACKOFF_S, BACKOFF_S * 2.0**tries))

    def stop(self, reason: FlowStopped) -> FlowStopped:
        """Send nothing more; those who wait are told."""
        if self.stopped is None:
            self.stopped = reason
            self._pace.open_for_good()
        return self.stopped

    def _check(self) -> None:
        """Raises FlowStopped where the run is over or one more call could break a cap."""
        if self.stopped is not None:
            raise self.stopped
        cap = self.limits.max_calls
        if cap is not None and self._calls_before + self.calls >= cap:
            raise self.stop(
                FlowStopped("call_cap", f"The cap of {cap} calls is reached.", hint="Raise the cap to go on from here.")
            )
        if self.limits.max_usd is not None and self._expected_usd() > self.limits.max_usd:
            raise self.stop(
                FlowStopped(
                    "cost_cap",
                    f"The cap of ${self.limits.max_usd:g} is reached after ${self.cost_usd:.4f}.",
                    hint="Raise the cap to go on from here.",
                )
            )

    def _expected_usd(self) -> float:
        """What will be spent when the calls under way and one more are paid, each at the mean so far."""
        mean = self._fresh_usd / self._priced if self._priced else 0.0
        return self.cost_usd + mean * (self._under_way + 1)

    def _note_answer(self, completion: Completion, question: Question) -> float | None:
        self._failed_in_a_row = 0
        self._answered += 1
        self._last_answer_at = self._clock()
        cost = self.prices.cost_usd(completion, question)
        if cost is not None:
            self.cost_usd += cost
            self._fresh_usd += cost
            self._priced += 1
        return cost

    def _count_try(self, failure: AskFailure, tries: int) -> int:
        """1 where the question may be asked again after a failed try, 0 after a 429; raises where it may not."""
        if failure.kind in FATAL:
            kind: StopKind = "unauthorized" if failure.kind == "unauthorized" else "unknown_model"
            raise self.stop(FlowStopped(kind, failure.message, hint=failure.hint)) from failure
        if failure.kind == "rate_limited":
            silent_s = self._clock() - self._last_answer_at
            if silent_s > self.limits.patience_s:
                raise self.stop(
                    FlowStopped(
                        "rate_limited",
                        f"The endpoint has answered nothing but 429 for {silent_s:.0f} s: {failure.message}",
                        hint="Run it again later; what was answered is kept.",
                    )
                ) from failure
            return 0
        allowed = min(1, self.limits.retries) if failure.kind == "timeout" else self.limits.retries
        if failure.kind in PASSING and tries < allowed:
            return 1
        self._give_up_if_hopeless(failure)
        raise failure

    def _give_up_if_hopeless(self, failure: AskFailure) -> None:
        """End the run where call after call fails; a refusal counts only while nothing at all was answered."""
        if self._answered and failure.kind == "refused":
            return
        self._failed_in_a_row += 1
        if self._failed_in_a_row < self.limits.hopeless:
            return
        kind: StopKind = "refused" if failure.kind == "refused" else "unreachable"
        raise self.stop(
            FlowStopped(
                kind,
                f"{self._failed_in_a_row} questions in a row got no answer: {failure.message}",
                hint=failure.hint or "Run it again when the endpoint works; what was answered is kept.",
            )
        ) from failure
