"""Pools in prometheus-client: scraped from its own HTTP endpoint and read by its own parser."""

from __future__ import annotations

import gc
import os
import re
import signal
import threading
import urllib.request

import pytest

pytest.importorskip("prometheus_client")

from prometheus_client import CollectorRegistry, Counter, generate_latest, start_http_server
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from pidfdpool import PidfdPoolExecutor, TaskKilled, TaskTimeout, WorkerCrashed
from pidfdpool.metrics import PrometheusCollector
from pidfdpool.pidfd import Pidfd
from tests import calls, conditions
from tests.conditions import eventually, in_forked_child


@pytest.fixture
def registry():
    return CollectorRegistry()


@pytest.fixture
def scrape(registry):
    """Give a function that scrapes the registry's endpoint, and returns the value of each sample by its text."""
    server, thread = start_http_server(0, "127.0.0.1", registry)

    def look(query=""):
        url = f"http://127.0.0.1:{server.server_port}/metrics{query}"
        with urllib.request.urlopen(url, timeout=20) as response:
            return samples(response.read().decode())

    yield look
    server.shutdown()
    server.server_close()
    thread.join()


def samples(text):
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()) if value)
            assert (sample.name, labels) not in found
            found[sample.name, labels] = sample.value
    return found


def values(registry):
    return samples(generate_latest(registry).decode())


def counters(found):
    return {key: value for key, value in found.items() if re.search("_(total|bucket|count|sum)$", key[0])}


def outcomes(found, pool="default"):
    """Return how many tasks had each outcome, those that none had left out."""
    return {
        labels.replace(f",pool={pool}", "").replace("outcome=", "").replace("signal=", ""): value
        for (name, labels), value in found.items()
        if name == "pidfdpool_tasks_total" and f"pool={pool}" in labels and value
    }


def come_to(look, expected, pool="default"):
    """Wait until scraping gives these outcomes, and return all that it gives then.

    Another thread of the pool's may be about to count them.
    """
    return conditions.come_to(look, lambda seen: outcomes(seen, pool), expected)


def test_everything_that_can_become_of_a_task_is_scraped(registry, scrape, way, tmp_path, sure_of_deaths):
    with PidfdPoolExecutor(1, mp_context=way, retry_backoff=0.0) as pool:
        PrometheusCollector(pool, registry=registry)
        for _ in range(3):
            pool.submit(calls.double, 1).result(timeout=20)
        assert isinstance(pool.submit(calls.raise_it, KeyError(1)).exception(timeout=20), KeyError)
        assert isinstance(pool.submit(calls.die, signal.SIGSEGV).exception(timeout=20), WorkerCrashed)
        assert isinstance(pool.submit(calls.die).exception(timeout=20), WorkerCrashed)
        assert isinstance(pool.submit(calls.leave, 3).exception(timeout=20), WorkerCrashed)
        hanging = pool.options(timeout=0.05, grace=0.0).submit(calls.sleep, 60)
        timed_out = hanging.exception(timeout=20)
        assert isinstance(timed_out, TaskTimeout)
        # A worker that gets no processor between the two signals of its end dies of the second.
        by = signal.Signals(timed_out.exit_status.signal).name
        path = tmp_path / "begun"
        killed, cancelled = pool.submit(calls.touch_and, str(path), "sleep"), pool.submit(calls.double, 1)
        eventually(path.exists, "it runs")
        seen = scrape()
        assert seen["pidfdpool_tasks_pending", "pool=default,state=running"] == 1
        assert seen["pidfdpool_tasks_pending", "pool=default,state=queued"] == 1
        assert seen["pidfdpool_workers", "pool=default,state=busy"] == 1
        assert seen["pidfdpool_worker_memory_bytes", "pool=default"] > 1_000_000
        assert cancelled.cancel()
        assert killed.kill()
        assert isinstance(killed.exception(timeout=20), TaskKilled)
        pool.options(retries=2).submit(calls.fail_until, str(tmp_path / "failed"), 3, "crash").result(timeout=20)
        expected = {"done": 4, "failed": 1, "cancelled": 1, "killed,SIGKILL": 1, f"timed_out,{by}": 1, "crashed": 1}
        seen = come_to(scrape, expected | {"crashed,SIGSEGV": 1, "crashed,SIGKILL": 1})
        assert seen["pidfdpool_tasks_submitted_total", "pool=default"] == 11
        assert seen["pidfdpool_task_retries_total", "pool=default"] == 2
        assert seen["pidfdpool_worker_restarts_total", "pool=default"] == 7
        assert seen["pidfdpool_worker_deaths_total", "pool=default,reason=crash,signal=SIGSEGV"] == 1
        assert seen["pidfdpool_worker_deaths_total", f"pool=default,reason=timeout,signal={by}"] == 1
        assert seen["pidfdpool_worker_deaths_total", "pool=default,reason=kill,signal=SIGKILL"] == 1
        assert seen["pidfdpool_task_duration_seconds_count", "pool=default"] == 12
        assert seen["pidfdpool_workers_max", "pool=default"] == 1
        assert seen["pidfdpool_broken", "pool=default"] == 0
    last = scrape()
    assert outcomes(last) == outcomes(seen)
    assert sum(last["pidfdpool_workers", f"pool=default,state={state}"] for state in ("idle", "busy")) == 0
    assert all(last[key] >= value for key, value in counters(seen).items())


def test_durations_and_waiting_are_told_apart(registry, scrape):
    with PidfdPoolExecutor(1) as pool:
        PrometheusCollector(pool, registry=registry, buckets=[0.2, 20])
        pool.prestart()
        futures = [pool.submit(calls.sleep, 0.3), pool.submit(calls.sleep, 0)]
        for future in futures:
            future.result(timeout=20)
        seen = come_to(scrape, {"done": 2})
    buckets = [
        [seen[f"pidfdpool_task_{what}_seconds_bucket", f"le={le},pool=default"] for le in ("0.2", "20.0", "+Inf")]
        for what in ("duration", "queue")
    ]
    assert buckets == [[1, 2, 2], [1, 2, 2]]
    assert seen["pidfdpool_task_duration_seconds_sum", "pool=default"] > 0.3
    assert 0.3 < seen["pidfdpool_task_queue_seconds_sum", "pool=default"] < 20


def test_functions_are_told_apart_if_asked_for(registry):
    with PidfdPoolExecutor(1) as pool:
        PrometheusCollector(pool, registry=registry, max_functions=2)
        for function, argument in ((calls.double, 1), (len, ""), (abs, 1), (calls.double, 2)):
            pool.submit(function, argument).result(timeout=20)
        names = {"function=tests.calls.double,done": 2, "function=builtins.len,done": 1, "function=other,done": 1}
        seen = come_to(lambda: values(registry), names)
        assert seen["pidfdpool_task_duration_seconds_count", "function=tests.calls.double,pool=default"] == 2


def test_calls_of_maps_are_counted_as_the_tasks_that_they_travel_in(registry):
    with PidfdPoolExecutor(1) as pool:
        PrometheusCollector(pool, registry=registry)
        assert len(list(pool.map(calls.double, range(100), chunksize=10))) == 100
        seen = come_to(lambda: values(registry), {"done": 10})
        assert seen["pidfdpool_tasks_submitted_total", "pool=default"] == 10


def test_segments_and_templates_are_scraped(registry):
    with PidfdPoolExecutor(1) as pool:
        PrometheusCollector(pool, registry=registry)
        pool.submit(len, bytes(1 << 20)).result(timeout=20)
        with Pidfd.open(pool.submit(os.getppid).result(timeout=20)) as template:
            template.send_signal(signal.SIGKILL)
        eventually(lambda: pool.stats().deaths, "the worker has died with its template")
        pool.submit(calls.double, 1).result(timeout=20)
        seen = values(registry)
        assert seen["pidfdpool_template_restarts_total", "pool=default"] == 1
        assert seen["pidfdpool_segments", "pool=default"] == 1
        assert seen["pidfdpool_segments_bytes", "pool=default"] >= 1 << 20


def test_several_pools_are_told_apart_by_name(registry):
    with PidfdPoolExecutor(1) as first, PidfdPoolExecutor(2) as second:
        PrometheusCollector(first, registry=registry, name="first")
        collector = PrometheusCollector(second, registry=registry, name="second")
        first.submit(calls.double, 1).result(timeout=20)
        seen = come_to(lambda: values(registry), {"done": 1}, "first")
        text = generate_latest(registry).decode()
        assert text.count("# TYPE pidfdpool_workers gauge") == 1
        assert outcomes(seen, "second") == {}
        assert [seen["pidfdpool_workers_max", f"pool={name}"] for name in ("first", "second")] == [1, 2]
        collector.close()
        collector.close()
        assert ("pidfdpool_workers_max", "pool=second") not in values(registry)


def test_a_name_clash_is_an_error_that_names_it_and_changes_nothing(registry):
    with PidfdPoolExecutor(1) as first, PidfdPoolExecutor(1) as second:
        collector = PrometheusCollector(first, registry=registry, name="render")
        with pytest.raises(ValueError, match="name 'render' is taken by another pool"):
            PrometheusCollector(second, registry=registry, name="render")
        second.submit(calls.double, 1).result(timeout=20)
        assert outcomes(values(registry), "render") == {}
        collector.close()
        PrometheusCollector(second, registry=registry, name="render")
        second.submit(calls.double, 1).result(timeout=20)
        come_to(lambda: values(registry), {"done": 1}, "render")


def test_metrics_of_others_with_these_names_are_an_error_that_names_them(registry):
    Counter("pidfdpool_tasks", "somebody else's", registry=registry)
    with PidfdPoolExecutor(1) as pool:
        with pytest.raises(ValueError, match="namespace 'pidfdpool' is taken.*pidfdpool_tasks_total"):
            PrometheusCollector(pool, registry=registry)
        PrometheusCollector(pool, registry=registry, namespace="app_pool")
        assert values(registry)["app_pool_workers_max", "pool=default"] == 1


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"namespace": "a-b"}, ValueError, "namespace must be letters.*not 'a-b'"),
        ({"namespace": 5}, ValueError, "namespace must be letters.*not 5"),
        ({"name": "a\ud800"}, ValueError, r"name must be text that UTF-8 can encode, not 'a\\ud800'"),
        ({"pool": PidfdPoolExecutor}, TypeError, "pool must be a PidfdPoolExecutor, not <class"),
        ({"registry": 5}, TypeError, "registry must be a CollectorRegistry or None, not 5"),
    ],
    ids=ascii,
)
def test_arguments_that_make_no_sense_are_named(given, error, message):
    with PidfdPoolExecutor(1) as pool:
        with pytest.raises(error, match=message):
            PrometheusCollector(**{"pool": pool, **given})


def test_a_collector_can_be_registered_by_hand(registry):
    with PidfdPoolExecutor(1) as pool:
        collector = PrometheusCollector(pool, registry=None)
        assert values(registry) == {}
        registry.register(collector)
        with pytest.raises(ValueError, match="Duplicated"):
            registry.register(PrometheusCollector(pool, registry=None))
        pool.submit(calls.double, 1).result(timeout=20)
        come_to(lambda: values(registry), {"done": 1})
        registry.unregister(collector)
        assert values(registry) == {}


def test_unregistering_a_collector_ends_it_and_no_other(registry):
    with PidfdPoolExecutor(1) as first, PidfdPoolExecutor(1) as second:
        collectors = [
            PrometheusCollector(pool, registry=registry, name=name)
            for pool, name in ((first, "first"), (second, "second"))
        ]
        registry.unregister(collectors[0])
        assert {labels for _, labels in values(registry) if "first" in labels} == set()
        assert ("pidfdpool_workers_max", "pool=second") in values(registry)
        assert first._own.observers == []
        assert len(second._own.observers) == 1
        with pytest.raises(KeyError):
            registry.unregister(collectors[0])
        collectors[0].close()
        collectors[1].close()
        assert list(registry._collector_to_names) == []


def test_a_name_is_free_again_when_its_collector_is_unregistered_or_closed(registry):
    with PidfdPoolExecutor(1) as pool:
        for end in (registry.unregister, PrometheusCollector.close) * 2:
            collector = PrometheusCollector(pool, registry=registry)
            assert ("pidfdpool_workers_max", "pool=default") in values(registry)
            end(collector)
        assert values(registry) == {}
        assert pool._own.observers == []
        assert list(registry._collector_to_names) == []


def test_a_name_is_free_though_a_scrape_that_goes_on_has_the_collector_yet(registry):
    with PidfdPoolExecutor(1) as pool:
        collector = PrometheusCollector(pool, registry=registry)
        scrape = registry.collect()
        next(scrape)
        registry.unregister(collector)
        again = PrometheusCollector(pool, registry=registry)
        with pytest.raises(ValueError, match="name 'default' is taken"):
            PrometheusCollector(pool, registry=registry)
        assert len(list(scrape)) > 5
        assert len(pool._own.observers) == 1
        assert ("pidfdpool_workers_max", "pool=default") in values(registry)
        registry.unregister(again)
        assert values(registry) == {}


def test_a_registry_that_asks_collectors_without_names_shows_each_metric_once():
    registry = CollectorRegistry(auto_describe=True, support_collectors_without_names=True)
    with PidfdPoolExecutor(1) as pool:
        PrometheusCollector(pool, registry=registry)
        restricted = registry.restricted_registry(["pidfdpool_workers_max"])
        assert list(values(restricted)) == [("pidfdpool_workers_max", "pool=default")]


def test_openmetrics_parses_and_one_metric_can_be_asked_for(registry, scrape):
    with PidfdPoolExecutor(1) as pool:
        PrometheusCollector(pool, registry=registry)
        PrometheusCollector(pool, registry=registry, name="again", max_functions=1)
        pool.submit(calls.double, 1).result(timeout=20)
        names = [family.name for family in parse_openmetrics(generate_openmetrics(registry).decode())]
        assert len(names) == len(set(names))
        assert "pidfdpool_tasks" in names
        assert {name for name, _ in scrape("?name[]=pidfdpool_workers_max")} == {"pidfdpool_workers_max"}


def test_an_unused_pool_is_shown_and_not_started(registry, scrape):
    with PidfdPoolExecutor(3) as pool:
        PrometheusCollector(pool, registry=registry)
        threads = threading.active_count()
        seen = scrape()
        assert seen["pidfdpool_workers_max", "pool=default"] == 3
        assert seen["pidfdpool_tasks_total", "outcome=done,pool=default"] == 0
        assert pool.stats().state == "IDLE"
        assert threading.active_count() <= threads + 1  # the endpoint's own


def test_a_broken_pool_says_so(registry):
    with PidfdPoolExecutor(1, on_crash="break") as pool:
        PrometheusCollector(pool, registry=registry)
        pool.submit(calls.die).exception(timeout=20)
        seen = come_to(lambda: values(registry), {"crashed,SIGKILL": 1})
        assert seen["pidfdpool_broken", "pool=default"] == 1


def test_a_pool_that_was_collected_is_gone_and_its_name_free(registry):
    pool = PidfdPoolExecutor(1)
    PrometheusCollector(pool, registry=registry)
    pool.submit(calls.double, 1).result(timeout=20)
    pool.shutdown()
    come_to(lambda: values(registry), {"done": 1})
    del pool
    gc.collect()
    assert values(registry) == {}
    with PidfdPoolExecutor(1) as pool:
        PrometheusCollector(pool, registry=registry)
        assert outcomes(values(registry)) == {}


def test_a_registry_that_was_emptied_shows_pools_again(registry):
    with PidfdPoolExecutor(1) as first, PidfdPoolExecutor(1) as second:
        PrometheusCollector(first, registry=registry, name="first")
        for collector in list(registry._collector_to_names):
            registry.unregister(collector)
        PrometheusCollector(second, registry=registry, name="second")
        assert ("pidfdpool_workers_max", "pool=second") in values(registry)


def test_a_collector_holds_neither_pool_nor_registry():
    import weakref

    registry = CollectorRegistry()
    pool = PidfdPoolExecutor(1)
    collector = PrometheusCollector(pool, registry=registry)
    pools, registries = weakref.ref(pool), weakref.ref(registry)
    del pool, registry
    gc.collect()
    assert pools() is None
    collector.close()
    del collector
    gc.collect()
    assert registries() is None


def test_a_forked_host_scrapes_its_own_pool(registry):
    """As a server that forks: parent and child have copies of the registry, and each a pool of its own."""
    with PidfdPoolExecutor(1) as pool:
        PrometheusCollector(pool, registry=registry)
        for _ in range(3):
            pool.submit(calls.double, 1).result(timeout=20)
        stop = threading.Event()

        def scrape_on():
            while not stop.is_set():
                values(registry)

        thread = threading.Thread(target=scrape_on)
        thread.start()

        def in_child():
            registry._lock = threading.Lock()  # the library does not renew it; a server forks when nobody scrapes
            assert outcomes(values(registry)) == {}
            assert pool.submit(calls.double, 1).result(timeout=20) == 2
            come_to(lambda: values(registry), {"done": 1})
            second = PidfdPoolExecutor(1)
            PrometheusCollector(second, registry=registry, name="second")
            assert ("pidfdpool_workers_max", "pool=second") in values(registry)
            pool.shutdown()

        try:
            reports = [in_forked_child(in_child) for _ in range(3)]
        finally:
            stop.set()
            thread.join()
        assert reports == ["ok"] * 3
        come_to(lambda: values(registry), {"done": 3})


@pytest.mark.many_times
def test_scraping_all_the_time_disturbs_nobody(registry, tmp_path):
    """Counters never go down, and histograms have as many values as there were attempts."""
    wrong, looks, stop = [], [0], threading.Event()

    def look():
        before = {}
        try:
            while not stop.is_set():
                seen = counters(values(registry))
                wrong.extend(
                    (key, value, seen.get(key)) for key, value in before.items() if seen.get(key, -1) < value
                )
                before = seen
                looks[0] += 1
        except BaseException as error:
            wrong.append(error)

    with PidfdPoolExecutor(2, max_tasks_per_child=50, retry_backoff=0.0) as pool:
        PrometheusCollector(pool, registry=registry)
        threads = [threading.Thread(target=look) for _ in range(2)]
        for thread in threads:
            thread.start()
        for round_ in range(4):
            futures = [pool.submit(calls.double, number) for number in range(200)]
            futures.append(pool.submit(calls.die))
            futures.append(pool.options(retries=1).submit(calls.fail_until, str(tmp_path / str(round_)), 2, "crash"))
            for future in futures:
                future.exception(timeout=20)
        eventually(lambda: looks[0] > 4, "it was scraped")
        stop.set()
        for thread in threads:
            thread.join()
        seen = come_to(lambda: values(registry), {"done": 804, "crashed,SIGKILL": 4})
    assert wrong == []
    assert seen["pidfdpool_task_duration_seconds_count", "pool=default"] == 812


def test_a_signal_handler_may_scrape(registry):
    """Wherever it interrupts the main thread, which reads answers itself when it waits for a result."""
    seen = []

    def on_alarm(*_):
        seen.append(outcomes(values(registry)))
        signal.setitimer(signal.ITIMER_REAL, 0.002)  # not before: the library's own lock is not reentrant

    before = signal.signal(signal.SIGALRM, on_alarm)
    try:
        with PidfdPoolExecutor(1) as pool:
            PrometheusCollector(pool, registry=registry)
            signal.setitimer(signal.ITIMER_REAL, 0.002)
            for _ in range(20):
                for future in [pool.submit(calls.double, number) for number in range(50)]:
                    future.result(timeout=20)
            eventually(lambda: len(seen) > 20, "it has scraped")
            signal.setitimer(signal.ITIMER_REAL, 0)
            come_to(lambda: values(registry), {"done": 1000})
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
