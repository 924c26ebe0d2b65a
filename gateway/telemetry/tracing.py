"""OpenTelemetry traces: `traceparent` goes through to the provider, and each request becomes GenAI spans.

Without an OTLP endpoint nothing of OpenTelemetry is imported and the caller's `traceparent` is forwarded as it came.
Names follow the OpenTelemetry GenAI and HTTP conventions.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Final

from gateway.errors import ConfigError
from gateway.telemetry.record import RequestRecord

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor

_TRACEPARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")
_SAMPLED: Final = 0x01
# A receiver that is away may hold the end of the gateway up by this long.
EXPORT_WITHIN_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class TraceParent:
    """A place in a trace: the W3C `traceparent` header as numbers."""

    trace_id: int
    span_id: int
    sampled: bool = True

    @classmethod
    def parse(cls, header: str | None) -> TraceParent | None:
        """None where the header is absent or not valid by the W3C recommendation."""
        match = _TRACEPARENT.fullmatch(header.strip()) if header else None
        if match is None:
            return None
        trace_id, span_id, flags = (int(group, 16) for group in match.groups())
        return cls(trace_id, span_id, bool(flags & _SAMPLED)) if trace_id and span_id else None

    def header(self) -> str:
        """The header's text."""
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{int(self.sampled):02x}"


class Tracing:
    """Implements `Sink`. `processor` takes finished spans; None means that traces are only carried through."""

    def __init__(self, processor: SpanProcessor | None = None, *, rng: Random | None = None) -> None:
        self._rng = rng or Random()
        self._processor = processor
        self._emit: Callable[[RequestRecord, TraceParent, int], None] | None = None
        if processor is not None:
            from gateway.telemetry.spans import SpanWriter

            self._emit = SpanWriter(processor).write

    def outgoing(self, record: RequestRecord) -> str | None:
        """The `traceparent` to send to the provider, noted in the record.

        The caller's own while no spans are exported; else one of the same trace (or of a new one) that names the
        span of the provider call. Call it once for each request, after `record.traceparent` is set.
        """
        if self._processor is None:
            return record.traceparent
        incoming = TraceParent.parse(record.traceparent)
        trace_id = incoming.trace_id if incoming else self._rng.getrandbits(128) or 1
        sampled = incoming.sampled if incoming else True
        record.upstream_traceparent = TraceParent(trace_id, self._span_id(), sampled).header()
        return record.upstream_traceparent

    def record(self, record: RequestRecord) -> None:
        """Queue the spans of one finished request; they are exported by a background thread."""
        if self._emit is None:
            return
        if record.upstream_traceparent is None:  # refused before any provider was called
            self.outgoing(record)
        place = TraceParent.parse(record.upstream_traceparent)
        if place is not None and place.sampled:
            self._emit(record, place, self._span_id())

    async def close(self) -> None:
        """Send what is queued and stop the exporter's thread."""
        if self._processor is not None:
            await asyncio.to_thread(self._processor.shutdown)

    def _span_id(self) -> int:
        return self._rng.getrandbits(64) or 1


def build_tracing(otlp_endpoint: str | None) -> Tracing:
    """Tracing for a configuration: exporting where an endpoint is given, carrying through otherwise.

    Args:
        otlp_endpoint: base address of an OTLP/HTTP receiver, such as `http://127.0.0.1:4318`.
    Raises:
        ConfigError: an endpoint is set but the OpenTelemetry SDK is not installed.
    """
    if otlp_endpoint is None:
        return Tracing()
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise ConfigError(
            f"telemetry.otlp_endpoint is {otlp_endpoint!r}, but the OpenTelemetry SDK is not installed ({error.name}).",
            hint='Install it with `pip install "orbweaver-gateway[otel]"`, or leave the setting out.',
        ) from None
    address = otlp_endpoint.rstrip("/")
    if not address.endswith("/v1/traces"):
        address += "/v1/traces"
    return Tracing(BatchSpanProcessor(OTLPSpanExporter(endpoint=address, timeout=EXPORT_WITHIN_S)))
