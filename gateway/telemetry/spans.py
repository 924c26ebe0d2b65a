"""Turns a finished request into OpenTelemetry spans. Imported only when traces are exported (needs the SDK)."""

from __future__ import annotations

from collections.abc import Mapping

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from gateway.routing.decision import RoutingDecision
from gateway.telemetry.labels import OPERATIONS, OTHER, endpoint_of, route_of
from gateway.telemetry.record import RequestRecord
from gateway.telemetry.tracing import TraceParent

AttributeValue = str | bool | int | float
_SCOPE = InstrumentationScope("orbweaver")
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)


class SpanWriter:
    """Writes the spans of a request: the request itself, its routing decision, and the call to the provider.

    The spans are built complete after the last byte rather than opened and closed on the way: nothing of
    OpenTelemetry then runs while an answer streams, and no context has to follow it.
    """

    def __init__(self, processor: SpanProcessor) -> None:
        self._processor = processor
        self._resource = Resource.create({"service.name": "orbweaver"})

    def write(self, record: RequestRecord, place: TraceParent, request_span_id: int) -> None:
        """Queue the spans.

        Args:
            place: trace and span that the provider was told of; it becomes the span of the provider call.
            request_span_id: id of the span that stands for the whole request.
        """
        incoming = TraceParent.parse(record.traceparent)
        request = self._context(place.trace_id, request_span_id)
        start, end = _ns(record.started_at), _ns(record.started_at + record.duration_s)
        parent = self._context(incoming.trace_id, incoming.span_id, remote=True) if incoming else None
        self._put(
            f"POST /v1/{endpoint_of(record.endpoint)}",
            SpanKind.SERVER,
            (request, parent),
            (start, end),
            _request_attributes(record),
            error=record.outcome if record.status >= 500 or record.outcome == "disconnected" else None,
        )
        decision = record.decision
        decided = start
        if decision is not None and decision.rule != "named":
            decided = min(start + int(record.decide_s * 1e9), end)
            context = self._context(place.trace_id, (place.span_id ^ request_span_id) or 1)
            route = route_of(decision.requested, decision.model, named=False)
            self._put(
                f"route {route}",
                SpanKind.INTERNAL,
                (context, request),
                (start, decided),
                _decision_attributes(decision),
            )
        if record.attempts:
            self._put(
                f"{OPERATIONS.get(record.endpoint, OTHER)} {record.model or record.attempts[-1][0]}",
                SpanKind.CLIENT,
                (self._context(place.trace_id, place.span_id), request),
                (decided, end),
                _call_attributes(record),
                error=None if record.outcome == "ok" else record.outcome,
                events=_failed_attempts(record, decided),
            )

    def _put(
        self,
        name: str,
        kind: SpanKind,
        place: tuple[SpanContext, SpanContext | None],
        times: tuple[int, int],
        attributes: Mapping[str, AttributeValue],
        *,
        error: str | None = None,
        events: tuple[Event, ...] = (),
    ) -> None:
        self._processor.on_end(
            ReadableSpan(
                name,
                context=place[0],
                parent=place[1],
                resource=self._resource,
                attributes={**attributes, "error.type": error} if error else attributes,
                events=events,
                kind=kind,
                status=Status(StatusCode.ERROR) if error else Status(StatusCode.UNSET),
                start_time=times[0],
                end_time=times[1],
                instrumentation_scope=_SCOPE,
            )
        )

    @staticmethod
    def _context(trace_id: int, span_id: int, *, remote: bool = False) -> SpanContext:
        return SpanContext(trace_id, span_id, is_remote=remote, trace_flags=_SAMPLED)


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)


def _known(values: Mapping[str, AttributeValue | None]) -> dict[str, AttributeValue]:
    return {name: value for name, value in values.items() if value is not None}


def _request_attributes(record: RequestRecord) -> dict[str, AttributeValue]:
    decision = record.decision
    return _known(
        {
            "http.request.method": "POST",
            "http.route": f"/v1/{endpoint_of(record.endpoint)}",
            "http.response.status_code": record.status or None,
            "orbweaver.request_id": record.request_id,
            "orbweaver.decision_id": decision.id if decision else None,
            "orbweaver.outcome": record.outcome,
            "orbweaver.model": record.model or None,
            "orbweaver.overhead_ms": round(record.overhead_s * 1e3, 3),
            "orbweaver.cost_usd": record.cost_usd,
            "orbweaver.baseline_cost_usd": record.baseline_cost_usd,
        }
    )


def _decision_attributes(decision: RoutingDecision) -> dict[str, AttributeValue]:
    chosen = decision.chosen
    return _known(
        {
            "orbweaver.rule": decision.rule,
            "orbweaver.reason": decision.reason,
            "orbweaver.model": decision.model,
            "orbweaver.p": chosen.p if chosen else None,
            "orbweaver.p_low": chosen.p_low if chosen else None,
            "orbweaver.p_high": chosen.p_high if chosen else None,
            "orbweaver.quality": decision.quality,
            "orbweaver.scorer": decision.scorer,
            "orbweaver.candidates": len(decision.candidates),
            "orbweaver.novelty": decision.novelty,
        }
    )


def _call_attributes(record: RequestRecord) -> dict[str, AttributeValue]:
    usage = record.usage
    decision = record.decision
    return _known(
        {
            "gen_ai.operation.name": OPERATIONS.get(record.endpoint, OTHER),
            "gen_ai.provider.name": record.provider or OTHER,
            "gen_ai.request.model": record.model or record.attempts[-1][0],
            "gen_ai.request.stream": record.stream,
            "gen_ai.conversation.id": decision.session if decision else None,
            "gen_ai.response.time_to_first_chunk": record.first_token_s if record.stream else None,
            "gen_ai.usage.input_tokens": usage.prompt_tokens if usage else None,
            "gen_ai.usage.output_tokens": usage.completion_tokens if usage else None,
            "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens if usage else None,
            "orbweaver.deployment": record.deployment or None,
            "orbweaver.attempts": len(record.attempts),
        }
    )


def _failed_attempts(record: RequestRecord, at: int) -> tuple[Event, ...]:
    failed = record.attempts if record.outcome not in ("ok", "disconnected") else record.attempts[:-1]
    return tuple(
        Event(
            "orbweaver.attempt_failed",
            {"orbweaver.model": model, "orbweaver.deployment": deployment, "orbweaver.outcome": outcome},
            at,
        )
        for model, deployment, outcome in failed
    )
