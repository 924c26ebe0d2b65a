"""Accuracy, cost and agreement of `orbweaver eval`, by hand-made numbers."""

from __future__ import annotations

import numpy as np
import pytest

from gateway.evaluation.asking import Asked
from gateway.evaluation.figures import costs_of, measure, singles
from gateway.evaluation.grading import check
from gateway.evaluation.offline import Offline, compare
from gateway.evaluation.page import render
from gateway.evaluation.recorded import Model, Prompt, RecordedPool
from gateway.evaluation.report import Books, EvalReport, Faults

QUESTION = "Which letter comes first?\nA. a\nB. b"
CHEAP = Model("cheap", 1.0, 1.0, None, None, None)
DEAR = Model("dear", 10.0, 10.0, None, None, None)


@pytest.fixture
def pool() -> RecordedPool:
    prompts = tuple(Prompt(f"p{i}", QUESTION, "letters", f"g{i}", "choice", "A", 2) for i in range(4))
    return RecordedPool(
        models=(CHEAP, DEAR),
        prompts=prompts,
        scores=np.array([[1.0, 1.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]]),
        answers=tuple(
            ("Answer: A" if c else "Answer: B", "Answer: A" if d else "Answer: B")
            for c, d in ((1, 1), (0, 1), (0, 1), (1, 0))
        ),
        ambiguous=(False,) * 4,
        trained=np.array([0.5, 0.7]),
    )


def asked(pool: RecordedPool, *models: str, error: str | None = None) -> list[Asked]:
    texts = {name: column for column, name in enumerate(pool.names)}
    return [
        Asked(prompt.id, name, f"dec_{row}", 0.5, pool.answers[row][texts[name]], None, 0.01)
        if name in texts
        else Asked(prompt.id, None, f"dec_{row}", None, None, name, 0.01)
        for row, (prompt, name) in enumerate(zip(pool.prompts, models, strict=True))
    ]


def test_a_routed_run_earns_the_score_of_whoever_answered(pool: RecordedPool) -> None:
    costs = costs_of(pool)
    run = measure(pool, costs, asked(pool, "cheap", "dear", "dear", "cheap"), quality=1, stream=False, seconds=1)
    assert run.accuracy.mean == 1.0
    assert run.gain.mean == 25.0, "the dear one alone is right three times of four"
    assert run.cost_usd == pytest.approx(costs[0, 0] + costs[1, 1] + costs[2, 1] + costs[3, 0])
    assert run.saved == pytest.approx(1 - run.cost_usd / costs[:, 1].sum())
    assert (run.answered, run.as_recorded, run.errors) == (4, 4, {})


def test_an_error_earns_nothing_and_is_named(pool: RecordedPool) -> None:
    run = measure(
        pool, costs_of(pool), asked(pool, "cheap", "dear", "timeout", "cheap"), quality=1, stream=False, seconds=1
    )
    assert (run.answered, run.errors, run.accuracy.mean) == (3, {"timeout": 1}, 0.75)


def test_the_oracle_takes_the_cheapest_of_the_best_and_chance_the_mean(pool: RecordedPool) -> None:
    costs = costs_of(pool)
    found = {one.name: one for one in singles(pool, costs)}
    assert (found["oracle"].accuracy, found["random"].accuracy, found["dear"].accuracy) == (1.0, 0.625, 0.75)
    assert found["oracle"].cost_usd == pytest.approx(costs[0, 0] + costs[1, 1] + costs[2, 1] + costs[3, 0])


def test_our_grading_is_compared_with_the_recorded_scores(pool: RecordedPool) -> None:
    assert check(pool, asked(pool, "cheap", "dear", "dear", "dear")).model_dump() == {"graded": 4, "agree": 4}
    wrong = RecordedPool(
        **{**{name: getattr(pool, name) for name in pool.__dataclass_fields__}, "scores": 1 - pool.scores}
    )
    assert check(wrong, asked(pool, "cheap", "dear", "dear", "dear")).agree == 0


def test_another_choice_than_offline_is_found_but_a_tie_is_none(pool: RecordedPool) -> None:
    p = np.array([[0.5, 0.5], [0.2, 0.5], [0.2, 0.5], [0.5, 0.2]])
    good = compare(pool, Offline(p, p, "v"), asked(pool, "cheap", "dear", "dear", "cheap"))
    assert good.agrees
    assert good.accuracy_http == good.accuracy_offline == 1.0
    bad = compare(pool, Offline(p, p, "v"), asked(pool, "cheap", "cheap", "dear", "cheap"))
    assert (bad.same, bad.agrees) == (3, False)


def test_the_report_says_what_went_wrong_and_draws_itself(pool: RecordedPool) -> None:
    costs = costs_of(pool)
    run = measure(pool, costs, asked(pool, "cheap", "dear", "dear", "cheap"), quality=1, stream=False, seconds=1)
    p = np.array([[0.5, 0.5], [0.2, 0.5], [0.2, 0.5], [0.5, 0.2]])
    report = EvalReport(
        date="2026-11-21",
        command="orbweaver eval",
        commit="abc",
        split="test",
        prompts=4,
        datasets={"letters": 4},
        artifact="v",
        best_single="dear",
        models=[],
        singles=singles(pool, costs),
        runs=[run],
        agreement=compare(pool, Offline(p, p, "v"), asked(pool, "cheap", "dear", "dear", "cheap")),
        grading=check(pool, asked(pool, "cheap", "dear", "dear", "cheap")),
        books=Books(asked=4, decisions=4, repeated=0, ledger_usd=run.cost_usd, expected_usd=run.cost_usd),
        faults=Faults(run=run, decisions=4, repeated=0, without_reason=0),
    )
    assert report.problems == []
    page = render(report)
    assert "<svg" in page
    assert "4 of 4 choices the same" in page
    lost = report.model_copy(update={"books": report.books.model_copy(update={"decisions": 3})})
    assert "does not add up" in lost.problems[0]
