"""What becomes of a swarm whose own code fails, or that gets no thread: it ends, and nothing of it is left."""

from __future__ import annotations

import logging
import os
import threading

import pytest

from pidfdpool.swarm import EventKind, Phase, Swarm
from tests.conditions import eventually, in_forked_child, is_alive
from tests.swarm import nodes
from tests.swarm.swarms import QUICK, pid_of, swarm_of


def test_if_the_supervisors_own_code_fails_the_swarm_ends_and_says_so(monkeypatch, caplog):
    with swarm_of(nodes.ignore_everything, 2) as swarm:
        pids = [pid_of(swarm, number) for number in (0, 1)]

        def fail(*_):
            raise KeyError("a mistake")

        with caplog.at_level(logging.CRITICAL, "pidfdpool.swarm"):
            monkeypatch.setattr(swarm._supervisor.machine, "decide", fail)
            swarm.resize(3)
            assert swarm.wait(30)
        assert swarm.status().phase is Phase.ENDED
        eventually(lambda: not any(map(is_alive, pids)), "the nodes are gone")
    [record] = [record for record in caplog.records if record.levelno == logging.CRITICAL]
    assert "the supervisor's thread failed" in record.getMessage()
    assert "a mistake" in record.exc_text


def test_without_a_thread_nothing_is_started_and_a_later_start_works(monkeypatch):
    def refuse(_thread):
        raise RuntimeError("can't start new thread")

    swarm = Swarm(nodes.serve, **QUICK)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            swarm.start()
    assert swarm.status().phase is Phase.NEW
    with swarm:
        assert swarm.wait_until_healthy(timeout=30)


def test_a_callback_that_forks_leaves_a_child_that_is_no_supervisor():
    found = []

    def fork(event):
        if event.kind is EventKind.HEALTHY and event.attempt == 1:
            found.append(os.getpid())
            pid = os.fork()
            if pid:
                found.append(pid)
                found.append(os.waitpid(pid, 0)[1])

    with Swarm(nodes.serve, on_event=fork, **QUICK) as swarm:
        eventually(lambda: len(found) == 3, "the child has ended")
        assert swarm.ping(30)
        assert swarm.status().healthy == 1
    assert os.waitstatus_to_exitcode(found[2]) == 0


def test_a_forked_child_may_have_a_swarm_of_its_own():
    def run_one():
        with Swarm(nodes.serve, **QUICK) as own:
            assert own.wait_until_healthy(timeout=20)

    with swarm_of(nodes.serve) as swarm:
        pid_of(swarm)
        assert in_forked_child(run_one) == "ok"
        assert swarm.status().healthy == 1
