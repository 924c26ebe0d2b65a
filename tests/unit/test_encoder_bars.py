"""A bar is met only by what the plan asks for: the estimate, the interval and the worst pool."""

import pytest

from capability_encoder.training import bars
from capability_encoder.training.report_schema import Interval, MethodScore


def gain(estimate: float, low: float | None = None, high: float | None = None) -> Interval:
    return Interval(estimate=estimate, low=low, high=high)


def score(estimate: float, brier: float = 0.2) -> MethodScore:
    return MethodScore(method="x", routed=gain(50.0), gain=gain(estimate), brier=brier, auc_within_prompt=0.7)


@pytest.mark.parametrize(
    ("mean", "worst", "met"),
    [
        (gain(1.2, 0.1, 2.0), 0.0, True),
        (gain(1.0, 0.1, 2.0), 0.0, False),
        (gain(1.2, -0.1, 2.0), 0.0, False),
        (gain(1.2, 0.1, 2.0), -0.4, False),
    ],
    ids=["met", "too-little", "interval-touches-zero", "one-pool-loses"],
)
def test_the_gain_needs_estimate_interval_and_every_pool(mean: Interval, worst: float, met: bool) -> None:
    must, _ = bars.gain_checks(mean, {"P1": score(3.0), "P2": score(1.0), "P3": score(worst)})
    assert must.met is met
    assert "P3" in must.measured


def test_brier_must_hold_on_each_pool() -> None:
    scores = {"P1": score(0, 0.21), "P2": score(0, 0.21), "P3": score(0, 0.2011)}
    assert [c.met for c in bars.quality_checks(scores) if c.name == "Brier P1 / P2 / P3"] == [False]


@pytest.mark.parametrize(("routed", "brier", "met"), [(-0.4, 0.14, True), (-0.6, 0.14, False), (-0.4, 0.15, False)])
def test_out_of_domain_choice_and_probability_must_both_hold(routed: float, brier: float, met: bool) -> None:
    check = bars.domain_check("gsm", ("gsm",), gain(routed), gain(brier, 0.1, 0.2), pool=0.3, rates=0.16)
    assert check.met is met
    assert all(figure in check.measured for figure in ("0.1000", "0.3000", "0.1600"))


def test_never_worse_looks_at_the_upper_end() -> None:
    assert bars.never_worse_check({"P1": gain(-1.0, -2.0, -0.4)}).met
    missed = bars.never_worse_check({"P1": gain(1.0, 0.0, 2.0), "P5": gain(-1.0, -2.0, -0.6)})
    assert not missed.met
    assert "P5" in missed.measured


def test_ours_is_above_a_baseline_only_with_its_whole_interval() -> None:
    found = bars.paired_check({"a": gain(0.5, 0.1, 0.9), "b": gain(0.3, -0.1, 0.7)})
    assert not found.met
    assert found.measured.startswith("1 of 2; nearest b")
