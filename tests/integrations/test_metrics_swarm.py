"""Metrics of swarms: counted without a process, scraped by Prometheus, and read by OpenTelemetry's SDK."""

from __future__ import annotations

import gc
import os
import signal
import urllib.request
import weakref

import pytest

from pidfdpool.integrations.metrics.swarm_catalogue import SWARMS
from pidfdpool.integrations.metrics.watched_swarm import WatchedSwarm
from pidfdpool.swarm import EventKind, NodeState, Swarm
from tests.conditions import eventually, in_forked_child
from tests.house.pages import DOCS
from tests.swarm import nodes
from tests.swarm.swarms import QUICK, pid_of, saw, swarm_of


def crash_until_attempt(node, attempt):
    """Crash in the attempts before that one, then serve."""
    if node.attempt < attempt:
        node.healthy()
        os.kill(os.getpid(), signal.SIGSEGV)
    nodes.serve(node)


def numbers(reading):
    """Return every value of a reading by the metric's name, and by its labels where it has some."""
    return {
        metric.name: dict(found) if metric.labels else [number for _, number in found]
        for metric in SWARMS.metrics
        for found in [list(metric.values(reading))]
    }


def values_of(labels):
    """Return the values of labels, in the order of the labels' names."""
    return tuple(value for _, value in sorted(labels.items()))


class TestWatchedSwarm:
    def test_a_swarm_that_is_not_started_has_zeros_and_stays_so(self):
        swarm = Swarm(nodes.serve, 2)
        watched = WatchedSwarm(swarm, None)
        found = numbers(watched.read())
        assert watched.name == "serve"
        assert found["nodes"] == {(state.name.lower(),): 0 for state in NodeState}
        assert found["node_starts_total"] == found["node_memory_bytes"] == found["nodes_given_up_total"] == [0]
        assert found["node_deaths_total"] == {}
        assert found["node_report_age_seconds"] == []
        assert swarm.status().phase.value == "NEW"

    def test_an_unused_swarm_is_not_kept_alive(self):
        swarm = Swarm(nodes.serve)
        watched, reference = WatchedSwarm(swarm, None), weakref.ref(swarm)
        del swarm
        gc.collect()
        assert reference() is None
        assert (watched.read(), watched.is_alive, watched.is_in_use) == (None, False, False)

    def test_a_running_swarm_that_nobody_refers_to_is_shown_until_it_ends(self):
        watched = WatchedSwarm(swarm := Swarm(nodes.end_at_once, 1, **QUICK), None)
        reference = weakref.ref(swarm.start())
        del swarm
        gc.collect()
        assert reference() is not None
        found = eventually(
            lambda: seen if (seen := numbers(watched.read()))["nodes"]["done",] else None, "its node is done"
        )
        assert found["node_deaths_total"] == {("unasked", ""): 1}
        assert reference().wait(20)
        assert eventually(lambda: (gc.collect(), reference() is None)[1], "it is let go of")
        assert watched.read() is None

    def test_a_node_that_is_given_up_is_counted(self):
        swarm = Swarm(nodes.fail_at_once, 1, **{**QUICK, "restart_pause": 0.01}, intensity=1)
        watched = WatchedSwarm(swarm, "x")
        with swarm:
            assert swarm.wait(20)
        found = numbers(watched.read())
        assert found["nodes"]["gave_up",] == found["nodes_given_up_total"][0] == 1
        assert (found["node_starts_total"], found["node_restarts_total"]) == ([2], [1])
        assert found["node_deaths_total"] == {("unasked", ""): 2}
        assert not watched.is_in_use

    def test_what_is_closed_counts_no_more(self):
        watched = WatchedSwarm(swarm := Swarm(nodes.end_at_once, 1, **QUICK), None)
        watched.close()
        watched.close()
        with swarm:
            assert swarm.wait(20)
        assert watched.read() is None

    def test_a_forked_child_does_not_show_it(self):
        with swarm_of(nodes.serve) as swarm:
            watched = WatchedSwarm(swarm, None)

            def look():
                assert watched.read() is None
                assert not watched.is_in_use

            assert in_forked_child(look) == "ok"
            assert watched.read() is not None

    @pytest.mark.parametrize(
        ("given", "error", "message"),
        [
            ({"swarm": 5}, TypeError, "swarm must be a Swarm, not 5"),
            ({"name": 5}, TypeError, "name must be a string, not 5"),
            ({"name": ""}, ValueError, "name must not be empty"),
        ],
        ids=str,
    )
    def test_arguments_that_make_no_sense_are_named(self, given, error, message):
        with pytest.raises(error, match=message):
            WatchedSwarm(**{"swarm": Swarm(nodes.serve), "name": "a"} | given)


def test_prometheus_scrapes_what_happens_to_nodes():
    pytest.importorskip("prometheus_client")
    from prometheus_client import CollectorRegistry, start_http_server
    from prometheus_client.parser import text_string_to_metric_families

    from pidfdpool.metrics import PrometheusSwarmCollector

    registry = CollectorRegistry()
    server, thread = start_http_server(0, "127.0.0.1", registry)

    def scrape():
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/metrics", timeout=20) as response:
            families = text_string_to_metric_families(response.read().decode())
        return {
            (sample.name.removeprefix("pidfdpool_"), *values_of(sample.labels)): sample.value
            for family in families
            for sample in family.samples
        }

    try:
        with swarm_of(nodes.ignore_everything, 2, name="mail", stop_timeout=0.05) as swarm:
            collector = PrometheusSwarmCollector(swarm, registry=registry)
            pid_of(swarm)
            seen = eventually(
                lambda: seen if (seen := scrape())["nodes", "healthy", "mail"] == 2 else None, "2 nodes"
            )
            assert seen["nodes", "waiting", "mail"] == 0
            assert seen["node_memory_bytes", "mail"] > 2_000_000
            assert 0 <= seen["node_report_age_seconds", "mail"] < 600
            with pytest.raises(ValueError, match="name 'mail' is taken by another swarm here"):
                PrometheusSwarmCollector(swarm, registry=registry)
            swarm.signal(signal.SIGKILL, node=1)
            saw(swarm, EventKind.RESTARTED, 1)
            eventually(lambda: scrape()["nodes", "healthy", "mail"] == 2, "both ignore what they are told")
        last = scrape()
        assert last["node_deaths_total", "unasked", "SIGKILL", "mail"] == 1
        assert last["node_deaths_total", "shutdown", "SIGKILL", "mail"] == last["node_kills_total", "mail"] == 2
        assert last["node_restarts_total", "mail"] == 1
        assert last["nodes", "stopped", "mail"] == 2
        assert last["node_memory_bytes", "mail"] == 0
        collector.close()
        assert scrape() == {}
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_opentelemetry_reads_what_happens_to_nodes():
    pytest.importorskip("opentelemetry.sdk.metrics")
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import Gauge, InMemoryMetricReader

    from pidfdpool.metrics import OpenTelemetrySwarmInstruments

    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])

    def read():
        data = reader.get_metrics_data()
        return {metric.name: metric for scope in data.resource_metrics[0].scope_metrics for metric in scope.metrics}

    def points(found, name):
        return {values_of(point.attributes): point.value for point in found[f"pidfdpool.{name}"].data.data_points}

    with swarm_of(crash_until_attempt, 1, args=(2,), name="mail") as swarm:
        instruments = OpenTelemetrySwarmInstruments(swarm, meter=provider.get_meter("tests"))
        with pytest.raises(ValueError, match="name 'mail' is taken by another swarm here"):
            OpenTelemetrySwarmInstruments(swarm, meter=provider.get_meter("tests"))
        saw(swarm, EventKind.HEALTHY, times=2)
        found = eventually(
            lambda: seen if points(seen := read(), "node.count")["healthy", "mail"] == 1 else None, "it is healthy"
        )
        assert {name: metric.unit for name, metric in found.items()} == {
            metric.dotted: metric.unit for metric in SWARMS.metrics
        }
        assert points(found, "node.deaths") == {("unasked", "SIGSEGV", "mail"): 1}
        assert points(found, "node.restarts") == {("mail",): 1}
        assert isinstance(found["pidfdpool.node.report.age"].data, Gauge)
        instruments.close()
        assert reader.get_metrics_data() is None
    provider.shutdown()


class TestPage:
    PAGE = (DOCS / "metrics.md").read_text()

    def test_it_lists_every_state_and_reason(self):
        for name in (
            "pidfdpool.swarm.name",
            "pidfdpool.node.death.reason",
            *(state.name.lower() for state in NodeState),
        ):
            assert f"`{name}`" in self.PAGE
