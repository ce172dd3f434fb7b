"""Exports spans to OpenTelemetry. Only this module imports that library, and only while traces are on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.status import Status, StatusCode

from noetl_broker import __version__
from noetl_broker.tracing.spans import Span

SAMPLED = TraceFlags(TraceFlags.SAMPLED)
SCOPE = InstrumentationScope("noetl_broker", __version__)


class Exporter:
    """Passes our spans, which have ended and have their ids, to a span processor of the library."""

    def __init__(self, processor: SpanProcessor, service: str) -> None:
        """`service` is the name of the program if OTEL_SERVICE_NAME is not set."""
        named = {} if os.environ.get("OTEL_SERVICE_NAME") else {SERVICE_NAME: service}
        self._resource = Resource.create({**named, SERVICE_VERSION: __version__})
        self._processor = processor

    def emit(self, spans: Sequence[Span]) -> None:
        """Pass spans on; a thread of the library sends them."""
        for span in spans:
            self._processor.on_end(self._readable(span))

    def close(self) -> None:
        """Send the remaining spans."""
        self._processor.shutdown()

    def _readable(self, span: Span) -> ReadableSpan:
        parent = None if span.parent_id is None else _context(span.trace_id, span.parent_id, remote=span.remote)
        return ReadableSpan(
            name=span.name,
            context=_context(span.trace_id, span.span_id, remote=False),
            parent=parent,
            resource=self._resource,
            attributes=span.attributes,
            kind=SpanKind.CONSUMER if span.remote else SpanKind.INTERNAL,
            status=Status(StatusCode.UNSET) if span.failed is None else Status(StatusCode.ERROR, span.failed),
            start_time=_nanoseconds(span.began_at),
            end_time=_nanoseconds(span.ended_at),
            instrumentation_scope=SCOPE,
        )


def otlp(service: str) -> Exporter:
    """An exporter over HTTP, configured by the OTEL_EXPORTER_OTLP_* variables (localhost:4318 by default)."""
    return Exporter(BatchSpanProcessor(OTLPSpanExporter()), service)


def _context(trace_id: str, span_id: str, *, remote: bool) -> SpanContext:
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=remote, trace_flags=SAMPLED)


def _nanoseconds(at: datetime) -> int:
    return int(at.timestamp() * 1_000_000) * 1000
