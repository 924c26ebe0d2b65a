"""Panels about routing: at a glance, who answers and why, predicted quality, money."""

from __future__ import annotations

from panel import FAILED, GEN_AI_MODEL, MODEL, RANGE, RATE, Panel, Query, quantiles, stat

REQUESTS = f"sum(rate(orbweaver_requests_total{{{MODEL}}}{RATE}))"
PAID = (
    f"(sum(increase(orbweaver_routed_cost_usd_total{RANGE})) + sum(increase(orbweaver_router_cost_usd_total{RANGE})))"
)
BASELINE = f"sum(increase(orbweaver_baseline_cost_usd_total{RANGE}))"

GLANCE = (
    stat("Requests/s", "Finished requests per second.", REQUESTS, "reqps"),
    stat(
        "Failures",
        "Share of requests that failed at a provider, timed out or failed in the gateway.",
        f"(sum(rate(orbweaver_requests_total{{{FAILED}}}{RATE})) or vector(0)) "
        f"/ (sum(rate(orbweaver_requests_total{RATE})) > 0)",
        "percentunit",
        (("green", None), ("orange", 0.01), ("red", 0.05)),
    ),
    stat(
        "Answer time p95",
        "From a request's arrival to the last byte of its answer; answered requests.",
        quantiles("gen_ai_client_operation_duration_seconds", "", "", 0.95, labels='error_type=""')[0].expr,
        "s",
    ),
    stat(
        "Overhead p99",
        "Time the gateway itself adds, routing included.",
        quantiles("orbweaver_gateway_overhead_seconds", "", "", 0.99)[0].expr,
        "s",
        (("green", None), ("orange", 0.02), ("red", 0.05)),
    ),
    stat(
        "Spent",
        "Cost of all answers in the shown time.",
        f"sum(increase(orbweaver_cost_usd_total{RANGE}))",
        "currencyUSD",
    ),
    stat(
        "Saved",
        "Against the declared baseline, in the shown time, with the router's own cost taken off.",
        f"{BASELINE} - {PAID}",
        "currencyUSD",
        (("red", None), ("green", 0)),
    ),
    stat(
        "Models up",
        "Registered models that can be asked now.",
        'max(orbweaver_candidates{state="up"})',
        steps=(("red", None), ("green", 1)),
    ),
    stat("In flight", "Requests being worked on.", "sum(orbweaver_requests_in_flight)"),
)

DECISIONS = (
    Panel(
        "Who is chosen",
        "Decisions per second by the model chosen.",
        (Query(f"sum by (model) (rate(orbweaver_decisions_total{{{MODEL}}}{RATE}))", "{{model}}"),),
        unit="reqps",
        stacked=True,
    ),
    Panel(
        "Why: the rule that fired",
        "utility: best value; session and tool_loop: the conversation keeps its model; abstain: too close, the default "
        "answers; named: the caller chose; only_one: nobody else could.",
        (Query(f"sum by (rule) (rate(orbweaver_decisions_total{{{MODEL}}}{RATE}))", "{{rule}}"),),
        unit="reqps",
        stacked=True,
    ),
    Panel(
        "Share of answers",
        "Requests answered in the shown time, by model.",
        (Query(f'sum by (model) (increase(orbweaver_requests_total{{{MODEL},outcome="ok"}}{RANGE}))', "{{model}}"),),
        "piechart",
    ),
    Panel(
        "What is asked for",
        "auto, a preset, or a model by name.",
        (Query(f"sum by (route) (rate(orbweaver_requests_total{{{MODEL}}}{RATE}))", "{{route}}"),),
        unit="reqps",
        stacked=True,
        width=12,
        height=7,
    ),
    Panel(
        "Endpoints",
        "Requests per second by endpoint.",
        (Query(f"sum by (endpoint) (rate(orbweaver_requests_total{{{MODEL}}}{RATE}))", "{{endpoint}}"),),
        unit="reqps",
        stacked=True,
        width=12,
        height=7,
    ),
)

QUALITY = (
    Panel(
        "Predicted quality of the answers",
        "Mean predicted P(good answer) of the model that answered.",
        (
            Query(
                f"sum by (model) (rate(orbweaver_predicted_quality_sum{{{MODEL}}}{RATE})) "
                f"/ (sum by (model) (rate(orbweaver_predicted_quality_count{{{MODEL}}}{RATE})) > 0)",
                "{{model}}",
            ),
        ),
        unit="percentunit",
        bounds=(0, 1),
    ),
    Panel(
        "Predictions over time",
        "How the predictions spread.",
        (Query(f"sum by (le) (increase(orbweaver_predicted_quality_bucket{{{MODEL}}}{RATE}))", "{{le}}"),),
        "heatmap",
        "percentunit",
    ),
    Panel(
        "Calibration against feedback",
        "For each tenth of predictions: what was predicted and what the feedback said. Equal bars are a good sign.",
        (
            Query(
                "sum by (predicted) (orbweaver_feedback_predicted_sum) "
                "/ sum by (predicted) (orbweaver_feedback_predicted_count)",
                "predicted mean",
            ),
            Query(
                "sum by (predicted) (orbweaver_feedback_score_sum) "
                "/ sum by (predicted) (orbweaver_feedback_score_count)",
                "feedback mean",
            ),
        ),
        "barchart",
        "percentunit",
        bounds=(0, 1),
    ),
    Panel(
        "Brier score",
        "Mean squared distance between prediction and feedback in the shown time; 0 is perfect, 0.25 knows nothing.",
        (
            Query(
                f"sum by (model) (orbweaver_feedback_brier_sum{{{MODEL}}}) "
                f"/ sum by (model) (orbweaver_feedback_brier_count{{{MODEL}}})",
                "{{model}}",
            ),
        ),
        "bargauge",
        width=12,
        height=6,
        bounds=(0, 0.5),
        steps=(("green", None), ("orange", 0.2), ("red", 0.25)),
    ),
    Panel(
        "Feedback received",
        "Scores per minute; `false` had no prediction beside it.",
        (
            Query(
                f"60 * sum by (predicted) (rate(orbweaver_feedback_total{{{MODEL}}}{RATE}))", "predicted: {{predicted}}"
            ),
        ),
        width=12,
        height=6,
    ),
)

MONEY = (
    Panel(
        "Cost per hour",
        "Money spent on answers, by model, at the declared prices.",
        (Query(f"3600 * sum by (model) (rate(orbweaver_cost_usd_total{{{MODEL}}}{RATE}))", "{{model}}"),),
        unit="currencyUSD",
        stacked=True,
    ),
    Panel(
        "Routed cost against the baseline",
        "What routed requests cost per hour, what they would have cost on the baseline, and what routing itself cost.",
        (
            Query(f"3600 * sum(rate(orbweaver_baseline_cost_usd_total{RATE}))", "on the baseline"),
            Query(f"3600 * sum(rate(orbweaver_routed_cost_usd_total{RATE}))", "as routed"),
            Query(f"3600 * sum(rate(orbweaver_router_cost_usd_total{RATE}))", "the router itself"),
        ),
        unit="currencyUSD",
    ),
    Panel(
        "Saved since the start",
        "Baseline less routed cost less the router's own, as it adds up.",
        (
            Query(
                "sum(orbweaver_baseline_cost_usd_total) - sum(orbweaver_routed_cost_usd_total) "
                "- sum(orbweaver_router_cost_usd_total)",
                "saved",
            ),
        ),
        unit="currencyUSD",
    ),
    Panel(
        "Tokens per second",
        "By type and model.",
        (
            Query(
                "sum by (gen_ai_request_model, gen_ai_token_type) "
                f"(rate(gen_ai_client_token_usage_sum{{{GEN_AI_MODEL}}}{RATE}))",
                "{{gen_ai_request_model}} {{gen_ai_token_type}}",
            ),
        ),
        width=12,
        height=7,
    ),
    Panel(
        "Answers without a known cost",
        "No price declared or no usage known: these are missing from every sum of money.",
        (Query(f"sum by (model) (rate(orbweaver_unpriced_requests_total{{{MODEL}}}{RATE}))", "{{model}}"),),
        unit="reqps",
        width=12,
        height=7,
    ),
)
