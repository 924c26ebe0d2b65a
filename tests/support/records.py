"""Small builders for telemetry tests: one usual routing decision and one usual finished request."""

from __future__ import annotations

from typing import Any

from gateway.routing.decision import CandidateVerdict, RoutingDecision, Rule
from gateway.telemetry.record import RequestRecord, Usage


def decide(model: str = "small", rule: Rule = "utility") -> RoutingDecision:
    return RoutingDecision(
        id="d1",
        requested="auto",
        model=model,
        order=(model,),
        rule=rule,
        reason="best utility",
        quality=0.7,
        candidates=(CandidateVerdict("small", p=0.75), CandidateVerdict("large", p=0.9)),
        scorer="prior",
        prior=True,
        ask_hash="h",
    )


def finished(**changes: Any) -> RequestRecord:
    values: dict[str, Any] = {
        "request_id": "r1",
        "endpoint": "chat/completions",
        "started_at": 0.0,
        "decision": decide(),
        "requested_model": "auto",
        "model": "small",
        "deployment": "small#0",
        "provider": "openai",
        "status": 200,
        "attempts": (("small", "small#0", "ok"),),
        "duration_s": 0.5,
        "overhead_s": 0.001,
        "decide_s": 0.002,
        "usage": Usage(prompt_tokens=100, completion_tokens=11),
        "cost_usd": 0.01,
        "baseline_cost_usd": 0.04,
    }
    return RequestRecord(**{**values, **changes})
