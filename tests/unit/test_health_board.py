"""Circuits, cooldowns and the choice among deployments, on a clock that the tests move."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random

import pytest

from gateway.registry.records import Candidate, Deployment
from gateway.settings import CircuitSettings
from gateway.upstreams.health import HealthBoard

SETTINGS = CircuitSettings(failures=3, cooldown_s=10, max_cooldown_s=60)


class Bench:
    """A board, its clock, and a candidate with as many deployments as there are weights."""

    def __init__(self, *weights: float) -> None:
        self.now = 1000.0
        self.board = HealthBoard(SETTINGS, lambda: self.now, Random(0))
        places = tuple(Deployment(f"m#{index}", "http://x", "m", weight=weight) for index, weight in enumerate(weights))
        self.candidate = Candidate("m", places)

    def call(self, outcome: str, index: int = 0, **facts: float) -> None:
        deployment = self.candidate.deployments[index]
        self.board.started(self.candidate, deployment)
        self.board.finished(deployment, outcome, **facts)  # type: ignore[arg-type]

    def picked(self) -> str | None:
        found = self.board.pick(self.candidate)
        return found.id if found else None


def test_a_circuit_opens_after_failures_in_a_row() -> None:
    bench = Bench(1)
    bench.call("failed")
    bench.call("failed")
    assert bench.picked() == "m#0"
    bench.call("failed")
    assert bench.picked() is None
    assert not bench.board.vitals(bench.candidate).available
    assert bench.board.vitals(bench.candidate).retry_in_s == 10


def test_a_success_between_failures_keeps_it_closed() -> None:
    bench = Bench(1)
    for outcome in ("failed", "failed", "ok", "failed", "failed"):
        bench.call(outcome)
    assert bench.picked() == "m#0"


@pytest.mark.parametrize("outcome", ["refused", "cancelled"])
def test_what_is_not_the_deployments_fault_does_not_count(outcome: str) -> None:
    bench = Bench(1)
    for _ in range(5):
        bench.call(outcome)
    assert bench.picked() == "m#0"


def test_one_probe_at_a_time_decides_after_the_cooldown() -> None:
    bench = Bench(1)
    for _ in range(3):
        bench.call("failed")
    bench.now += 10
    assert bench.picked() == "m#0"
    bench.board.started(bench.candidate, bench.candidate.deployments[0])
    assert bench.picked() is None
    bench.board.finished(bench.candidate.deployments[0], "ok")
    assert bench.picked() == "m#0"


def test_a_failed_probe_doubles_the_cooldown_up_to_its_limit() -> None:
    bench = Bench(1)
    for _ in range(3):
        bench.call("failed")
    for expected in (20, 40, 60, 60):
        bench.now += 60
        bench.call("failed")
        assert bench.board.vitals(bench.candidate).retry_in_s == expected


def test_a_cancelled_probe_leaves_the_circuit_half_open() -> None:
    bench = Bench(1)
    for _ in range(3):
        bench.call("failed")
    bench.now += 10
    bench.call("cancelled")
    assert bench.picked() == "m#0"
    assert bench.board.snapshot()["m#0"]["circuit"] == "half_open"


def test_a_rate_limit_cools_down_for_as_long_as_the_provider_says() -> None:
    bench = Bench(1, 1)
    bench.call("limited", 0, retry_after_s=7)
    assert {bench.picked() for _ in range(20)} == {"m#1"}
    bench.now += 7
    assert {bench.picked() for _ in range(50)} == {"m#0", "m#1"}


def test_the_least_busy_deployment_is_picked() -> None:
    bench = Bench(1, 1)
    for _ in range(3):
        bench.board.started(bench.candidate, bench.candidate.deployments[0])
    assert {bench.picked() for _ in range(20)} == {"m#1"}


def test_idle_deployments_share_by_weight() -> None:
    bench = Bench(3, 1)
    counts = Counter(bench.picked() for _ in range(4000))
    assert counts["m#1"] / 4000 == pytest.approx(1 / 4, abs=0.03)


def test_busy_deployments_share_by_weight() -> None:
    bench = Bench(3, 1)
    for _ in range(400):
        found = bench.board.pick(bench.candidate)
        assert found is not None
        bench.board.started(bench.candidate, found)
    held = {name: state["in_flight"] for name, state in bench.board.snapshot().items()}
    assert held["m#0"] / held["m#1"] == pytest.approx(3, rel=0.05)


def test_excluded_deployments_are_passed_over() -> None:
    bench = Bench(1, 1)
    found = bench.board.pick(bench.candidate, {"m#0"})
    assert found is not None
    assert found.id == "m#1"
    assert bench.board.pick(bench.candidate, {"m#0", "m#1"}) is None


def test_the_last_resort_is_the_one_usable_soonest() -> None:
    bench = Bench(1, 1)
    bench.call("limited", 0, retry_after_s=30)
    bench.call("limited", 1, retry_after_s=20)
    assert bench.picked() is None
    assert bench.board.last_resort(bench.candidate).id == "m#1"


def test_times_are_moving_averages_over_the_usable_deployments() -> None:
    bench = Bench(1, 1)
    bench.call("ok", 0, ttft_s=1.0, tokens_per_s=50, output_tokens=100)
    bench.call("ok", 0, ttft_s=2.0)
    bench.call("ok", 1, ttft_s=0.2, tokens_per_s=100)
    vitals = bench.board.vitals(bench.candidate)
    assert vitals.ttft_s == pytest.approx((1.2 + 0.2) / 2)
    assert vitals.tokens_per_s == 75
    assert vitals.output_tokens == 100


def test_a_candidate_is_available_while_one_deployment_is() -> None:
    bench = Bench(1, 1)
    for _ in range(3):
        bench.call("failed", 0)
    assert bench.board.vitals(bench.candidate).available
    for _ in range(3):
        bench.call("failed", 1)
    assert not bench.board.vitals(bench.candidate).available


def test_deployments_that_are_gone_or_changed_are_forgotten() -> None:
    bench = Bench(1, 1)
    bench.call("ok", 0)
    bench.call("failed", 1)
    first, second = bench.candidate.deployments
    moved = replace(second, base_url="http://elsewhere")
    bench.board.follow([replace(bench.candidate, deployments=(first, moved))])
    assert set(bench.board.snapshot()) == {"m#0"}


def test_a_call_that_ends_after_its_deployment_is_gone_does_no_harm() -> None:
    bench = Bench(1)
    bench.board.started(bench.candidate, bench.candidate.deployments[0])
    bench.board.follow([])
    bench.board.finished(bench.candidate.deployments[0], "failed")
    assert bench.board.snapshot() == {}
