"""Traces (OpenTelemetry), off unless MPESA_OTLP_ENDPOINT is set: then a comparison, no more.

The context of a payment's trace is kept in Postgres as a `traceparent`, in the row that the next
step begins with. So one trace spans API, worker and webhook although Redis lost the message.
The library is imported when tracing is switched on, and an exporter that fails costs traces only.
"""

from __future__ import annotations

import os
import re
import socket
import threading
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

import structlog

from mpesa_gateway import __version__
from mpesa_gateway.telemetry.masking import mask_value

if TYPE_CHECKING:
    from opentelemetry import trace
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider

Kind = Literal["internal", "server", "client", "producer", "consumer"]

# Spans that wait for the exporter; what does not fit is dropped, and nothing waits for it.
MAX_WAITING = 4096
BATCH = 512
EXPORT_EVERY_MS = 1000
EXPORT_TIMEOUT_S = 5.0
# A process that stops waits this long for its last spans.
SHUTDOWN_TIMEOUT_S = 3.0
MAX_TEXT_LENGTH = 200
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)


@dataclass(frozen=True)
class _On:
    """What is there while tracing is on."""

    provider: TracerProvider
    tracer: trace.Tracer


_on: _On | None = None


def is_on() -> bool:
    """Whether spans are made."""
    return _on is not None


def start_tracing(endpoint: str, ratio: float, service: str) -> None:
    """Send spans to `endpoint` (OTLP over HTTP, `/v1/traces` is added). Nothing when it is empty.

    After a fork, because the exporter has a thread. `ratio` is of payments whose caller does not
    say whether to trace.
    """
    global _on  # noqa: PLW0603 - one per process
    if not endpoint:
        return
    # Here, because it costs 0.2 s and 20 MiB that a process without traces need not pay.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
        OTLPSpanExporter,
    )
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import SpanLimits, TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased  # noqa: PLC0415

    provider = TracerProvider(
        sampler=ParentBased(TraceIdRatioBased(ratio)),
        resource=Resource(
            {
                "service.namespace": "mpesa-gateway",
                "service.name": f"mpesa-gateway-{service}",
                "service.version": __version__,
                "service.instance.id": f"{socket.gethostname()}-{os.getpid()}",
            }
        ),
        # Ours: the environment variables of the library are not settings of this project.
        span_limits=SpanLimits(max_attributes=32, max_attribute_length=MAX_TEXT_LENGTH),
        shutdown_on_exit=False,
    )
    exporter = OTLPSpanExporter(f"{endpoint}/v1/traces", timeout=EXPORT_TIMEOUT_S)
    provider.add_span_processor(
        BatchSpanProcessor(
            exporter,
            max_queue_size=MAX_WAITING,
            schedule_delay_millis=EXPORT_EVERY_MS,
            max_export_batch_size=BATCH,
            export_timeout_millis=EXPORT_TIMEOUT_S * 1000,
        )
    )
    _on = _On(provider, provider.get_tracer("mpesa_gateway", __version__))


def stop_tracing() -> None:
    """Send what waits, for a moment; a receiver that does not answer holds nobody up."""
    global _on
    on, _on = _on, None
    if on is not None:
        last = threading.Thread(target=on.provider.shutdown, name="last spans", daemon=True)
        last.start()
        last.join(SHUTDOWN_TIMEOUT_S)


class Span(AbstractContextManager["Span"]):
    """A step of a payment while it runs. This one, of a process without traces, does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        return None

    def set(self, **attributes: object) -> None:
        """Say more about it. Values are masked; None is left out."""

    def end(self) -> None:
        """It has ended; for a span that is no `with` block."""

    @property
    def traceparent(self) -> str | None:
        """What a later step needs to go on with this trace, None when there is none."""
        return None


NO_SPAN = Span()


class _RealSpan(Span):
    """A span that is exported, if its trace is sampled."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span
        self._scope: AbstractContextManager[Any] | None = None

    def __enter__(self) -> Self:
        from opentelemetry import trace  # noqa: PLC0415 - see start_tracing

        # An exception's text may hold anything; its name is enough, the log has the rest.
        self._scope = trace.use_span(
            self._span, record_exception=False, set_status_on_exception=False
        )
        self._scope.__enter__()
        # It stays for the rest of the work in hand: the line that ends a request needs it too.
        structlog.contextvars.bind_contextvars(
            trace_id=trace.format_trace_id(self._span.get_span_context().trace_id)
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        if kind is not None:
            self._fail(kind.__name__)
        assert self._scope is not None
        self._scope.__exit__(None, None, None)
        self._span.end()

    def _fail(self, name: str) -> None:
        from opentelemetry.trace import Status, StatusCode  # noqa: PLC0415 - see start_tracing

        self._span.set_status(Status(StatusCode.ERROR))
        self._span.set_attribute("error.type", name)

    def set(self, **attributes: object) -> None:
        """Say more about it."""
        for name, value in attributes.items():
            if value is not None:
                self._span.set_attribute(f"mpesa.{name}", _attribute(value))

    def end(self) -> None:
        """It has ended."""
        self._span.end()

    @property
    def traceparent(self) -> str | None:
        """As W3C writes it."""
        return _written(self._span.get_span_context())


def span(
    name: str,
    *,
    parent: str | None = None,
    kind: Kind = "internal",
    started_at_ns: int | None = None,
    **attributes: object,
) -> Span:
    """A step, to be used as a `with` block. `parent` is a traceparent that was kept or received.

    Without one, what comes from outside or from a row begins a trace, and the rest goes on with
    what runs in this thread.
    """
    if _on is None:
        return NO_SPAN
    from opentelemetry.trace import SpanKind  # noqa: PLC0415 - see start_tracing

    made = _RealSpan(
        _on.tracer.start_span(
            name,
            context=_continuing(parent, begins=kind in ("server", "consumer")),
            kind=SpanKind[kind.upper()],
            start_time=started_at_ns,
        )
    )
    made.set(**attributes)
    return made


def follow(transaction_id: object, home: str | None) -> None:
    """The work in hand is about this payment: its log lines say so, and its span.

    `home` is the traceparent that the payment began with; a step of another trace is linked to it.
    """
    structlog.contextvars.bind_contextvars(transaction_id=str(transaction_id))
    if _on is None:
        return
    from opentelemetry import trace  # noqa: PLC0415 - see start_tracing

    current = trace.get_current_span()
    current.set_attribute("mpesa.transaction_id", str(transaction_id))
    begun = _parsed(home)
    if begun is not None and begun.trace_id != current.get_span_context().trace_id:
        current.add_link(begun)


def started_at_ns() -> int | None:
    """Now, for a span that is made later; None when none will be."""
    return None if _on is None else time.time_ns()


def current_traceparent() -> str | None:
    """Of the step that runs in this thread, for a row or a request; None when there is none."""
    if _on is None:
        return None
    from opentelemetry import trace  # noqa: PLC0415 - see start_tracing

    return _written(trace.get_current_span().get_span_context())


def traceparent_within(home: str | None) -> str | None:
    """Of the running step when it is of the same trace as `home`, else `home`."""
    current = current_traceparent()
    if current is None or (home is not None and home[3:35] != current[3:35]):
        return home
    return current


def exemplar() -> dict[str, str] | None:
    """Labels that lead from a histogram's bucket to a trace; None when nothing is exported."""
    current = current_traceparent()
    if current is None or not int(current[-2:], 16) & 1:
        return None
    return {"trace_id": current[3:35], "span_id": current[36:52]}


def parse_traceparent(text: str | None) -> str | None:
    """A header that a caller sent, None when it is absent or not of the form (version 00)."""
    return text if text is not None and _TRACEPARENT.fullmatch(text) else None


def _parsed(traceparent: str | None) -> trace.SpanContext | None:
    from opentelemetry.trace import SpanContext, TraceFlags  # noqa: PLC0415 - see start_tracing

    if parse_traceparent(traceparent) is None or traceparent is None:
        return None
    _, trace_id, span_id, flags = traceparent.split("-")
    return SpanContext(
        int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16))
    )


def _continuing(traceparent: str | None, *, begins: bool) -> Context | None:
    from opentelemetry import trace  # noqa: PLC0415 - see start_tracing
    from opentelemetry.context import Context  # noqa: PLC0415

    context = _parsed(traceparent)
    if context is None:
        return Context() if begins else None
    return trace.set_span_in_context(trace.NonRecordingSpan(context))


def _written(context: trace.SpanContext) -> str | None:
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def _attribute(value: object) -> bool | int | float | str:
    masked = mask_value(value)
    return masked if isinstance(masked, bool | int | float) else str(masked)
