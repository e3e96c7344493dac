"""What metrics count, without a pool and without a library: batches, buckets, samples, names."""

from __future__ import annotations

import gc
import itertools
import math
import re
import signal

import pytest

from pidfdpool import Attempts, Cause, Death, PidfdPoolExecutor, WorkerChange, metrics
from pidfdpool.integrations.metrics import catalogue
from pidfdpool.integrations.metrics.swarm_catalogue import SWARMS
from pidfdpool.integrations.metrics.task_counts import OUTCOMES, Distribution, TaskCounts
from pidfdpool.integrations.metrics.watched_pool import DEFAULT_BUCKETS, WatchedPool, checked_buckets
from pidfdpool.integrations.metrics.watched_set import WatchedSet
from pidfdpool.pidfd import ExitStatus
from tests import calls
from tests.conditions import in_forked_child, run_python
from tests.house.pages import DOCS

BOUNDS = (0.001, 0.01, 0.1)


def attempts(*tried, retried=False, death=None):
    """Return attempts, each given as outcome, seconds of waiting and of running, and function."""
    tried = [(*one, "m.f")[:4] for one in tried]
    count = len(tried)
    return Attempts(
        (0, 1, 4711),
        range(1, count + 1),
        [function for *_, function in tried],
        (1,) * count,
        1,
        (100.0,) * count,
        [100.0 + wait for _, wait, *_ in tried],
        [100.0 + wait + run for _, wait, run, _ in tried],
        (10,) * count,
        (10,) * count,
        [outcome for outcome, *_ in tried],
        (None,) * count,
        200.0,
        retried,
        death,
    )


def death(cause=Cause.CRASH, **status):
    return Death(0, 1, 4711, cause, ExitStatus(**status), 1.0, 0)


def counts(max_functions=0, samples=0):
    return TaskCounts(BOUNDS, max_functions, samples)


class TestCounts:
    def test_every_outcome_is_there_from_the_start(self):
        tasks, waits, runs, deaths = counts().read()
        assert tasks == {(outcome, "", ""): 0 for outcome in OUTCOMES}
        assert waits == runs == {"": Distribution(BOUNDS, (0, 0, 0, 0), 0.0)}
        assert deaths == {}

    def test_a_batch_is_counted(self):
        counted = counts()
        counted.take([attempts(("done", 0.5, 0.25), ("done", 0.5, 0.25), ("failed", 0.5, 0.25)), object()])
        counted.take([attempts(("timed out", 0.0, 0.5))])
        tasks, waits, runs, _ = counted.read()
        assert {key: number for key, number in tasks.items() if number} == {
            ("done", "", ""): 2,
            ("failed", "", ""): 1,
            ("timed_out", "", ""): 1,
        }
        assert runs[""] == Distribution(BOUNDS, (0, 0, 0, 4), 1.25)
        assert waits[""] == Distribution(BOUNDS, (1, 0, 0, 3), 1.5)

    def test_what_never_began_has_no_times(self):
        counted = counts(samples=10)
        counted.take([attempts(("cancelled", math.nan, math.nan)), attempts(("done", 0.5, math.nan))])
        tasks, waits, runs, _ = counted.read()
        assert (tasks["cancelled", "", ""], tasks["done", "", ""]) == (1, 1)
        assert (sum(waits[""].counts), waits[""].total, sum(runs[""].counts)) == (1, 0.5, 0)
        assert [one[1:] for one in counted.take_samples()] == [(None, None), (0.5, None)]

    def test_an_attempt_that_is_tried_again_is_no_outcome_yet(self):
        counted = counts()
        counted.take([attempts(("crashed", 0.5, 0.5), retried=True), attempts(("done", 0.5, 0.5))])
        tasks, _, runs, _ = counted.read()
        assert (tasks["crashed", "", ""], tasks["done", "", ""], sum(runs[""].counts)) == (0, 1, 2)

    @pytest.mark.parametrize(
        ("number", "name"),
        [(signal.SIGSEGV, "SIGSEGV"), (signal.SIGRTMIN + 3, "SIGRTMIN+3"), (signal.SIGRTMAX, "SIGRTMAX")],
    )
    def test_signals_have_their_names(self, number, name):
        counted = counts()
        ended = death(signal=int(number))
        counted.take([attempts(("crashed", 0.0, 1.0), death=ended)])
        counted.take([WorkerChange(1.0, 0, 1, 4711, "ended", "", ended), WorkerChange(1.0, 0, 2, 4712, "ready")])
        tasks, _, _, deaths = counted.read()
        assert tasks["crashed", name, ""] == 1
        assert deaths == {("crash", name): 1}

    def test_a_worker_that_exits_has_no_signal(self):
        counted = counts()
        counted.take([WorkerChange(1.0, 0, 1, 1, "ended", "", death(Cause.TASKS, code=0)) for _ in range(3)])
        counted.take([WorkerChange(1.0, 0, 1, 1, "ended", "", death(Cause.SHUTDOWN, unknown=True))])
        assert counted.read()[3] == {("tasks", ""): 3, ("shutdown", ""): 1}

    def test_functions_are_told_apart_up_to_a_number(self):
        counted = counts(max_functions=2)
        batch = [("done", 0.5, 0.5, name) for name in ("m.a", "m.b", "m.c", "m.a", "m.d")]
        counted.take([attempts(*batch), attempts(("failed", 0.5, 0.5, "m.e"), ("done", 0.5, 0.5, "m.e"))])
        tasks, waits, runs, _ = counted.read()
        assert tasks == {
            ("done", "", "m.a"): 2,
            ("done", "", "m.b"): 1,
            ("done", "", "other"): 3,
            ("failed", "", "other"): 1,
        }
        assert {name: sum(one.counts) for name, one in runs.items()} == {"m.a": 2, "m.b": 1, "other": 4}
        assert waits.keys() == runs.keys()

    def test_a_name_that_is_no_text_is_shown_as_far_as_it_is(self):
        """Guards: one lone surrogate in any label, and nothing of the registry could be scraped any more."""
        counted = counts(max_functions=1)
        counted.take([attempts(("done", 0.5, 0.5, "m.\ud800x"))])
        counted.take([attempts(("done", 0.5, 0.5, "m.\ud800x"))])
        tasks, waits, runs, _ = counted.read()
        assert tasks == {("done", "", r"m.\ud800x"): 2}
        assert set(waits) == set(runs) == {r"m.\ud800x"}

    def test_a_forked_child_counts_from_zero_whoever_held_the_lock(self):
        counted = counts()
        counted.take([attempts(("done", 0.5, 0.5))])

        def count_there():
            assert counted.follows_into_forked_child()
            counted.take([attempts(("done", 0.5, 0.5), ("done", 0.5, 0.5))])
            assert counted.read()[0]["done", "", ""] == 2

        with counted._lock:
            assert in_forked_child(count_there) == "ok"
        assert counted.read()[0]["done", "", ""] == 1


class TestBuckets:
    @pytest.mark.parametrize(
        "values",
        [
            [0.0],
            [0.001],
            [0.0011],
            [5.0],
            [0.001, 0.01, 0.1],
            [0.1, 0.05, 0.01, 0.002, 9.0, 0.0005, 0.0005],
            [-0.1, 7],
        ],
    )
    def test_a_value_is_in_the_first_bucket_that_reaches_up_to_it(self, values):
        expected = [0, 0, 0, 0]
        for value in values:
            expected[next((at for at, bound in enumerate(BOUNDS) if value <= bound), 3)] += 1
        found = Distribution(BOUNDS, (1, 1, 1, 1), 2.0).plus(values, sum(values))
        assert found.counts == tuple(number + 1 for number in expected)
        assert found.total == pytest.approx(2.0 + sum(values))

    def test_infinity_is_there_in_any_case(self):
        assert checked_buckets([1, 2, math.inf]) == checked_buckets([1, 2]) == (1.0, 2.0)
        assert checked_buckets(DEFAULT_BUCKETS) == DEFAULT_BUCKETS

    @pytest.mark.parametrize("buckets", [[], [math.inf], [2, 1], [1, 1], [math.nan], [1, math.nan, 2]])
    def test_others_are_refused(self, buckets):
        with pytest.raises(ValueError, match=r"buckets must be ascending numbers of seconds, not \["):
            checked_buckets(buckets)

    @pytest.mark.parametrize("buckets", [None, 5, ["x"], [None]])
    def test_what_is_no_numbers_is_refused(self, buckets):
        with pytest.raises(TypeError, match="buckets must be ascending numbers"):
            checked_buckets(buckets)


class TestSamples:
    def test_few_are_all_there_and_are_taken_once(self):
        counted = counts(samples=8)
        counted.take([attempts(("done", 0.5, 0.25), ("failed", 0.5, 0.25))])
        assert counted.take_samples() == [("", 0.5, 0.25)] * 2
        assert counted.take_samples() == []

    def test_of_many_there_are_some_from_everywhere(self):
        counted = counts(samples=16)
        for first in range(0, 1000, 10):
            counted.take([attempts(*(("done", float(first + at), 0.5) for at in range(10)))])
        waits = [round(sample.wait) for sample in counted.take_samples()]
        steps = {later - earlier for earlier, later in itertools.pairwise(waits)}
        assert 8 <= len(waits) < 16
        assert steps == {128}
        assert (waits[0], waits[-1] >= 1000 - 128) == (0, True)
        assert sum(counted.read()[1][""].counts) == 1000

    def test_afterwards_all_are_taken_again(self):
        counted = counts(samples=4)
        counted.take([attempts(*[("done", 0.5, 0.25)] * 100)])
        counted.take_samples()
        counted.take([attempts(*[("done", 0.5, 0.25)] * 3)])
        assert len(counted.take_samples()) == 3

    def test_none_are_kept_unless_asked_for(self):
        counted = counts()
        counted.take([attempts(("done", 0.5, 0.25))])
        assert counted.take_samples() == []


class TestNames:
    def test_no_name_of_prometheus_is_taken_twice_by_its_suffixes(self):
        names = []
        for metric in catalogue.METRICS:
            family = metric.name.removesuffix("_total")
            assert metric.counts == (family != metric.name)
            names += [family, f"{family}_total", f"{family}_created"] if metric.counts else [family]
        for histogram in catalogue.HISTOGRAMS:
            assert histogram.name.endswith("_seconds")
            names += [histogram.name, *(f"{histogram.name}_{end}" for end in ("bucket", "sum", "count", "created"))]
        assert len(names) == len(set(names))

    def test_no_name_of_opentelemetry_is_the_beginning_of_another(self):
        names = [metric.dotted for metric in (*catalogue.METRICS, *catalogue.HISTOGRAMS)]
        assert len(names) == len(set(names))
        assert not [(one, other) for one in names for other in names if other.startswith(f"{one}.")]

    def test_every_label_has_an_attribute(self):
        for metric in catalogue.METRICS:
            assert len({catalogue.attribute(metric, label) for label in metric.labels}) == len(metric.labels)


class TestWatchedSet:
    def test_a_name_is_taken_while_its_pool_accepts_tasks(self):
        shown = WatchedSet("pool")
        with PidfdPoolExecutor(1) as first, PidfdPoolExecutor(1) as second:
            shown.add(WatchedPool(first, "a"))
            with pytest.raises(ValueError, match=r"name 'a' is taken by another pool.*0 of 1 workers busy"):
                shown.add(WatchedPool(second, "a"))
            shown.add(WatchedPool(second, "b"))
            first.submit(calls.double, 1).result()
            first.shutdown()
            shown.add(WatchedPool(first, "a"))
            assert sorted(shown.alive()) == ["a", "b"]

    def test_a_pool_is_not_kept_alive(self):
        shown = WatchedSet("pool")
        pool = PidfdPoolExecutor(1)
        shown.add(WatchedPool(pool, "a"))
        assert [reading.name for reading in shown.read()] == ["a"]
        assert pool.stats().state == "IDLE"
        del pool
        gc.collect()
        assert shown.read() == []
        assert shown.alive() == {}

    def test_what_is_closed_is_not_shown(self):
        shown = WatchedSet("pool")
        with PidfdPoolExecutor(1) as pool:
            watched = WatchedPool(pool, "a")
            shown.add(watched)
            watched.close()
            watched.close()
            assert (watched.read(), shown.read()) == (None, [])

    @pytest.mark.parametrize(
        ("given", "error", "message"),
        [
            ({"pool": 5}, TypeError, "pool must be a PidfdPoolExecutor, not 5"),
            ({"name": 5}, TypeError, "name must be a string, not 5"),
            ({"name": ""}, ValueError, "name must not be empty"),
            ({"max_functions": -1}, ValueError, "max_functions must be >= 0, not -1"),
            ({"max_functions": 1.5}, TypeError, "max_functions must be an integer, not 1.5"),
            ({"buckets": [2, 1]}, ValueError, "buckets must be ascending"),
        ],
        ids=str,
    )
    def test_arguments_that_make_no_sense_are_named(self, given, error, message):
        with PidfdPoolExecutor(1) as pool:
            with pytest.raises(error, match=message):
                WatchedPool(**{"pool": pool, "name": "a"} | given)

    def test_of_a_view_the_pool_is_asked_for(self):
        with PidfdPoolExecutor(1) as pool:
            with pytest.raises(TypeError, match="give the pool that it was made of"):
                WatchedPool(pool.options(timeout=5), "a")


class TestDoor:
    @pytest.mark.parametrize(
        ("name", "library", "extra"),
        [
            ("PrometheusCollector", "prometheus_client", "prometheus"),
            ("OpenTelemetryInstruments", "opentelemetry.metrics", "opentelemetry"),
        ],
    )
    def test_a_missing_library_is_named_with_the_extra_that_brings_it(self, name, library, extra):
        done = run_python(f"import sys; sys.modules[{library!r}] = None; from pidfdpool.metrics import {name}")
        assert rf"pidfdpool.metrics.{name} needs {extra}-" in done.stderr
        assert done.stderr.strip().endswith(f"pip install 'pidfdpool[{extra}]'")

    def test_the_door_itself_loads_neither_library_nor_pool(self):
        done = run_python("import sys, pidfdpool.metrics; print(*sorted(sys.modules), sep='\\n')")
        loaded = set(done.stdout.split())
        assert not loaded & {
            "prometheus_client",
            "opentelemetry",
            "pidfdpool.loop",
            "pidfdpool.integrations",
            "threading",
        }

    def test_other_names_are_not_there(self):
        with pytest.raises(AttributeError, match="no_such_name"):
            metrics.no_such_name  # noqa: B018
        assert set(metrics.__all__) <= set(dir(metrics))


class TestPage:
    PAGE = (DOCS / "metrics.md").read_text()

    def test_it_lists_every_metric_with_its_type_unit_and_labels(self):
        cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in self.PAGE.split("\n")]
        told = {row[0]: row[1:5] for row in cells if row and row[0].startswith("`pidfdpool_")}
        assert told == {
            f"`pidfdpool_{metric.name}`": [
                f"`{metric.dotted}`",
                "counter" if metric.counts else "gauge, up-down counter" if metric.adds_up else "gauge",
                metric.unit,
                ", ".join(f"`{label}`" for label in metric.labels),
            ]
            for metric in (*catalogue.METRICS, *SWARMS.metrics)
        } | {
            f"`pidfdpool_{histogram.name}`": [f"`{histogram.dotted}`", "histogram", "s", "`function`"]
            for histogram in catalogue.HISTOGRAMS
        }

    def test_it_lists_every_label_and_outcome(self):
        for name in (*catalogue.ATTRIBUTES.values(), *OUTCOMES):
            assert f"`{name}`" in self.PAGE

    def test_its_queries_use_metrics_that_there_are(self):
        known = {f"pidfdpool_{metric.name}" for metric in (*catalogue.METRICS, *SWARMS.metrics)}
        known |= {f"pidfdpool_{histogram.name}{end}" for histogram in catalogue.HISTOGRAMS for end in ("", "_bucket")}
        used = set(re.findall(r"\bpidfdpool_[a-z_]+", self.PAGE))
        assert used == known
