"""OpenTelemetry's current span arrives in a task by its own propagator: one trace across the processes."""

from __future__ import annotations

import asyncio
import json
import os

import pytest

pytest.importorskip("opentelemetry.sdk")

from opentelemetry import propagate, trace
from opentelemetry.sdk.trace import TracerProvider

from pidfdpool import PidfdPoolExecutor
from tests.clients import spans


def test_the_spans_of_tasks_belong_to_the_trace_of_the_host(way, tmp_path):
    tracer = TracerProvider().get_tracer("tests")
    path = tmp_path / "spans"
    options = {"initializer": spans.export_to, "initargs": (str(path),), "context_vars": [spans.CARRIER]}
    with PidfdPoolExecutor(2, mp_context=way, **options) as pool:
        with tracer.start_as_current_span("request") as span:
            carrier: dict[str, str] = {}
            propagate.inject(carrier)
            assert list(carrier) == ["traceparent"]
            spans.CARRIER.set(carrier)
            pids = {pool.submit(spans.work, "submitted").result()}
            pids |= set(pool.map(spans.work, range(4)))
            pids.add(asyncio.run(pool.run(spans.work, "awaited")))
        with tracer.start_as_current_span("another request") as other:
            propagate.inject(carrier := {})
            spans.CARRIER.set(carrier)
            pool.submit(spans.work, "of another").result()
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert sorted(one["name"] for one in found) == sorted(
        ["work submitted", "work awaited", "work of another", *(f"work {n}" for n in range(4))]
    )
    assert os.getpid() not in {one["pid"] for one in found}
    assert {one["pid"] for one in found} >= pids
    for one in found:
        host = other if one["name"] == "work of another" else span
        context = host.get_span_context()
        assert one["context"]["trace_id"] == f"0x{trace.format_trace_id(context.trace_id)}"
        assert one["parent_id"] == f"0x{trace.format_span_id(context.span_id)}"
