"""Pools in OpenTelemetry: read by its own SDK."""

from __future__ import annotations

import gc
import signal

import pytest

pytest.importorskip("opentelemetry.sdk.metrics")

from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.metrics import Histogram, MeterProvider, ObservableCounter
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader

from pidfdpool import PidfdPoolExecutor, TaskKilled, TaskTimeout, WorkerCrashed
from pidfdpool.integrations.metrics import opentelemetry as room
from pidfdpool.integrations.metrics.catalogue import HISTOGRAMS, METRICS
from pidfdpool.metrics import OpenTelemetryInstruments
from tests import calls, conditions
from tests.conditions import eventually, in_forked_child, run_python


class Reader:
    """A provider, a meter of it, and what it exports."""

    def __init__(self, **options):
        self.reader = InMemoryMetricReader(**options)
        self.provider = MeterProvider([self.reader])
        self.meter = self.provider.get_meter("tests")

    def metrics(self):
        data = self.reader.get_metrics_data()
        scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics] if data else []
        return {metric.name: metric for scope in scopes for metric in scope.metrics}

    def points(self):
        """Return every value by the metric's name and the attributes, without the prefixes of their names."""
        found = {}
        for name, metric in self.metrics().items():
            for point in metric.data.data_points:
                labels = ",".join(
                    f"{key.rpartition('.')[2]}={value}" for key, value in sorted(point.attributes.items())
                )
                found[name.removeprefix("pidfdpool."), labels] = getattr(point, "value", point)
        return found


@pytest.fixture
def reader():
    reader = Reader()
    yield reader
    reader.provider.shutdown()


def outcomes(found, pool="default"):
    return {
        labels.replace(f"name={pool},", "").replace("outcome=", "").replace("signal=", ""): value
        for (name, labels), value in found.items()
        if name == "task.completed" and f"name={pool}" in labels and value
    }


def come_to(look, expected, pool="default"):
    """Wait until reading gives these outcomes, and return all that it gives then."""
    return conditions.come_to(look, lambda seen: outcomes(seen, pool), expected)


def test_everything_that_can_become_of_a_task_is_read(reader, way, tmp_path, sure_of_deaths):
    with PidfdPoolExecutor(1, mp_context=way, retry_backoff=0.0) as pool:
        OpenTelemetryInstruments(pool, meter=reader.meter)
        for _ in range(3):
            pool.submit(calls.double, 1).result(timeout=20)
        assert isinstance(pool.submit(calls.raise_it, KeyError(1)).exception(timeout=20), KeyError)
        assert isinstance(pool.submit(calls.die, signal.SIGSEGV).exception(timeout=20), WorkerCrashed)
        assert isinstance(pool.submit(calls.leave, 3).exception(timeout=20), WorkerCrashed)
        hanging = pool.options(timeout=0.05, grace=0.0).submit(calls.sleep, 60)
        timed_out = hanging.exception(timeout=20)
        assert isinstance(timed_out, TaskTimeout)
        # A worker that gets no processor between the two signals of its end dies of the second.
        by = signal.Signals(timed_out.exit_status.signal).name
        path = tmp_path / "begun"
        killed, cancelled = pool.submit(calls.touch_and, str(path), "sleep"), pool.submit(calls.double, 1)
        eventually(path.exists, "it runs")
        seen = reader.points()
        assert [seen["task.pending", f"name=default,state={state}"] for state in ("running", "queued")] == [1, 1]
        assert seen["worker.count", "name=default,state=busy"] == 1
        assert seen["worker.memory.usage", "name=default"] > 1_000_000
        assert cancelled.cancel()
        assert killed.kill()
        assert isinstance(killed.exception(timeout=20), TaskKilled)
        pool.options(retries=2).submit(calls.fail_until, str(tmp_path / "failed"), 3, "crash").result(timeout=20)
        expected = {"done": 4, "failed": 1, "cancelled": 1, "killed,SIGKILL": 1, f"timed_out,{by}": 1, "crashed": 1}
        seen = come_to(reader.points, expected | {"crashed,SIGSEGV": 1})
        assert seen["task.submitted", "name=default"] == 10
        assert seen["task.retries", "name=default"] == 2
        assert seen["worker.deaths", "name=default,reason=crash,signal=SIGSEGV"] == 1
        assert seen["pool.broken", "name=default"] == 0
        eventually(lambda: reader.points()["task.duration", "name=default"].count == 11, "all attempts are recorded")
    last = reader.points()
    assert last["worker.count", "name=default,state=idle"] == 0
    assert outcomes(last) == outcomes(seen)


def test_names_and_units_are_those_of_the_catalogue(reader):
    with PidfdPoolExecutor(1) as pool:
        OpenTelemetryInstruments(pool, meter=reader.meter)
        pool.submit(calls.die).exception(timeout=20)
        pool.submit(calls.double, 1).result(timeout=20)
        come_to(reader.points, {"done": 1, "crashed,SIGKILL": 1})
        units = {name: metric.unit for name, metric in reader.metrics().items()}
        assert units == {one.dotted: one.unit for one in METRICS} | {one.dotted: "s" for one in HISTOGRAMS}
        monotonic = {name for name, metric in reader.metrics().items() if getattr(metric.data, "is_monotonic", False)}
        assert monotonic == {one.dotted for one in METRICS if one.counts}


def test_durations_and_waiting_are_told_apart(reader):
    with PidfdPoolExecutor(1) as pool:
        OpenTelemetryInstruments(pool, meter=reader.meter, buckets=[0.2, 20])
        pool.prestart()
        futures = [pool.submit(calls.sleep, 0.3), pool.submit(calls.sleep, 0)]
        for future in futures:
            future.result(timeout=20)
        seen = come_to(reader.points, {"done": 2})
        seen = eventually(
            lambda: seen if (seen := reader.points())["task.duration", "name=default"].count == 2 else None,
            "both are recorded",
        )
    run, wait = seen["task.duration", "name=default"], seen["task.queue.duration", "name=default"]
    assert (run.explicit_bounds, run.bucket_counts, wait.bucket_counts) == ((0.2, 20), (1, 1, 0), (1, 1, 0))
    assert run.sum > 0.3
    assert 0.3 < wait.sum < 20


def test_of_many_durations_some_are_recorded_and_all_are_counted(reader, monkeypatch):
    monkeypatch.setattr(room, "MOST_SAMPLES", 16)
    with PidfdPoolExecutor(1) as pool:
        OpenTelemetryInstruments(pool, meter=reader.meter)
        for future in [pool.submit(calls.double, number) for number in range(300)]:
            future.result(timeout=20)
        assert pool.stats().finished == 300
        seen = come_to(reader.points, {"done": 300})
        assert 8 <= seen["task.duration", "name=default"].count <= 32


def test_with_delta_temporality_each_export_has_what_is_new():
    temporality = {Histogram: AggregationTemporality.DELTA, ObservableCounter: AggregationTemporality.DELTA}
    reader = Reader(preferred_temporality=temporality)
    with PidfdPoolExecutor(1) as pool:
        OpenTelemetryInstruments(pool, meter=reader.meter)
        for _ in range(2):
            pool.submit(calls.double, 1).result(timeout=20)
            assert come_to(reader.points, {"done": 1})["task.submitted", "name=default"] == 1
    reader.provider.shutdown()


def test_functions_are_told_apart_if_asked_for(reader):
    with PidfdPoolExecutor(1) as pool:
        OpenTelemetryInstruments(pool, meter=reader.meter, max_functions=1)
        for function, argument in ((calls.double, 1), (len, ""), (calls.double, 2)):
            pool.submit(function, argument).result(timeout=20)
        come_to(reader.points, {"name=tests.calls.double,done": 2, "name=other,done": 1}, "default")
        durations = {
            point.attributes["code.function.name"]: point.count
            for point in reader.metrics()["pidfdpool.task.duration"].data.data_points
        }
        assert durations == {"tests.calls.double": 2, "other": 1}


def test_several_pools_share_the_instruments_of_a_meter(reader, caplog):
    with PidfdPoolExecutor(1) as first, PidfdPoolExecutor(2) as second:
        OpenTelemetryInstruments(first, meter=reader.meter, name="first")
        instruments = OpenTelemetryInstruments(second, meter=reader.meter, name="second")
        with pytest.raises(ValueError, match="name 'first' is taken by another pool"):
            OpenTelemetryInstruments(second, meter=reader.meter, name="first")
        second.submit(calls.double, 1).result(timeout=20)
        seen = come_to(reader.points, {"done": 1}, "second")
        assert outcomes(seen, "first") == {}
        assert [seen["worker.max", f"name={name}"] for name in ("first", "second")] == [1, 2]
        instruments.close()
        instruments.close()
        assert outcomes(reader.points(), "first") == {}
    assert caplog.records == []


def test_an_unused_pool_is_shown_and_not_started(reader):
    with PidfdPoolExecutor(3) as pool:
        OpenTelemetryInstruments(pool, meter=reader.meter)
        assert reader.points()["worker.max", "name=default"] == 3
        assert pool.stats().state == "IDLE"


def test_a_pool_that_was_collected_is_gone():
    reader = Reader()
    pool = PidfdPoolExecutor(1)
    OpenTelemetryInstruments(pool, meter=reader.meter)
    assert reader.points()
    del pool
    gc.collect()
    counted = [metric for metric in reader.metrics().values() if metric.data.data_points]
    assert not [metric.name for metric in counted if metric.name == "pidfdpool.worker.max"]
    reader.provider.shutdown()


@pytest.mark.parametrize("meter", [5, "meter", MeterProvider], ids=str)
def test_what_is_no_meter_is_refused(meter):
    with PidfdPoolExecutor(1) as pool:
        with pytest.raises(TypeError, match="meter must be a Meter or None, not"):
            OpenTelemetryInstruments(pool, meter=meter)


def test_without_an_sdk_nothing_happens_and_little_is_kept():
    with PidfdPoolExecutor(1) as pool:
        instruments = OpenTelemetryInstruments(pool, meter=NoOpMeterProvider().get_meter("tests"))
        for future in [pool.submit(calls.double, number) for number in range(100)]:
            future.result(timeout=20)
        assert len(instruments._watched.counts.take_samples()) <= room.MOST_SAMPLES


def test_the_global_provider_may_be_set_later():
    code = """
        from opentelemetry import metrics
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        from pidfdpool import PidfdPoolExecutor
        from pidfdpool.metrics import OpenTelemetryInstruments

        if __name__ == "__main__":
            with PidfdPoolExecutor(1) as first, PidfdPoolExecutor(1) as second:
                OpenTelemetryInstruments(first, name="first")
                reader = InMemoryMetricReader()
                metrics.set_meter_provider(MeterProvider([reader]))
                OpenTelemetryInstruments(second, name="second")
                (of_all,) = reader.get_metrics_data().resource_metrics
                (scope,) = of_all.scope_metrics
                (found,) = [metric for metric in scope.metrics if metric.name == "pidfdpool.worker.max"]
                print(*sorted(point.attributes["pidfdpool.pool.name"] for point in found.data.data_points))
    """
    done = run_python(code)
    assert (done.stdout, done.stderr) == ("first second\n", "")


def test_a_forked_host_counts_what_its_own_pool_does(reader):
    with PidfdPoolExecutor(1) as pool:
        OpenTelemetryInstruments(pool, meter=reader.meter)
        pool.submit(calls.double, 1).result(timeout=20)

        def in_child():
            assert outcomes(reader.points()) == {}
            pool.submit(calls.double, 1).result(timeout=20)
            pool.submit(calls.double, 1).result(timeout=20)
            come_to(reader.points, {"done": 2})
            pool.shutdown()

        assert in_forked_child(in_child) == "ok"
        come_to(reader.points, {"done": 1})
