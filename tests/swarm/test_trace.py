"""The trace of a swarm: its events without a process, the file of one that runs, and the report's page of it."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import os
import signal
import threading

import pytest

from pidfdpool.cli import report
from pidfdpool.cli.report import reading
from pidfdpool.cli.report.analysis import analyse
from pidfdpool.executor.tracing.lines import EventLines
from pidfdpool.pidfd import ExitStatus
from pidfdpool.swarm import EventKind, NodeDeath, NodeEvent, NodeState, NodeStatus, Reason, Swarm
from pidfdpool.swarm.trace_events import SwarmTraceEvents
from tests.conditions import in_forked_child
from tests.swarm import nodes
from tests.swarm.swarms import pid_of, saw, swarm_of

BEGAN = 1000.0


class Told:
    """The events of a trace that is told what happens to node 0, at seconds since the trace began."""

    def __init__(self, *present):
        self.made = SwarmTraceEvents(EventLines(BEGAN, 7), "serve", BEGAN)
        self.lines = self.made.present(present)

    def happens(self, kind, at, attempt=1, reason=None, **status):
        death = None
        if status:
            death = NodeDeath(0, attempt, 50 + attempt, reason, ExitStatus(**status), 1.0, was_healthy=True)
        event = NodeEvent(kind, 0, attempt, 50 + attempt, BEGAN + at, reason=reason, death=death)
        self.lines += self.made.of(event)

    def dies(self, at, attempt=1, reason=Reason.UNASKED, **status):
        self.happens(EventKind.DIED, at, attempt, reason, **status)

    def spans(self):
        """Return category, attempt, begin, end and outcome of each span, in seconds."""
        found = [event for line in self.lines if (event := json.loads(line))["ph"] == "X"]
        return [
            (
                span["cat"],
                span["args"].get("attempt", span["args"].get("generation")),
                span["ts"] / 1e6,
                (span["ts"] + span["dur"]) / 1e6,
                span["args"].get("outcome"),
            )
            for span in found
        ]

    def instants(self):
        return [(event["cat"], event["name"]) for line in self.lines if (event := json.loads(line))["ph"] == "i"]


class TestEvents:
    def test_a_life_is_its_start_and_the_time_until_its_death(self):
        told = Told()
        told.happens(EventKind.STARTED, 1)
        told.happens(EventKind.HEALTHY, 3)
        told.dies(7, signal=signal.SIGSEGV)
        told.happens(EventKind.RESTARTED, 8, 2)
        told.happens(EventKind.HEALTHY, 9, 2)
        told.lines += told.made.finish(BEGAN + 12)
        assert told.spans() == [
            ("start", 1, 1, 3, None),
            ("node", 1, 3, 7, "crashed"),
            ("start", 2, 8, 9, None),
            ("node", 2, 9, 12, "done"),
        ]
        assert [kind for kind, _ in told.instants()] == ["node", "node", "death", "node", "node"]

    def test_one_that_was_never_healthy_has_only_started(self):
        told = Told()
        told.happens(EventKind.STARTED, 1)
        told.dies(3, code=1)
        assert told.spans() == [("start", 1, 1, 3, None)]

    def test_what_is_replaced_with_overlap_ends_where_its_replacement_is_healthy(self):
        told = Told()
        told.happens(EventKind.STARTED, 0)
        told.happens(EventKind.HEALTHY, 1)
        told.happens(EventKind.RESTARTED, 2, 2)
        told.happens(EventKind.HEALTHY, 4, 2)
        told.dies(6, 1, Reason.RESTART, code=0)
        assert told.spans()[1:] == [("start", 2, 2, 4, None), ("node", 1, 1, 4, "done")]

    def test_what_was_there_before_the_trace_began_is_in_it(self):
        told = Told(
            NodeStatus(0, NodeState.HEALTHY, 3, 53),
            NodeStatus(1, NodeState.STARTING, 1, 61),
            NodeStatus(2, NodeState.WAITING, 4),
        )
        told.happens(EventKind.HEALTHY, 1, 3)  # the news came late
        told.lines += told.made.finish(BEGAN + 2)
        assert told.spans() == [("node", 3, 0, 2, "done"), ("start", 1, 0, 2, None)]

    def test_a_clock_that_is_set_back_makes_no_negative_times(self):
        told = Told()
        told.happens(EventKind.STARTED, 5)
        told.happens(EventKind.HEALTHY, -100)
        told.dies(4, code=0)
        assert told.spans() == [("start", 1, 5, 5, None), ("node", 1, 5, 5, "done")]

    @pytest.mark.parametrize(
        ("reason", "status", "outcome"),
        [
            (Reason.UNASKED, {"code": 0}, "done"),
            (Reason.UNASKED, {"code": 3}, "failed"),
            (Reason.UNASKED, {"signal": signal.SIGKILL}, "crashed"),
            (Reason.SHUTDOWN, {"signal": signal.SIGKILL}, "done"),
            (Reason.SILENT, {"signal": signal.SIGKILL}, "timed out"),
            (Reason.UNHEALTHY, {"code": 0}, "failed"),
        ],
    )
    def test_a_life_has_the_outcome_of_its_death(self, reason, status, outcome):
        told = Told(NodeStatus(0, NodeState.HEALTHY, 1, 51))
        told.dies(1, 1, reason, **status)
        assert [span[-1] for span in told.spans()] == [outcome]


def events_of(path):
    return json.loads(path.read_text())


def test_the_file_tells_what_has_happened_and_the_report_opens_it(tmp_path):
    path, page = tmp_path / "run.json", tmp_path / "run.html"
    with swarm_of(nodes.serve, 2, name="mail") as swarm:
        with swarm.trace(path) as trace:
            pid = pid_of(swarm)
            swarm.signal(signal.SIGKILL, node=0)
            saw(swarm, EventKind.HEALTHY, times=2)
            assert '"death"' in path.read_text()  # it is written at once
        assert trace.error is None
        assert trace.dropped == 0
    events = events_of(path)
    assert events[0]["args"]["kind"] == "swarm"
    lives = [event for event in events if event.get("cat") == "node" and event["ph"] == "X"]
    assert sorted((life["tid"], life["args"]["attempt"], life["args"]["outcome"]) for life in lives) == [
        (1, 1, "crashed"),
        (1, 2, "done"),
        (2, 1, "done"),
    ]
    death = next(event for event in events if event.get("cat") == "death")
    assert (death["args"]["signal"], death["args"]["expected"], death["args"]["worker_pid"]) == (9, False, pid)
    numbers = analyse(reading.read(str(path)))
    assert [(worker.name, worker.tasks, worker.deaths) for worker in numbers.workers] == [
        ("node 0", 2, 1),
        ("node 1", 1, 0),
    ]
    assert all(worker.split.work > 0 for worker in numbers.workers)
    notices = report.write_page(path, page)
    assert notices == [
        "It is of a swarm: workers are nodes, and tasks the times in which their processes were healthy."
    ]
    assert "mail" in page.read_text()


def test_spans_of_a_track_do_not_overlap_when_nodes_are_replaced(tmp_path):
    path = tmp_path / "run.json"
    with swarm_of(nodes.serve, overlap=True) as swarm:
        pid_of(swarm)
        with swarm.trace(path):
            swarm.restart()
            saw(swarm, EventKind.DIED)
    lives = sorted(
        (event["ts"], event["ts"] + event["dur"])
        for event in events_of(path)
        if event.get("dur") and event["cat"] == "node"
    )
    assert len(lives) == 2
    assert all(before[1] <= after[0] + 0.01 for before, after in itertools.pairwise(lives))


def test_a_coroutine_traces_without_blocking_its_loop(tmp_path):
    """A callback of the swarm's waits for the loop, so who leaves the trace must let the loop go on."""
    path = tmp_path / "run.json"

    async def use():
        loop, waits, released, seen = asyncio.get_running_loop(), threading.Event(), asyncio.Event(), []

        def on_event(event):
            seen.append(event.kind)
            if event.kind is EventKind.RESTARTED:
                waits.set()
                asyncio.run_coroutine_threadsafe(released.wait(), loop).result(30)

        async with Swarm(nodes.serve, 1, on_event=on_event, restart_pause=0.02) as swarm:
            async with swarm.trace(path) as trace:
                assert await swarm.wait_until_healthy(timeout=30)
                assert await swarm.ping(30)
                swarm.signal(signal.SIGKILL)
                assert await asyncio.to_thread(waits.wait, 30)
                loop.call_soon(released.set)
            assert trace.error is None
        assert not await swarm.ping(30)
        return seen

    seen = asyncio.run(use())
    assert EventKind.RESTARTED in seen
    names = [event["name"] for event in events_of(path) if event["ph"] == "i"]
    assert "restarted" in names


def test_the_asynchronous_swarm_has_the_trace_of_the_other(tmp_path):
    path = tmp_path / "run.json"

    async def use():
        async with Swarm(nodes.end_at_once, 1) as swarm:
            with pytest.raises(ValueError, match="max_events must be >= 1, not 0"):
                swarm.trace(path, max_events=0)
            with swarm.trace(path):
                await swarm.wait(30)

    asyncio.run(use())
    assert events_of(path)[-1]["name"] == "done"


def test_a_trace_may_begin_before_the_start_and_end_after_the_end(tmp_path):
    path = tmp_path / "run.json"
    swarm = Swarm(nodes.end_at_once, 1)
    trace = swarm.trace(path)
    with trace:
        with swarm:
            assert swarm.wait(20)
    names = [event["name"] for event in events_of(path) if event["ph"] == "i"]
    assert names[0] == "started"
    assert names[-1] == "done"
    with pytest.raises(RuntimeError, match="a trace is used once"):
        trace.__enter__()
    with pytest.raises(RuntimeError, match="this swarm has ended"):
        swarm.trace(path).__enter__()


@pytest.fixture(scope="module")
def running():
    with swarm_of(nodes.serve, 1) as swarm:
        pid_of(swarm)
        yield swarm


def test_a_file_object_is_written_when_the_block_ends():
    file = io.StringIO()
    with swarm_of(nodes.serve) as swarm:
        with swarm.trace(file):
            begun = file.getvalue()
            pid_of(swarm)
            assert file.getvalue() == begun
        assert any(event["name"] == "healthy" for event in json.loads(file.getvalue()))


def test_a_child_that_is_forked_writes_nothing(running, tmp_path):
    path = tmp_path / "run.json"
    with running.trace(path) as trace:
        assert in_forked_child(lambda: trace.__exit__(None, None, None)) == "ok"
        assert not path.read_text().endswith("]\n")
    assert path.read_text().endswith("]\n")


def test_a_limit_is_kept_and_told(tmp_path):
    path = tmp_path / "run.json"
    swarm = Swarm(nodes.end_at_once, 1)
    with swarm.trace(path, max_events=1) as trace:
        with swarm:
            assert swarm.wait(20)
    assert trace.dropped > 1
    assert events_of(path)[-1]["args"] == {"count": trace.dropped}


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_what_cannot_be_written_is_an_error_at_the_beginning(running, tmp_path):
    with pytest.raises(OSError, match="No space left") as caught:
        running.trace("/dev/full").__enter__()
    assert caught.value.filename == "/dev/full"
    with pytest.raises(FileNotFoundError):
        running.trace(tmp_path / "none" / "run.json").__enter__()
    with pytest.raises(ValueError, match="max_events must be >= 1, not 0"):
        running.trace("x", max_events=0)
    path = tmp_path / "run.json"
    with running.trace(path):
        with pytest.raises(ValueError, match="is written by another trace of this process"):
            running.trace(path).__enter__()


def test_a_file_that_fails_later_ends_the_trace_and_nothing_else(running):
    class Failing(io.StringIO):
        full = False

        def write(self, text):
            if self.full:
                raise OSError(28, "No space left on device")
            return super().write(text)

    file = Failing()
    with running.trace(file) as trace:
        file.full = True
    assert isinstance(trace.error, OSError)
    assert running.ping(30)
