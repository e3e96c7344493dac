"""Tasks that make spans of OpenTelemetry, and write down those that have ended. A module that workers import."""

from __future__ import annotations

import contextvars
import json
import os

from opentelemetry import propagate, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

CARRIER: contextvars.ContextVar[dict[str, str]] = contextvars.ContextVar("CARRIER")


def export_to(path: str) -> None:
    """Write each span of this process, when it ends, as a line of a file. The initializer of workers."""
    # It is line-buffered, and appending to it needs no lock.
    file = open(path, "a", buffering=1)
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(out=file, formatter=_line)))
    trace.set_tracer_provider(provider)


def _line(span: object) -> str:
    return json.dumps({"pid": os.getpid(), **json.loads(span.to_json())}) + "\n"


def work(name: object) -> int:
    with trace.get_tracer("tests").start_as_current_span(f"work {name}", context=propagate.extract(CARRIER.get())):
        return os.getpid()
