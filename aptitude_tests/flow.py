"""The dynamic half: items -> render -> ask -> extract and score -> store -> records. Async and bounded.

Architecture after OmniEvalKit's dynamic data flow (model x items, skipping what is answered). The records depend on the
answers alone, not on the order in which they came: a run that was killed and started again gives the same.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from aptitude_tests.answers import AnswerStore, Measurement, StoredAnswer
from aptitude_tests.caller import Caller, FlowStopped
from aptitude_tests.circle import close_circle, rotations
from aptitude_tests.item import Item, Verdict
from aptitude_tests.progress import Progress
from aptitude_tests.render import TEMPLATE_VERSION, render
from aptitude_tests.scorers import SCORERS, score
from aptitude_tests.source import AskFailure, Completion, Question

# A reply longer than this is graded in a thread: patterns over an endless reply would hold up the event loop.
_LONG_REPLY = 8_000

#: Looks at the records so far; a sentence ends the run, None lets it go on. Runs in a thread.
EarlyStop = Callable[[Sequence["Record"]], str | None]


@dataclass(frozen=True, slots=True)
class Record:
    """What became of one item.

    Attributes:
        verdict: None where no reply came; `failure` then says why.
        seconds, tokens: of the first call.  cost_usd: of all calls for the item.  cut: the reply hit the token limit.
    """

    item: Item
    verdict: Verdict | None = None
    failure: str | None = None
    seconds: float = 0.0
    tokens: int | None = None
    cost_usd: float | None = None
    cut: bool = False


@dataclass(frozen=True, slots=True)
class FlowResult:
    """Records in the order of the items asked, the last progress, and why it ended before the last item, if so."""

    records: tuple[Record, ...]
    progress: Progress
    early: str | None = None


@dataclass(frozen=True, slots=True)
class FlowPlan:
    """What to ask.

    Attributes:
        items: in the order of asking.
        circle: ids of items that count only if they are also right with their options rotated.
        waves: numbers of items after which `early_stop` is asked; in a wave calls run side by side.
    """

    items: tuple[Item, ...]
    circle: frozenset[str] = frozenset()
    waves: tuple[int, ...] = ()
    early_stop: EarlyStop | None = None


class Flow:
    """One run of a plan. The caller may have been used before, for probes.

    Args:
        take: answers are shared by runs with the same source and take; a fresh take measures anew.
        on_progress: called after every item, on the event loop; must not block.
    """

    def __init__(
        self,
        plan: FlowPlan,
        caller: Caller,
        store: AnswerStore,
        *,
        take: str = "first",
        on_progress: Callable[[Progress], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._plan, self._caller, self._store = plan, caller, store
        self._measurement = Measurement(caller.source.identity, take, TEMPLATE_VERSION)
        self._on_progress = on_progress or (lambda _: None)
        self._clock = clock
        self._stored: dict[str, StoredAnswer] = {}
        self._records: dict[str, Record] = {}
        self._reused = 0
        self._began = clock()

    async def run(self) -> FlowResult:
        """Ask everything that is not yet answered.

        Raises:
            FlowStopped: a cap, a wrong key, an endpoint that does not answer; the next run goes on from there.
            AptitudeError: the store cannot be used.
        """
        self._began = self._clock()
        self._stored = dict(await self._store.load(self._measurement))
        mine = [answer for item in self._plan.items for answer in self._answers_of(item)]
        spent = sum(answer.cost_usd or 0.0 for answer in mine)
        self._caller.count_earlier(len(mine), spent)
        early = None
        for start, end in self._bounds():
            await self._wave(self._plan.items[start:end])
            if self._plan.early_stop is not None and end < len(self._plan.items):
                early = await asyncio.to_thread(self._plan.early_stop, self._in_order())
                if early is not None:
                    break
        records = self._in_order()
        return FlowResult(records, replace(self._progress(), total=len(records), eta_s=0.0), early)

    def _answers_of(self, item: Item) -> list[StoredAnswer]:
        turns = rotations(item, 1) if item.id in self._plan.circle else ()
        return [self._stored[turn.hash] for turn in (item, *turns) if turn.hash in self._stored]

    def _bounds(self) -> Iterator[tuple[int, int]]:
        total = len(self._plan.items)
        marks = [mark for mark in self._plan.waves if 0 < mark < total] if self._plan.early_stop else []
        yield from zip([0, *marks], [*marks, total], strict=True)

    def _in_order(self) -> tuple[Record, ...]:
        return tuple(self._records[item.id] for item in self._plan.items if item.id in self._records)

    async def _wave(self, items: Sequence[Item]) -> None:
        """Settle some items. Calls under way are waited for when the run has to end, for they are paid for."""
        left = iter(items)
        workers = [
            asyncio.create_task(self._work(left)) for _ in range(min(self._caller.limits.concurrency, len(items)))
        ]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        if self._caller.stopped is not None:
            self._on_progress(self._progress())
            raise self._caller.stopped

    async def _work(self, left: Iterator[Item]) -> None:
        for item in left:
            if self._caller.stopped is not None:
                return
            try:
                record = await self._settle(item)
            except FlowStopped:
                return
            self._records[item.id] = record
            self._on_progress(self._progress())

    async def _settle(self, item: Item) -> Record:
        """The record of one item, by the store or by calls."""
        reused = item.hash in self._stored
        try:
            first = await self._answer(item)
        except AskFailure as failure:
            return Record(item, failure=failure.message)
        verdict, cost = first.verdict, first.cost_usd
        if verdict.score == 1.0 and item.id in self._plan.circle:
            for turn in rotations(item, 1):
                try:
                    again = await self._answer(turn)
                except AskFailure:
                    continue  # an endpoint that cannot take the rotated item says nothing against the first answer
                verdict = close_circle([verdict, again.verdict])
                cost = None if cost is None else cost + (again.cost_usd or 0.0)
        self._reused += reused
        completion = first.completion
        return Record(
            item,
            verdict,
            seconds=completion.duration_s,
            tokens=completion.completion_tokens,
            cost_usd=cost,
            cut=completion.finish == "length",
        )

    async def _answer(self, item: Item) -> StoredAnswer:
        stored = self._stored.get(item.hash)
        if stored is not None:
            return stored
        question = Question(render(item).as_fields(), self._caller.limits.max_tokens)
        completion, cost = await self._caller.ask(question)
        answer = StoredAnswer(completion, await _grade(item, completion), cost)
        await self._store.put(self._measurement, item.hash, answer)
        self._stored[item.hash] = answer
        return answer

    def _progress(self) -> Progress:
        records = self._records.values()
        graded = [record.verdict for record in records if record.verdict is not None]
        scores = [verdict.score for verdict in graded if verdict.score is not None]
        done, total = len(self._records), len(self._plan.items)
        fresh = done - self._reused
        elapsed = self._clock() - self._began
        return Progress(
            total=total,
            done=done,
            reused=self._reused,
            calls=self._caller.calls,
            right=sum(scores),
            answered=len(scores),
            no_answer=len(graded) - len(scores),
            failed=done - len(graded),
            cost_usd=self._caller.cost_usd if self._caller.prices.known else None,
            elapsed_s=elapsed,
            eta_s=elapsed / fresh * (total - done) if fresh else None,
        )


async def _grade(item: Item, completion: Completion) -> Verdict:
    """The verdict on a reply; what takes long runs in a thread."""
    if SCORERS.get(item.scorer).blocks or len(completion.text) > _LONG_REPLY:
        return await asyncio.to_thread(score, item, completion.reply)
    return score(item, completion.reply)
