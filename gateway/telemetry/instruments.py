"""The Prometheus instruments: every name, label set and bucket, in one place.

OpenTelemetry GenAI names where the conventions have one (dots become underscores, units become suffixes); own names
begin with `orbweaver_`. Every label is bounded: see `labels.py`.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary

# The first three bucket lists are those of the OpenTelemetry GenAI metric conventions.
OPERATION_BUCKETS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
TOKEN_BUCKETS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)
FIRST_TOKEN_BUCKETS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
PER_TOKEN_BUCKETS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
OVERHEAD_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0)
PROBABILITY_BUCKETS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
LAG_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)

OPERATION = "gen_ai_operation_name"
PROVIDER = "gen_ai_provider_name"
MODEL = "gen_ai_request_model"


class Instruments:
    """Every instrument that requests and feedback write to, registered in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._define_gen_ai(registry)
        self._define_traffic(registry)
        self._define_routing(registry)
        self._define_money(registry)

    def _define_gen_ai(self, registry: CollectorRegistry) -> None:
        self.operation = Histogram(
            "gen_ai_client_operation_duration_seconds",
            "Time from the request's arrival to the last byte of its answer.",
            (OPERATION, PROVIDER, MODEL, "error_type"),
            buckets=OPERATION_BUCKETS,
            registry=registry,
        )
        self.tokens = Histogram(
            "gen_ai_client_token_usage",
            "Tokens of a request, by type (input, output).",
            (OPERATION, PROVIDER, MODEL, "gen_ai_token_type"),
            buckets=TOKEN_BUCKETS,
            registry=registry,
        )
        self.first_token = Histogram(
            "gen_ai_server_time_to_first_token_seconds",
            "Time from the request's arrival to the first real token of a streamed answer.",
            (OPERATION, PROVIDER, MODEL),
            buckets=FIRST_TOKEN_BUCKETS,
            registry=registry,
        )
        self.per_token = Histogram(
            "gen_ai_server_time_per_output_token_seconds",
            "Mean time per output token after the first, of one streamed answer.",
            (OPERATION, PROVIDER, MODEL),
            buckets=PER_TOKEN_BUCKETS,
            registry=registry,
        )

    def _define_traffic(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "orbweaver_requests_total",
            "Finished requests. `route` is auto, a preset, named or unknown; `model` is who answered.",
            ("endpoint", "route", "model", "outcome", "status"),
            registry=registry,
        )
        self.in_flight = Gauge("orbweaver_requests_in_flight", "Requests being worked on.", registry=registry)
        self.disconnects = Counter(
            "orbweaver_client_disconnects_total",
            "Clients that left before their answer was complete.",
            ("endpoint", "stream"),
            registry=registry,
        )
        self.limited = Counter(
            "orbweaver_limits_refused_total",
            "Requests refused by a client key's limit: rate (requests or tokens per minute) or budget (money).",
            ("limit",),
            registry=registry,
        )
        for limit in ("rate", "budget"):  # known beforehand, so that even the first refusal shows as a rise
            self.limited.labels(limit)
        self.turned_away = Counter(
            "orbweaver_turned_away_total",
            "Requests refused before they were read, by status: a wrong key (401), a body that is too large (413), too "
            "slow (408) or of no length (400), too many in flight or keys that cannot be checked (503).",
            ("status",),
            registry=registry,
        )
        for status in ("400", "401", "408", "413", "503"):
            self.turned_away.labels(status)
        self.overhead = Histogram(
            "orbweaver_gateway_overhead_seconds",
            "Time the gateway itself added to a request, routing included.",
            ("route",),
            buckets=OVERHEAD_BUCKETS,
            registry=registry,
        )
        self.loop_lag = Histogram(
            "orbweaver_event_loop_lag_seconds",
            "How late a timer of the event loop fires: time during which nothing else could run.",
            buckets=LAG_BUCKETS,
            registry=registry,
        )

    def _define_routing(self, registry: CollectorRegistry) -> None:
        self.decisions = Counter(
            "orbweaver_decisions_total",
            "Routing decisions by the model chosen and the rule that fired.",
            ("model", "rule"),
            registry=registry,
        )
        self.decide = Histogram(
            "orbweaver_router_decision_seconds",
            "Time one routing decision took.",
            ("rule",),
            buckets=OVERHEAD_BUCKETS,
            registry=registry,
        )
        self.attempts = Counter(
            "orbweaver_attempts_total",
            "Calls to providers, retries and fallbacks included.",
            ("model", "outcome"),
            registry=registry,
        )
        self.fallbacks = Counter(
            "orbweaver_fallbacks_total",
            "Requests that moved on to another model, by the model that failed and why.",
            ("model", "outcome"),
            registry=registry,
        )
        self.retries = Counter(
            "orbweaver_retries_total", "Repeated calls to the same model.", ("model",), registry=registry
        )
        self.predicted = Histogram(
            "orbweaver_predicted_quality",
            "Predicted P(good answer) of the model that answered.",
            ("model",),
            buckets=PROBABILITY_BUCKETS,
            registry=registry,
        )
        self.feedback_score = Summary(
            "orbweaver_feedback_score",
            "Feedback scores (0..1), by the tenth in which the prediction lay.",
            ("predicted",),
            registry=registry,
        )
        self.feedback_predicted = Summary(
            "orbweaver_feedback_predicted",
            "Predictions that got feedback, by the tenth in which they lay.",
            ("predicted",),
            registry=registry,
        )
        self.feedback_brier = Summary(
            "orbweaver_feedback_brier",
            "Squared distance between prediction and feedback score (Brier); 0 is perfect.",
            ("model",),
            registry=registry,
        )
        self.feedback = Counter(
            "orbweaver_feedback_total",
            "Feedback received; `predicted` says whether a prediction stands beside it.",
            ("model", "predicted"),
            registry=registry,
        )

    def _define_money(self, registry: CollectorRegistry) -> None:
        self.cost = Counter(
            "orbweaver_cost_usd_total",
            "Money spent on answers, in USD, from the declared prices.",
            ("model", "route"),
            registry=registry,
        )
        self.unpriced = Counter(
            "orbweaver_unpriced_requests_total",
            "Answered requests whose cost is unknown: no price declared or no usage known.",
            ("model",),
            registry=registry,
        )
        self.routed_cost = Counter(
            "orbweaver_routed_cost_usd_total",
            "Cost of those routed requests that are compared with the baseline, in USD.",
            registry=registry,
        )
        self.baseline_cost = Counter(
            "orbweaver_baseline_cost_usd_total",
            "What the same requests would have cost on the declared baseline model, in USD.",
            registry=registry,
        )
        self.router_cost = Counter(
            "orbweaver_router_cost_usd_total",
            "What routing itself cost, in USD: decision time at the declared price of a CPU hour.",
            registry=registry,
        )
