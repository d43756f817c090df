"""Spans through OpenTelemetry, by OTLP over HTTP. The only importer of opentelemetry.

All parts of a run name the same span as the one that they are in. Whoever closes the run makes it,
with the id that they named.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime

from enrich import __version__
from enrich.errors import package_missing
from enrich.tracing import Attribute

try:
    from opentelemetry import trace
    from opentelemetry.context import Context
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
except ImportError:
    raise package_missing("ENRICH_TRACES_URL needs OpenTelemetry", "otel") from None

#: The ids of the next span, where they are not left to chance.
_IDS: ContextVar[tuple[int, int] | None] = ContextVar("ids", default=None)


class OtelRecorder:
    """See `enrich.tracing.Recorder`."""

    def __init__(self, exporter: SpanExporter) -> None:
        resource = Resource.create({"service.name": "enrich", "service.version": __version__})
        self._provider = TracerProvider(resource=resource, id_generator=_Ids())
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("enrich", __version__)

    @contextmanager
    def part_of(self, run: str, name: str, attributes: dict[str, Attribute]) -> Iterator[None]:
        trace_id, span_id = _ids_of(run)
        sampled = trace.TraceFlags(trace.TraceFlags.SAMPLED)
        whole = trace.SpanContext(trace_id, span_id, is_remote=True, trace_flags=sampled)
        within = trace.set_span_in_context(trace.NonRecordingSpan(whole))
        with self._recorded(name, attributes, within):
            yield

    @contextmanager
    def span(self, name: str, attributes: dict[str, Attribute]) -> Iterator[None]:
        if not trace.get_current_span().is_recording():
            yield
            return
        with self._recorded(name, attributes, None):
            yield

    @contextmanager
    def _recorded(
        self, name: str, attributes: dict[str, Attribute], within: Context | None
    ) -> Iterator[None]:
        # An exception's text is not sent: only its class is known to quote nothing.
        with self._tracer.start_as_current_span(
            name,
            context=within,
            attributes=attributes,
            kind=trace.SpanKind.CLIENT if within is None else trace.SpanKind.CONSUMER,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield
            except BaseException as error:
                span.set_attribute("error.type", type(error).__name__)
                span.set_status(trace.StatusCode.ERROR)
                raise

    def ended(
        self,
        run: str,
        began: datetime,
        ended: datetime,
        attributes: dict[str, Attribute],
        *,
        well: bool,
    ) -> None:
        ids = _IDS.set(_ids_of(run))
        try:
            whole = self._tracer.start_span(
                "run", context=Context(), attributes=attributes, start_time=_nanoseconds(began)
            )
        finally:
            _IDS.reset(ids)
        if not well:
            whole.set_status(trace.StatusCode.ERROR)
        whole.end(end_time=_nanoseconds(ended))

    def close(self) -> None:
        self._provider.shutdown()


def recorder_to(url: str) -> OtelRecorder:
    """Args: url: where an OTLP receiver takes traces. Headers and time-outs are its own variables,
    OTEL_EXPORTER_OTLP_HEADERS and so on."""
    return OtelRecorder(OTLPSpanExporter(endpoint=url))


class _Ids(RandomIdGenerator):
    def generate_trace_id(self) -> int:
        ids = _IDS.get()
        return ids[0] if ids else super().generate_trace_id()

    def generate_span_id(self) -> int:
        ids = _IDS.get()
        return ids[1] if ids else super().generate_span_id()


def _ids_of(run: str) -> tuple[int, int]:
    """Of the trace, and of the span that is the whole run."""
    digest = hashlib.sha256(f"enrich run {run}".encode()).digest()
    return int.from_bytes(digest[:16], "big"), int.from_bytes(digest[16:24], "big")


def _nanoseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1e9)
