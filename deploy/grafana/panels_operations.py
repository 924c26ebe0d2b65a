"""Panels about operation: speed, failures and fallbacks, health and limits."""

from __future__ import annotations

from panel import GEN_AI_MODEL, MODEL, RATE, Panel, Query, quantiles

SPEED = (
    Panel(
        "Answer time",
        "From arrival to last byte; answered requests.",
        quantiles(
            "gen_ai_client_operation_duration_seconds", "", "", 0.5, 0.95, 0.99, labels=f'error_type="",{GEN_AI_MODEL}'
        ),
        unit="s",
    ),
    Panel(
        "Answer time by model (p95)",
        "From arrival to last byte; answered requests.",
        quantiles(
            "gen_ai_client_operation_duration_seconds",
            "gen_ai_request_model",
            "{{gen_ai_request_model}}",
            0.95,
            labels=f'error_type="",{GEN_AI_MODEL}',
        ),
        unit="s",
    ),
    Panel(
        "Time to first token",
        "Streamed answers; a ping or a role-only chunk is no token.",
        quantiles(
            "gen_ai_server_time_to_first_token_seconds",
            "gen_ai_request_model",
            "{{gen_ai_request_model}}",
            0.5,
            0.95,
            labels=GEN_AI_MODEL,
        ),
        unit="s",
    ),
    Panel(
        "Time per output token",
        "Mean pace of streamed answers after the first token.",
        quantiles(
            "gen_ai_server_time_per_output_token_seconds",
            "gen_ai_request_model",
            "{{gen_ai_request_model}}",
            0.5,
            labels=GEN_AI_MODEL,
        ),
        unit="s",
        width=6,
    ),
    Panel(
        "Gateway overhead",
        "What the gateway adds, by kind of request.",
        quantiles("orbweaver_gateway_overhead_seconds", "route", "{{route}}", 0.5, 0.99),
        unit="s",
        width=6,
    ),
    Panel(
        "Routing decision",
        "Time to decide, by rule.",
        quantiles("orbweaver_router_decision_seconds", "rule", "{{rule}}", 0.5, 0.99),
        unit="s",
        width=6,
    ),
    Panel(
        "Event-loop lag",
        "How long nothing else could run. Above 100 ms something blocks the loop.",
        quantiles("orbweaver_event_loop_lag_seconds", "instance", "{{instance}}", 0.5, 0.99),
        unit="s",
        width=6,
    ),
)

FAILURES = (
    Panel(
        "Outcomes other than ok",
        "Requests per second that did not end well, by model and how.",
        (
            Query(
                f'sum by (model, outcome) (rate(orbweaver_requests_total{{{MODEL},outcome!="ok"}}{RATE}))',
                "{{model}} {{outcome}}",
            ),
        ),
        unit="reqps",
        stacked=True,
    ),
    Panel(
        "Fallbacks",
        "Requests that moved on to another model: who failed, and why.",
        (
            Query(
                f"sum by (model, outcome) (rate(orbweaver_fallbacks_total{{{MODEL}}}{RATE}))", "{{model}} {{outcome}}"
            ),
        ),
        unit="reqps",
        stacked=True,
    ),
    Panel(
        "Calls to providers",
        "Every attempt, retries and fallbacks included.",
        (Query(f"sum by (outcome) (rate(orbweaver_attempts_total{{{MODEL}}}{RATE}))", "{{outcome}}"),),
        unit="reqps",
        stacked=True,
    ),
    Panel(
        "Retries",
        "Repeated calls to the same model.",
        (Query(f"sum by (model) (rate(orbweaver_retries_total{{{MODEL}}}{RATE}))", "{{model}}"),),
        unit="reqps",
        width=12,
        height=7,
    ),
    Panel(
        "Clients that left",
        "Before their answer was complete; the provider's call is cancelled with them.",
        (
            Query(
                f"sum by (endpoint, stream) (rate(orbweaver_client_disconnects_total{RATE}))",
                "{{endpoint}} stream={{stream}}",
            ),
        ),
        unit="reqps",
        width=12,
        height=7,
    ),
)

HEALTH = (
    Panel(
        "Deployments",
        "Green while the circuit is closed.",
        (Query(f"min by (model, deployment) (orbweaver_deployment_up{{{MODEL}}})", "{{deployment}}"),),
        "state-timeline",
        width=12,
        steps=(("red", None), ("green", 1)),
        mappings=({"type": "value", "options": {"0": {"text": "down"}, "1": {"text": "up"}}},),
    ),
    Panel(
        "Calls in flight by deployment",
        "How busy each one is.",
        (Query(f"sum by (deployment) (orbweaver_deployment_in_flight{{{MODEL}}})", "{{deployment}}"),),
        width=6,
    ),
    Panel(
        "Cooldown left",
        "Time until an open circuit is tried again.",
        (Query(f"max by (deployment) (orbweaver_deployment_cooldown_seconds{{{MODEL}}})", "{{deployment}}"),),
        unit="s",
        width=6,
    ),
    Panel(
        "Models by state",
        "Registered models: up, down, disabled.",
        (Query("max by (state) (orbweaver_candidates)", "{{state}}"),),
        width=6,
    ),
    Panel(
        "Refused by limits",
        "rate: requests or tokens per minute; budget: money.",
        (Query(f"sum by (limit) (rate(orbweaver_limits_refused_total{RATE}))", "{{limit}}"),),
        unit="reqps",
        width=6,
    ),
    Panel(
        "Turned away",
        "Refused before they were read. 401: wrong keys; 413, 408, 400: bodies; 503: too many in flight.",
        (Query(f"sum by (status) (rate(orbweaver_turned_away_total{RATE}))", "{{status}}"),),
        unit="reqps",
        width=6,
    ),
    Panel(
        "Ledger",
        "Decisions waiting for the database, and decisions lost in ten minutes.",
        (
            Query("sum(orbweaver_ledger_queue_length)", "waiting"),
            Query("sum(increase(orbweaver_ledger_dropped_total[10m]))", "lost"),
        ),
        width=6,
    ),
    Panel(
        "Limits counted alone",
        "1 while Redis is away and a replica counts by itself.",
        (Query("max by (instance) (orbweaver_limiter_degraded)", "{{instance}}"),),
        width=6,
        steps=(("green", None), ("red", 1)),
    ),
    Panel(
        "CPU",
        "Cores in use, all workers together.",
        (Query(f'sum by (instance) (rate(process_cpu_seconds_total{{job="orbweaver"}}{RATE}))', "{{instance}}"),),
        width=6,
        height=7,
    ),
    Panel(
        "Memory",
        "Resident memory of the largest worker.",
        (Query('max by (instance) (process_resident_memory_bytes{job="orbweaver"})', "{{instance}}"),),
        unit="bytes",
        width=6,
        height=7,
    ),
    Panel(
        "Version",
        "What runs where.",
        (Query("count by (version) (orbweaver_build_info)", "{{version}}"),),
        "stat",
        width=6,
        height=7,
    ),
)
