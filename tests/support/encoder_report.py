"""A small evaluation report with every kind of plot, for the tests of the page."""

from __future__ import annotations

from capability_encoder.training.report_schema import (
    CostCurve,
    CostPoint,
    EvaluationReport,
    Interval,
    MethodInfo,
    MethodScore,
    OnboardingCurve,
    OnboardingPoint,
    PoolResult,
    Reliability,
    ReliabilityBin,
    SingleModel,
)


def score(method: str, gain: float) -> MethodScore:
    interval = Interval(estimate=gain, low=gain - 0.8, high=gain + 0.8)
    return MethodScore(method=method, routed=Interval(estimate=60 + gain), gain=interval, brier=0.21)


def small_report(**changes: object) -> EvaluationReport:
    methods = (
        MethodInfo(name="ours", summary="the encoder", ours=True),
        MethodInfo(name="knn", summary="neighbours <k>"),
        MethodInfo(name="oracle", summary="bound", bound=True),
    )
    pool = PoolResult(
        pool="P1",
        title="ten models",
        dataset="mmlu_pro",
        models=("a", "b"),
        prompts=100,
        best_single="a",
        best_single_accuracy=60.0,
        oracle_accuracy=90.0,
        scores=(score("knn", 0.5), score("ours", 1.4), score("oracle", 30.0)),
    )
    points = tuple(CostPoint(penalty=p, cost=c, quality=q) for p, c, q in ((0, 4.0, 83.0), (9, 0.4, 80.0)))
    answers = tuple(
        OnboardingPoint(answers=n, brier=Interval(estimate=b, low=b - 0.002, high=b + 0.002))
        for n, b in ((20, 0.22), (1000, 0.21))
    )
    fields: dict[str, object] = {
        "date": "2026-11-21",
        "command": "orbweaver encoder evaluate",
        "commit": "abc",
        "machine": "one core",
        "seed": 0,
        "data": {"outcomes.parquet": "0" * 64},
        "methods": methods,
        "pools": (pool,),
        "cost_curves": (CostCurve(pool="P7", method="ours", points=points),),
        "singles": (SingleModel(pool="P7", model="a", cost=1.0, quality=81.0),),
        "onboarding": (OnboardingCurve(method="ours", population="new models", points=answers),),
        "reliability": (
            Reliability(
                method="ours",
                population="test",
                error=0.01,
                bins=(ReliabilityBin(predicted=0.3, observed=0.31, count=50),),
            ),
        ),
    }
    return EvaluationReport.model_validate(fields | changes)
