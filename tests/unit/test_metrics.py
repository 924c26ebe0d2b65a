"""The metrics sink: what one finished request adds to which series, and that labels stay bounded."""

from __future__ import annotations

import pytest

from gateway.telemetry.labels import OTHER, BoundedNames, tenth_of
from gateway.telemetry.live_state import DeploymentState, LedgerState
from gateway.telemetry.metrics import MAX_MODELS, Metrics
from tests.support.records import decide, finished


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


GEN_AI = {"gen_ai_operation_name": "chat", "gen_ai_provider_name": "openai", "gen_ai_request_model": "small"}


def test_a_finished_request_is_counted_by_route_and_by_the_model_that_answered() -> None:
    metrics = Metrics()
    metrics.record(finished())
    labels = {"endpoint": "chat/completions", "route": "auto", "model": "small", "outcome": "ok", "status": "2xx"}
    assert value(metrics, "orbweaver_requests_total", **labels) == 1


def test_durations_and_tokens_carry_the_opentelemetry_names() -> None:
    metrics = Metrics()
    metrics.record(finished())
    assert value(metrics, "gen_ai_client_operation_duration_seconds_sum", **GEN_AI, error_type="") == 0.5
    assert value(metrics, "gen_ai_client_token_usage_sum", **GEN_AI, gen_ai_token_type="output") == 11


def test_a_stream_adds_its_first_token_and_its_time_per_token() -> None:
    metrics = Metrics()
    metrics.record(finished(stream=True, first_token_s=0.3, duration_s=0.8))
    assert value(metrics, "gen_ai_server_time_to_first_token_seconds_sum", **GEN_AI) == pytest.approx(0.3)
    assert value(metrics, "gen_ai_server_time_per_output_token_seconds_sum", **GEN_AI) == pytest.approx(0.05)


def test_savings_set_the_baseline_against_the_answer_and_the_routers_own_cost() -> None:
    metrics = Metrics(router_usd_per_cpu_hour=3600.0)
    metrics.record(finished())
    assert value(metrics, "orbweaver_baseline_cost_usd_total") == 0.04
    assert value(metrics, "orbweaver_routed_cost_usd_total") == 0.01
    assert value(metrics, "orbweaver_router_cost_usd_total") == pytest.approx(0.002)


def test_a_named_model_counts_as_spending_but_never_as_savings() -> None:
    metrics = Metrics()
    metrics.record(finished(requested_model="small", decision=decide(rule="named")))
    assert value(metrics, "orbweaver_cost_usd_total", model="small", route="named") == 0.01
    assert value(metrics, "orbweaver_baseline_cost_usd_total") == 0


def test_the_prediction_counted_is_that_of_the_model_that_answered() -> None:
    metrics = Metrics()
    attempts = (("small", "small#0", "timeout"), ("large", "large#0", "ok"))
    metrics.record(finished(model="large", attempts=attempts))
    assert value(metrics, "orbweaver_predicted_quality_sum", model="large") == 0.9


def test_a_fallback_is_counted_for_the_model_that_failed_and_a_retry_is_not_a_fallback() -> None:
    metrics = Metrics()
    attempts = (("small", "small#0", "timeout"), ("small", "small#1", "timeout"), ("large", "large#0", "ok"))
    metrics.record(finished(model="large", attempts=attempts))
    assert value(metrics, "orbweaver_fallbacks_total", model="small", outcome="timeout") == 1
    assert value(metrics, "orbweaver_retries_total", model="small") == 1
    assert value(metrics, "orbweaver_attempts_total", model="small", outcome="timeout") == 2


@pytest.mark.parametrize(("code", "limit"), [("rate_limit_exceeded", "rate"), ("insufficient_quota", "budget")])
def test_a_refusal_by_a_limit_is_counted_by_its_kind(code: str, limit: str) -> None:
    metrics = Metrics()
    metrics.record(finished(outcome="limited", error_code=code, status=429, model="", attempts=(), usage=None))
    assert value(metrics, "orbweaver_limits_refused_total", limit=limit) == 1


def test_what_was_turned_away_is_counted_by_status_from_zero() -> None:
    metrics = Metrics()
    assert value(metrics, "orbweaver_turned_away_total", status="401") == 0
    metrics.turned_away(401)
    assert value(metrics, "orbweaver_turned_away_total", status="401") == 1


def test_feedback_is_set_against_the_prediction() -> None:
    metrics = Metrics()
    metrics.feedback("small", 0.75, 1.0)
    assert value(metrics, "orbweaver_feedback_brier_sum", model="small") == pytest.approx(0.0625)
    assert value(metrics, "orbweaver_feedback_score_sum", predicted="0.7-0.8") == 1.0


def test_feedback_without_a_prediction_is_counted_but_not_calibrated() -> None:
    metrics = Metrics()
    metrics.feedback("small", None, 1.0)
    assert value(metrics, "orbweaver_feedback_total", model="small", predicted="false") == 1
    assert value(metrics, "orbweaver_feedback_brier_count", model="small") is None


def test_text_that_a_client_sends_never_becomes_a_label() -> None:
    metrics = Metrics()
    secret = "sk-my-secret"
    metrics.record(finished(requested_model=secret, model="", endpoint="/" + secret, decision=None, outcome=secret))
    assert secret not in metrics.render()[0].decode()


def test_a_flood_of_model_names_folds_into_one_series() -> None:
    metrics = Metrics()
    for number in range(MAX_MODELS + 50):
        metrics.feedback(f"model-{number}", None, 0.5)
    assert value(metrics, "orbweaver_feedback_total", model=OTHER, predicted="false") == 50


def test_names_within_the_bound_stay_distinct() -> None:
    names = BoundedNames(2)
    assert [names.fold(name) for name in ("a", "b", "c", "a", "")] == ["a", "b", OTHER, "a", "none"]


@pytest.mark.parametrize(("p", "tenth"), [(0.0, "0.0-0.1"), (0.1, "0.1-0.2"), (0.999, "0.9-1.0"), (1.0, "0.9-1.0")])
def test_a_probability_falls_into_its_tenth(p: float, tenth: str) -> None:
    assert tenth_of(p) == tenth


def test_live_state_is_read_at_every_scrape() -> None:
    metrics = Metrics()
    states = [DeploymentState("small", "small#0", up=True)]
    metrics.live_state.deployments = lambda: states
    labels = {"model": "small", "deployment": "small#0"}
    before = value(metrics, "orbweaver_deployment_up", **labels)
    states[0] = DeploymentState("small", "small#0", up=False)
    assert (before, value(metrics, "orbweaver_deployment_up", **labels)) == (1, 0)


def test_a_broken_source_does_not_hide_the_other_metrics(caplog: pytest.LogCaptureFixture) -> None:
    metrics = Metrics()

    def broken() -> list[DeploymentState]:
        raise RuntimeError("gone")

    metrics.live_state.deployments = broken
    metrics.live_state.ledger = lambda: LedgerState(queued=3)
    assert value(metrics, "orbweaver_ledger_queue_length") == 3
    assert "metrics source failed" in caplog.text


def test_requests_in_flight_go_up_and_down() -> None:
    metrics = Metrics()
    metrics.request_started()
    metrics.request_started()
    metrics.request_finished()
    assert value(metrics, "orbweaver_requests_in_flight") == 1
