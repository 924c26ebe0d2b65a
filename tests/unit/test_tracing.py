"""Traces: what the provider is told, which spans a request becomes, and that nothing is needed to carry one through."""

from __future__ import annotations

import subprocess
import sys
from random import Random

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.trace import SpanKind, StatusCode

from gateway.errors import ConfigError
from gateway.telemetry.tracing import TraceParent, Tracing, build_tracing
from tests.support.records import decide, finished

INCOMING = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = INCOMING[:-2] + "00"


class Collected(SpanProcessor):
    """Keeps the spans it is given."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.spans.append(span)

    def of_kind(self, kind: SpanKind) -> ReadableSpan:
        return next(span for span in self.spans if span.kind is kind)


def exporting() -> tuple[Tracing, Collected]:
    collected = Collected()
    return Tracing(collected, rng=Random(7)), collected


@pytest.mark.parametrize(
    "header",
    [None, "", "nonsense", "ff" + INCOMING[2:], "00-" + "0" * 32 + INCOMING[35:], INCOMING.upper(), INCOMING[:-1]],
)
def test_a_header_that_is_no_traceparent_is_none(header: str | None) -> None:
    assert TraceParent.parse(header) is None


def test_a_traceparent_survives_parsing_and_writing() -> None:
    parsed = TraceParent.parse(INCOMING)
    assert parsed is not None
    assert parsed.header() == INCOMING


@pytest.mark.parametrize("header", [None, INCOMING, "whatever the caller sent"])
def test_without_an_exporter_the_callers_header_goes_through_as_it_came(header: str | None) -> None:
    assert Tracing().outgoing(finished(traceparent=header)) == header


def test_the_provider_is_told_the_same_trace_and_a_span_of_our_own() -> None:
    tracing, _ = exporting()
    sent = tracing.outgoing(finished(traceparent=INCOMING))
    assert sent is not None
    assert sent.split("-")[1] == INCOMING.split("-")[1]
    assert sent.split("-")[2] != INCOMING.split("-")[2]


def test_a_request_without_a_trace_begins_one() -> None:
    tracing, _ = exporting()
    assert TraceParent.parse(tracing.outgoing(finished())) is not None


def test_a_trace_that_the_caller_does_not_sample_is_carried_on_but_not_exported() -> None:
    tracing, collected = exporting()
    record = finished(traceparent=UNSAMPLED)
    sent = tracing.outgoing(record)
    tracing.record(record)
    assert sent is not None
    assert sent.endswith("-00")
    assert collected.spans == []


def test_the_spans_form_one_tree_below_the_caller() -> None:
    tracing, collected = exporting()
    record = finished(traceparent=INCOMING)
    sent = TraceParent.parse(tracing.outgoing(record))
    tracing.record(record)
    server, routing, call = (collected.of_kind(k) for k in (SpanKind.SERVER, SpanKind.INTERNAL, SpanKind.CLIENT))
    assert server.parent is not None
    assert f"{server.parent.span_id:016x}" == INCOMING.split("-")[2]
    assert server.context is not None
    assert call.parent == server.context == routing.parent
    assert call.context is not None
    assert sent is not None
    assert (call.context.trace_id, call.context.span_id) == (sent.trace_id, sent.span_id)


def test_the_call_carries_the_genai_attributes() -> None:
    tracing, collected = exporting()
    tracing.record(finished(stream=True, first_token_s=0.3))
    call = collected.of_kind(SpanKind.CLIENT)
    assert call.name == "chat small"
    expected = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "small",
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": 11,
        "gen_ai.response.time_to_first_chunk": 0.3,
    }
    assert expected.items() <= dict(call.attributes or {}).items()


def test_the_routing_span_says_which_rule_fired() -> None:
    tracing, collected = exporting()
    tracing.record(finished())
    routing = collected.of_kind(SpanKind.INTERNAL)
    assert dict(routing.attributes or {})["orbweaver.rule"] == "utility"


def test_a_named_model_has_no_routing_span() -> None:
    tracing, collected = exporting()
    tracing.record(finished(decision=decide(rule="named"), requested_model="small"))
    assert [span.kind for span in collected.spans] == [SpanKind.SERVER, SpanKind.CLIENT]


def test_a_failed_call_is_an_error_and_lists_its_attempts() -> None:
    tracing, collected = exporting()
    attempts = (("small", "small#0", "timeout"), ("large", "large#0", "timeout"))
    tracing.record(finished(outcome="timeout", status=504, attempts=attempts, model="", usage=None))
    call = collected.of_kind(SpanKind.CLIENT)
    assert call.status.status_code is StatusCode.ERROR
    assert [dict(event.attributes or {})["orbweaver.model"] for event in call.events] == ["small", "large"]


async def test_spans_reach_an_otlp_receiver() -> None:
    received: list[ExportTraceServiceRequest] = []

    async def take(request: web.Request) -> web.Response:
        received.append(ExportTraceServiceRequest.FromString(await request.read()))
        return web.Response()

    app = web.Application()
    app.router.add_post("/v1/traces", take)
    async with TestServer(app) as server:
        tracing = build_tracing(str(server.make_url("")))
        tracing.record(finished(traceparent=INCOMING))
        await tracing.close()
    spans = [
        span for part in received for resource in part.resource_spans for s in resource.scope_spans for span in s.spans
    ]
    assert sorted(span.name for span in spans) == ["POST /v1/chat/completions", "chat small", "route auto"]
    assert {span.trace_id.hex() for span in spans} == {INCOMING.split("-")[1]}


def test_a_missing_sdk_is_a_clear_configuration_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(ConfigError, match=r"orbweaver-gateway\[otel\]"):
        build_tracing("http://127.0.0.1:4318")


def test_carrying_a_trace_through_imports_nothing_of_opentelemetry() -> None:
    code = "import sys; from gateway.telemetry.tracing import build_tracing; build_tracing(None);"
    code += "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
