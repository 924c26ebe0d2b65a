"""The dashboard's memory of recent traffic, and the overview made of it."""

from __future__ import annotations

import pytest

from gateway.telemetry.activity import SLICE_S, SLICES, Activity, Times, Totals, over_all
from gateway.telemetry.overview import baseline_name, candidate_rows, pace, points, savings
from tests.support.records import decide, finished
from tests.support.routing import FixedHealth, candidate


class Clock:
    """A clock that stands where it is put."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("seconds", [0.0002, 0.0013, 0.05, 0.4, 3.0, 61.0])
def test_a_percentile_is_within_a_tenth_of_the_truth(seconds: float) -> None:
    times = Times()
    for _ in range(10):
        times.add(seconds)
    assert times.percentile(0.5) == pytest.approx(seconds, rel=0.1)


def test_percentiles_tell_the_usual_from_the_slow() -> None:
    times = Times()
    for seconds in [0.1] * 90 + [2.0] * 10:
        times.add(seconds)
    assert times.percentile(0.5) == pytest.approx(0.1, rel=0.1)
    assert times.percentile(0.95) == pytest.approx(2.0, rel=0.1)


def test_nothing_counted_has_no_percentile() -> None:
    assert Times().percentile(0.5) is None


@pytest.mark.parametrize("seconds", [0.0, 1e-9, 1e9])
def test_absurd_times_are_counted_at_the_ends(seconds: float) -> None:
    times = Times()
    times.add(seconds)
    assert sum(times.counts) == 1


def test_the_series_has_a_slice_for_every_ten_seconds_of_a_quarter_of_an_hour() -> None:
    clock = Clock()
    activity = Activity(clock)
    activity.record(finished())
    clock.now += 5 * SLICE_S
    activity.record(finished())
    series = activity.series()
    assert len(series) == SLICES
    assert [piece.requests for piece in series[-6:]] == [1, 0, 0, 0, 0, 1]


def test_old_traffic_leaves_the_series_but_not_the_totals() -> None:
    clock = Clock()
    activity = Activity(clock)
    activity.record(finished())
    clock.now += (SLICES + 1) * SLICE_S
    assert sum(piece.requests for piece in activity.series()) == 0
    assert activity.totals.requests == 1


def test_points_join_three_slices() -> None:
    clock = Clock()
    activity = Activity(clock)
    for _ in range(6):
        activity.record(finished(duration_s=0.5))
        clock.now += SLICE_S
    found = points(activity.series())
    assert len(found) == SLICES // 3
    assert sum(point.requests for point in found) == 6
    assert all(point.p50_s == pytest.approx(0.5, rel=0.1) for point in found if point.requests)
    assert {point.p50_s for point in found if not point.requests} == {None}


def test_failures_count_as_errors_and_a_clients_mistake_does_not() -> None:
    activity = Activity(Clock())
    for outcome in ("ok", "timeout", "upstream_error", "client_error", "limited", "disconnected"):
        activity.record(finished(outcome=outcome))
    totals = activity.totals
    assert (totals.requests, totals.errors, totals.limited, totals.disconnected) == (6, 2, 1, 1)


def test_only_routed_requests_are_compared_with_the_baseline() -> None:
    activity = Activity(Clock())
    activity.record(finished(cost_usd=0.01, baseline_cost_usd=0.04))
    activity.record(finished(cost_usd=1.0, baseline_cost_usd=None, decision=decide(rule="named")))
    assert activity.totals.cost_usd == pytest.approx(1.01)
    assert (activity.totals.routed_cost_usd, activity.totals.baseline_cost_usd) == (0.01, 0.04)


def test_savings_take_the_routers_own_cost_off() -> None:
    totals = Totals(routed_cost_usd=1.0, baseline_cost_usd=4.0, router_s=3600.0)
    assert savings(totals, baseline="large", usd_per_cpu_hour=0.5).saved_usd == pytest.approx(2.5)


def test_savings_are_unknown_before_anything_was_compared() -> None:
    assert savings(Totals(router_s=5.0), baseline=None, usd_per_cpu_hour=1.0).saved_usd is None


def test_the_pace_is_that_of_the_last_full_minute() -> None:
    clock = Clock()
    activity = Activity(clock)
    for _ in range(12):
        activity.record(finished())
        clock.now += 5
    assert pace(activity.series()).requests_per_s == pytest.approx(0.2)


def test_candidates_that_can_answer_come_first_and_carry_what_they_did() -> None:
    activity = Activity(Clock())
    activity.record(finished(model="small"))
    known = {one.name: one for one in (candidate("a-down"), candidate("off", enabled=False), candidate("small"))}
    rows = candidate_rows(known, FixedHealth(down=("a-down",)), activity)
    assert [(row.name, row.state, row.requests) for row in rows] == [
        ("small", "up", 1),
        ("a-down", "down", 0),
        ("off", "disabled", 0),
    ]
    assert rows[0].share == 1.0


def test_the_baseline_is_the_declared_one_or_the_dearest() -> None:
    known = {one.name: one for one in (candidate("a", price_out=1.0), candidate("b", price_out=9.0), candidate("c"))}
    assert baseline_name(known, "a") == "a"
    assert baseline_name(known, None) == "b"
    assert baseline_name({"c": known["c"]}, None) is None


def test_histograms_of_several_slices_add_up() -> None:
    clock = Clock()
    activity = Activity(clock)
    for _ in range(3):
        activity.record(finished(duration_s=0.2))
        clock.now += SLICE_S
    assert sum(over_all(activity.series(), "durations").counts) == 3
