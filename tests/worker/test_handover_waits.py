"""For how long a worker that is to leave waits for the host to fetch what its results share."""

from __future__ import annotations

import os
import socket
import sys
from multiprocessing import Pipe, current_process
from types import SimpleNamespace

import pytest

from pidfdpool.serialization import payload
from pidfdpool.transport import framing
from pidfdpool.worker import handover
from tests.conditions import open_descriptors
from tests.worker.own_worker import OwnWorker


@pytest.fixture
def parts(monkeypatch):
    """Give what was fetched, what waits, what stopped sharing was told, and a channel whose host is there."""
    fetched, shared, stopped, polls = set(), [], [], []
    monkeypatch.setattr(handover.picklers, "are_fetched", lambda resources: fetched >= set(resources))
    monkeypatch.setattr(handover.picklers, "shared_resources", shared)
    monkeypatch.setattr(handover.picklers, "pop_shared_resources", lambda: [shared.pop() for _ in list(shared)])
    monkeypatch.setitem(sys.modules, "multiprocessing.resource_sharer", SimpleNamespace(stop=stopped.append))
    now = [100.0]
    monkeypatch.setattr(handover.time, "monotonic", lambda: now[0])
    poll = SimpleNamespace(register=lambda fd, events: polls.append((fd, events)), ready=[])

    def wait(milliseconds):
        polls.append(milliseconds)
        now[0] += 1.0
        return poll.ready

    poll.poll = wait
    monkeypatch.setattr(handover.native, "poll", lambda: poll)
    return SimpleNamespace(fetched=fetched, shared=shared, stopped=stopped, polls=polls, now=now, poll=poll)


def test_a_worker_that_has_shared_nothing_leaves_at_once(parts):
    handover.Handover().wait_until_fetched(7)
    assert (parts.polls, parts.stopped) == ([], [])


def test_resources_of_the_process_that_it_was_forked_from_are_not_its_own(parts):
    parts.shared.append("of the parent")
    handover.Handover()
    assert parts.shared == []


def test_it_waits_until_all_is_fetched_and_completes_the_transfer_that_is_under_way(parts):
    pending = handover.Handover()
    parts.shared.append("a")
    pending.add_shared()
    wait = parts.poll.poll

    def fetch(milliseconds):
        if parts.now[0] >= 102.0:
            parts.fetched.add("a")
        return wait(milliseconds)

    parts.poll.poll = fetch
    pending.wait_until_fetched(7)
    assert parts.polls == [(7, 0), 2, 2, 2]
    assert parts.stopped == [1.0]


def test_what_is_fetched_already_is_not_waited_for_but_its_transfer_is(parts):
    pending = handover.Handover()
    parts.shared.append("a")
    pending.add_shared()
    parts.fetched.add("a")
    pending.wait_until_fetched(7)
    assert (parts.polls, parts.stopped) == ([(7, 0)], [1.0])


def test_what_is_not_fetched_in_time_never_is(parts):
    pending = handover.Handover()
    parts.shared.append("a")
    pending.add_shared()
    pending.wait_until_fetched(7)
    assert len(parts.polls) == 1 + handover.FETCH_TIMEOUT
    assert parts.stopped == [1.0]


def test_a_host_that_is_gone_fetches_nothing(parts):
    parts.poll.ready = [(7, 16)]
    pending = handover.Handover()
    parts.shared.append("a")
    pending.add_shared()
    pending.wait_until_fetched(7)
    assert (len(parts.polls), parts.stopped) == (2, [])


@pytest.mark.parametrize("module", [None, SimpleNamespace()])
def test_a_task_that_has_ended_the_sharing_does_no_harm(parts, monkeypatch, module):
    monkeypatch.setitem(sys.modules, "multiprocessing.resource_sharer", module)
    pending = handover.Handover()
    parts.shared.append("a")
    pending.add_shared()
    parts.fetched.add("a")
    pending.wait_until_fetched(7)


def test_what_was_fetched_is_forgotten_with_the_next_result(parts):
    pending = handover.Handover()
    for name in "abc":
        parts.shared.append(name)
        pending.add_shared()
        parts.fetched.add(name)
    assert pending._pending == ["c"]


# ---- in a worker ---------------------------------------------------------------------------------------------------


def share_pipe_end():
    ours, theirs = Pipe()
    theirs.send("through it")
    return ours


def test_a_worker_that_was_told_to_leave_stays_until_the_host_has_what_a_result_shares():
    with OwnWorker(authkey=bytes(current_process().authkey)) as worker:
        assert worker.receive().kind == framing.READY
        worker.send_task(1, share_pipe_end)
        frame = worker.receive()
        worker.send_exit()
        assert not worker.process.wait(0.05)
        before = open_descriptors()
        with payload.load_result(frame.buffers) as end:
            assert end.recv() == "through it"
            assert open_descriptors().keys() - before.keys() == {end.fileno()}
        assert worker.status() == 0


def test_a_socket_of_the_hosts_that_waits_for_the_end_sees_it():
    ours, theirs = socket.socketpair()
    with ours, theirs, OwnWorker(authkey=bytes(current_process().authkey)) as worker:
        assert worker.receive().kind == framing.READY
        worker.send_task(1, share_pipe_end)
        worker.receive()
        worker.answers.close()
        worker.channel.close()
        assert worker.status() == 0, "it waits for no host that is gone"
        assert os.read(worker.sentinel, 1) == b""
