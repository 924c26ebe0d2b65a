"""Expected money and time of one request on one candidate. USD and seconds."""

from __future__ import annotations

from gateway.registry.records import Candidate
from gateway.routing.features import Features
from gateway.routing.vitals import Vitals

# Mean answer length where nothing is known of a candidate (tokens); the recorded answers of the shipped
# encoder's training pools average between 250 and 450.
TYPICAL_OUTPUT_TOKENS = 350


def expected_output_tokens(features: Features, vitals: Vitals | None = None) -> float:
    """The candidate's own moving average where known, never above what the caller allows."""
    expected = TYPICAL_OUTPUT_TOKENS if vitals is None or vitals.output_tokens is None else vitals.output_tokens
    return min(expected, features.max_output_tokens) if features.max_output_tokens else expected


def expected_cost(
    candidate: Candidate, features: Features, vitals: Vitals | None = None, *, cached_tokens: int = 0
) -> float | None:
    """USD for this request, or None where no price is declared. `cached_tokens` of the prompt are likely cached."""
    if candidate.price_in is None and candidate.price_out is None:
        return None
    price_in = candidate.price_in or 0.0
    cached = min(cached_tokens, features.prompt_tokens) if candidate.price_cached_in is not None else 0
    money = (features.prompt_tokens - cached) * price_in + cached * (candidate.price_cached_in or 0.0)
    money += expected_output_tokens(features, vitals) * (candidate.price_out or 0.0)
    return money / 1e6


def expected_time(features: Features, vitals: Vitals) -> float | None:
    """Seconds until the last token, or None where nothing has been measured yet."""
    if vitals.ttft_s is None:
        return None
    tokens = expected_output_tokens(features, vitals)
    return vitals.ttft_s + (tokens / vitals.tokens_per_s if vitals.tokens_per_s else 0.0)


def actual_cost(
    candidate: Candidate, prompt_tokens: int, completion_tokens: int, cached_tokens: int = 0
) -> float | None:
    """USD of a finished request from its token counts; None where no price is declared."""
    if candidate.price_in is None and candidate.price_out is None:
        return None
    cached = min(cached_tokens, prompt_tokens) if candidate.price_cached_in is not None else 0
    money = (prompt_tokens - cached) * (candidate.price_in or 0.0) + cached * (candidate.price_cached_in or 0.0)
    return (money + completion_tokens * (candidate.price_out or 0.0)) / 1e6
