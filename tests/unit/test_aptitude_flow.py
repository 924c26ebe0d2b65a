"""The aptitude flow: what is asked, what is kept, how it paces itself, and how it ends when no answer will come."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from aptitude_tests.answers import AnswerStore, MemoryAnswers, SqliteAnswers
from aptitude_tests.caller import Caller, FlowLimits, FlowStopped
from aptitude_tests.circle import hard_items
from aptitude_tests.errors import AptitudeError
from aptitude_tests.flow import Flow, FlowPlan, FlowResult
from aptitude_tests.pace import Pace
from aptitude_tests.progress import Progress, line
from aptitude_tests.source import AskFailure, Completion, FailureKind, Prices
from tests.support.answer_source import ScriptedSource, choice_suite, right, wrong

SUITE = choice_suite()
QUICK = FlowLimits(concurrency=4, retries=0, patience_s=0.3, hopeless=3)


async def ask(
    source: ScriptedSource, store: AnswerStore | None = None, limits: FlowLimits = QUICK, **plan: Any
) -> FlowResult:
    seen: list[Progress] = plan.pop("seen", [])
    prices = plan.pop("prices", Prices())
    take = plan.pop("take", "first")
    flow_plan = FlowPlan(plan.pop("items", SUITE.items), **plan)
    flow = Flow(flow_plan, Caller(source, limits, prices), store or MemoryAnswers(), take=take, on_progress=seen.append)
    return await flow.run()


async def test_every_item_is_asked_once_and_graded() -> None:
    source = ScriptedSource(SUITE, lambda item, _: right(item) if item and item.shot < 2 else wrong(item))
    result = await ask(source)
    assert sorted(source.asked) == sorted(item.id for item in SUITE.items)
    assert [record.item.id for record in result.records] == [item.id for item in SUITE.items]
    assert (result.progress.right, result.progress.answered) == (6.0, 12)


async def test_no_answer_is_not_a_wrong_answer() -> None:
    result = await ask(ScriptedSource(SUITE, lambda item, _: Completion("I would rather talk of the weather today.")))
    assert (result.progress.no_answer, result.progress.answered) == (12, 0)
    assert all(record.verdict is not None and record.verdict.score is None for record in result.records)


async def test_never_more_calls_run_than_allowed() -> None:
    source = ScriptedSource(SUITE, delay_s=0.01)
    await ask(source)
    assert source.most == 4


async def test_a_second_run_repeats_no_call_and_gives_the_same_records(tmp_path: Path) -> None:
    store = SqliteAnswers(tmp_path / "answers.db")
    first = await ask(ScriptedSource(SUITE), store)
    again = ScriptedSource(SUITE, lambda item, _: wrong(item))
    second = await ask(again, store)
    await store.close()
    assert again.asked == []
    assert second.records == first.records
    assert second.progress.reused == 12


async def test_another_take_asks_anew() -> None:
    store = MemoryAnswers()
    await ask(ScriptedSource(SUITE), store)
    again = ScriptedSource(SUITE)
    await ask(again, store, take="second")
    assert len(again.asked) == 12


async def test_a_cancelled_run_keeps_what_was_answered() -> None:
    store, source = MemoryAnswers(), ScriptedSource(SUITE, delay_s=0.02)
    running = asyncio.create_task(ask(source, store))
    while len(source.asked) < 6:
        await asyncio.sleep(0.002)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert source.running == 0
    again = ScriptedSource(SUITE)
    result = await ask(again, store)
    assert len(again.asked) == 12 - result.progress.reused
    assert result.progress.reused >= 2


async def test_a_429_is_waited_out_and_is_no_failure() -> None:
    limited = iter([True, True, True])

    def answer(item: Any, _: Any) -> Completion | AskFailure:
        return AskFailure("rate_limited", "slow down", retry_after_s=0.02) if next(limited, False) else right(item)

    source = ScriptedSource(SUITE, answer)
    result = await ask(source)
    assert (result.progress.right, result.progress.failed) == (12.0, 0)
    assert len(source.asked) == 15


async def test_429_for_ever_ends_the_run_with_what_the_server_said() -> None:
    source = ScriptedSource(SUITE, lambda *_: AskFailure("rate_limited", "try tomorrow", retry_after_s=0.05))
    with pytest.raises(FlowStopped, match=r"nothing but 429.*try tomorrow") as caught:
        await ask(source)
    assert caught.value.kind == "rate_limited"


@pytest.mark.parametrize(
    ("kind", "stop", "calls"),
    [
        ("unauthorized", "unauthorized", 4),
        ("unknown_model", "unknown_model", 4),
        ("unreachable", "unreachable", 6),
        ("timeout", "unreachable", 6),
        ("bad_reply", "unreachable", 6),
        ("refused", "refused", 6),
    ],
)
async def test_an_endpoint_that_never_answers_ends_the_run_soon(kind: FailureKind, stop: str, calls: int) -> None:
    source = ScriptedSource(SUITE, lambda *_: AskFailure(kind, "no luck"))
    with pytest.raises(FlowStopped, match="no luck") as caught:
        await ask(source)
    assert caught.value.kind == stop
    assert len(source.asked) <= calls


async def test_a_failure_that_may_pass_is_tried_again() -> None:
    failures = iter([AskFailure("server", "busy")])
    source = ScriptedSource(SUITE, lambda item, _: next(failures, None) or right(item))
    result = await ask(source, limits=FlowLimits(concurrency=4, retries=1))
    assert (result.progress.right, len(source.asked)) == (12.0, 13)


async def test_a_refused_item_is_left_out_while_others_are_answered() -> None:
    refusal = AskFailure("refused", "no pictures")
    result = await ask(ScriptedSource(SUITE, lambda item, _: refusal if item and item.shot == 3 else right(item)))
    assert [record.failure for record in result.records][-3:] == ["no pictures"] * 3
    assert result.progress.failed == 3


async def test_the_cap_in_calls_holds_over_several_runs() -> None:
    store = MemoryAnswers()
    for _ in range(2):
        source = ScriptedSource(SUITE)
        with pytest.raises(FlowStopped, match="cap of 5 calls"):
            await ask(source, store, FlowLimits(concurrency=2, max_calls=5))
    assert source.asked == []
    result = await ask(ScriptedSource(SUITE), store)
    assert result.progress.reused == 5


async def test_no_more_is_spent_than_the_cap_in_usd() -> None:
    source = ScriptedSource(SUITE)
    prices = Prices(price_in=1000.0, price_out=0.0)  # 100 tokens sent: $0.1 a call
    with pytest.raises(FlowStopped, match=r"cap of \$0.55"):
        await ask(source, limits=FlowLimits(concurrency=1, max_usd=0.55), prices=prices)
    assert len(source.asked) == 5


async def test_a_lucky_guess_does_not_survive_the_circle() -> None:
    hard = hard_items(SUITE)
    source = ScriptedSource(SUITE, lambda item, _: right(item) if item else Completion("D"))
    result = await ask(source, circle=frozenset(item.id for item in hard))
    verdicts = {record.item.id: record.verdict for record in result.records}
    gone = [item.id for item in hard if (verdict := verdicts[item.id]) is not None and verdict.score == 0.0]
    assert source.asked.count("?") == len(hard) == 3
    assert len(gone) >= 2
    assert result.progress.right == 12 - len(gone)


async def test_an_early_end_looks_at_whole_waves_only() -> None:
    looked: list[int] = []

    def enough(records: Any) -> str | None:
        looked.append(len(records))
        return "enough" if len(records) >= 8 else None

    result = await ask(ScriptedSource(SUITE), waves=(4, 8), early_stop=enough)
    assert looked == [4, 8]
    assert (result.early, len(result.records)) == ("enough", 8)


async def test_progress_counts_up_and_ends_complete() -> None:
    seen: list[Progress] = []
    await ask(ScriptedSource(SUITE), seen=seen, prices=Prices(1.0, 1.0))
    assert [progress.done for progress in seen] == list(range(1, 13))
    assert seen[-1].cost_usd == pytest.approx(12 * 110 / 1e6)
    assert "12/12, 100% right" in line(seen[-1])
    assert line(seen[5], width=10).startswith("[#####.....]")


async def test_a_store_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "answers.db").write_bytes(b"broken" * 1000)
    store = SqliteAnswers(tmp_path / "answers.db")
    with pytest.raises(AptitudeError, match=r"answers.db.*cannot be used"):
        await ask(ScriptedSource(SUITE), store)
    await store.close()


async def test_the_pace_halves_once_for_calls_that_were_under_way_together() -> None:
    now = [0.0]
    pace = Pace(8, clock=lambda: now[0])
    entered = [await pace.enter() for _ in range(4)]
    now[0] = 1.0
    for moment in entered:
        pace.slow_down(moment, 0.0)
    assert pace.allowed == 4
    for _ in entered:
        pace.leave(well=True)
    for _ in range(30):
        await pace.enter()
        pace.leave(well=True)
    assert pace.allowed == 8
