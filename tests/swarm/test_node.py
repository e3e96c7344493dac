"""What a node gets and can do: flags, reports, messages, asyncio, a pool of its own."""

from __future__ import annotations

import asyncio
import fractions
import logging
import math
import os
import re
import signal
import threading

import pytest

from pidfdpool.process import counters
from pidfdpool.swarm import EventKind, Flag, Node, NodeState
from tests.conditions import eventually
from tests.swarm import nodes
from tests.swarm.swarms import deaths, pid_of, saw, swarm_of


@pytest.fixture
def flag():
    fd = counters.make()
    yield Flag(fd)
    os.close(fd)


def written(path):
    """Return what a node has written, when it has."""
    return eventually(lambda: path.exists() and path.read_text(), f"{path.name} is written")


def test_a_flag_is_set_once_for_all_who_wait(flag):
    assert not flag.is_set()
    assert not flag.wait(0.01)
    assert repr(flag) == "<Flag not set>"
    found = []
    threads = [threading.Thread(target=lambda: found.append(flag.wait(30))) for _ in range(3)]
    for thread in threads:
        thread.start()
    flag.set()
    for thread in threads:
        thread.join()
    assert found == [True] * 3
    assert flag.is_set()
    assert flag.wait()


@pytest.mark.parametrize("long", [60 * 86400.0, 1e308, math.inf, 10**400, fractions.Fraction(10**20, 3)])
def test_a_flag_is_waited_for_any_number_of_seconds(flag, long):
    """Guards: a node with such a timeout failed, and was started again until it was given up."""
    threading.Timer(0.02, flag.set).start()
    assert flag.wait(long)

    async def wait(other):
        asyncio.get_running_loop().call_soon(other.set)
        return await other.wait_async(long)

    fd = counters.make()
    try:
        assert asyncio.run(wait(Flag(fd)))
    finally:
        os.close(fd)


def test_a_flag_refuses_what_nobody_can_wait_for(flag):
    for wrong, kind in ((math.nan, ValueError), ("5", TypeError)):
        told = re.escape(f"timeout must be a number of seconds, or None, not {wrong!r}")
        with pytest.raises(kind, match=told):
            flag.wait(wrong)
        with pytest.raises(kind, match=told):
            asyncio.run(flag.wait_async(wrong))
    assert not flag.wait(-math.inf)


def test_a_report_is_a_time_in_shared_memory_and_only_the_first_one_is_told(flag):
    told = []
    memory = memoryview(bytearray(8)).cast("d")
    node = Node(3, 2, flag, flag, flag.fileno(), memory, lambda *what: told.append(what))
    node.healthy()
    first = memory[0]
    node.healthy()
    assert memory[0] >= first > 0
    assert told == [(True, "")]
    assert repr(node) == "<Node 3, attempt 2>"
    for wrong in (None, b"x", True, 1.5):
        with pytest.raises(TypeError, match=r"reason must be a text or a code, not"):
            node.unhealthy(wrong)
    memory.release()


def test_a_node_knows_its_number_its_attempt_and_its_arguments(tmp_path, way):
    with swarm_of(nodes.write_and_serve, 3, args=(str(tmp_path), "more"), mp_context=way) as swarm:
        pid_of(swarm)
        swarm.signal(signal.SIGKILL, node=2)
        saw(swarm, EventKind.HEALTHY, 2, times=2)
        pids = [node.pid for node in swarm.status().nodes]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0-1", "1-1", "2-1", "2-2"]
    for number, pid in enumerate(pids):
        assert (tmp_path / f"{number}-{2 if number == 2 else 1}").read_text() == repr((pid, ("more",)))


def test_an_async_target_is_run_and_stops_as_it_is_asked():
    with swarm_of(nodes.serve_async, 2) as swarm:
        pid_of(swarm)
    assert [death.exit_status.code for death in deaths(swarm)] == [0]


def test_any_number_of_coroutines_wait_for_a_flag(tmp_path):
    path = tmp_path / "found"
    with swarm_of(nodes.many_wait, args=(str(path),)) as swarm:
        pid_of(swarm)
    assert path.read_text() == repr([True] * 5)


def test_an_event_loop_can_watch_for_the_request_to_stop(tmp_path):
    path = tmp_path / "found"
    with swarm_of(nodes.watch_by_descriptor, args=(str(path),)) as swarm:
        pid_of(swarm)
    assert path.read_text() == repr((1, True, False))


def test_a_node_may_use_a_pool_threads_and_subprocesses(tmp_path):
    path = tmp_path / "found"
    with swarm_of(nodes.use_everything, args=(str(path),)) as swarm:
        assert written(path) == repr((42, [True], "hello\n", False))
        assert swarm.status().nodes[0].state is NodeState.HEALTHY
    assert deaths(swarm)[0].exit_status.code == 0


def test_messages_come_in_order_each_with_its_value(tmp_path):
    path = tmp_path / "found"
    with swarm_of(nodes.receive, args=(str(path),)) as swarm:
        pid_of(swarm)
        for value in (1, 2**64 - 1, 7):
            assert swarm.signal(signal.SIGRTMIN, value) == 1
        assert swarm.wait(30)
    assert path.read_text() == repr([(int(signal.SIGRTMIN), value) for value in (1, 2**64 - 1, 7)])


def test_a_message_that_comes_before_the_node_receives_waits_for_it():
    """It does not end the node either, which has not even been told of by the time at which it is sent."""
    with swarm_of(nodes.serve, 1) as swarm:
        saw(swarm, EventKind.STARTED)
        swarm.signal(signal.SIGRTMIN, 1)
        saw(swarm, EventKind.HEALTHY)
    assert len(deaths(swarm)) == 1


def test_a_process_that_a_node_forks_cannot_report_for_it(tmp_path):
    path = tmp_path / "found"
    with swarm_of(nodes.look_in_child, args=(str(path),)) as swarm:
        refused = "node 0 reports from the process of its own, and this one was forked from it"
        assert written(path) == repr(([refused, refused], False))
    assert deaths(swarm)[0].exit_status.code == 0


def test_a_quiet_swarm_asks_its_nodes_and_starts_none_again(tmp_path):
    path = tmp_path / "quiet"
    with swarm_of(nodes.go_quiet, 2, args=(str(path),)) as swarm:
        pid_of(swarm)
        swarm.quiet()
        for number in (0, 1):
            eventually((tmp_path / f"quiet.{number}").exists, "it is quiet")
            saw(swarm, EventKind.QUIETED, number)
        swarm.signal(signal.SIGKILL, node=0)
        saw(swarm, EventKind.DIED)
        assert [node.state for node in swarm.status().nodes] == [NodeState.STOPPED, NodeState.HEALTHY]
    assert swarm.status().nodes[0].attempt == 1


def test_what_nodes_log_reaches_the_loggers_of_the_host(caplog):
    caplog.set_level(logging.INFO, "of.nodes")
    with swarm_of(nodes.log, 2, forward_logs=True) as swarm:
        pids = [node.pid for node in swarm.status().nodes] if pid_of(swarm) else []
    records = [record for record in caplog.records if record.name == "of.nodes"]
    said = sorted(record.getMessage() for record in records)
    assert said == sorted(
        text.format(node)
        for node in (0, 1)
        for text in ("node {} begins", "from a thread of node {}", "node {} ends")
    )
    for record in records:
        assert record.processName == f"PidfdSwarmNode-{record.node}"
        assert record.process == pids[record.node]
        assert record.function == "log"


def test_nodes_keep_what_they_log_if_they_are_to(caplog):
    caplog.set_level(logging.INFO, "of.nodes")
    with swarm_of(nodes.log, forward_logs=False) as swarm:
        pid_of(swarm)
    assert [record for record in caplog.records if record.name == "of.nodes"] == []
