"""Requests for stacks that come faster than a node writes them."""

from __future__ import annotations

import errno
import functools
import itertools
import os
import resource
import signal
import threading
from types import SimpleNamespace

import pytest

from pidfdpool.loop import process_usage
from pidfdpool.loop.poller import Poller
from pidfdpool.pidfd import Pidfd, PidfdError
from pidfdpool.swarm import snapshots, stack_requests
from pidfdpool.swarm.links import NodeLink
from pidfdpool.swarm.stack_requests import APART, StackRequests
from pidfdpool.transport import black_box
from tests.conditions import eventually, is_stopped
from tests.swarm import nodes
from tests.swarm.swarms import pid_of, swarm_of


def test_the_first_request_is_sent_however_early_it_comes():
    assert StackRequests().begun(0.0, is_pending=False) is None


@pytest.mark.parametrize(
    ("later", "is_pending", "begun"),
    [(0.0, False, 700), (APART - 0.001, False, 700), (APART, False, None), (APART, True, 700), (3600.0, True, 700)],
)
def test_a_request_is_answered_by_the_one_before_while_that_may_be_under_way(later, is_pending, begun):
    requests = StackRequests()
    requests.begin(100.0, 700)
    assert requests.begun(100.0 + later, is_pending=is_pending) == begun


def test_the_last_request_counts():
    requests = StackRequests()
    requests.begin(100.0, 700)
    requests.begin(200.0, 900)
    assert requests.begun(200.0 + APART / 2, is_pending=False) == 900
    assert requests.begun(200.0 + APART, is_pending=False) is None


class Process:
    """What stands in for the handle of a node's process: it keeps what is sent."""

    pid = 5

    def __init__(self):
        self.sent = []

    def send_signal(self, number):
        self.sent.append(number)


@pytest.fixture
def link():
    poller = Poller()
    link = NodeLink(0, 1, poller)
    link.handle = Process()
    link.set_black_box(black_box.create())
    yield link
    link.handle = None
    link.close()
    poller.close()


def masks(monkeypatch, *, pending=0, blocked=0, caught=1 << (black_box.STACK_SIGNAL - 1)):
    told = process_usage.SignalMasks(pending, blocked, 0, caught)
    monkeypatch.setattr(process_usage, "signal_masks", lambda _pid: told)


def test_a_process_that_writes_its_stack_is_not_asked_for_another(link, monkeypatch):
    """Each request takes it as long to answer again, before it does anything else."""
    masks(monkeypatch)
    assert {link.request_stack() for _ in range(20)} == {black_box.STACKS_OFFSET}
    monkeypatch.setattr(stack_requests, "APART", 3600.0)
    for _ in range(20):
        link.request_stack()
    assert link.handle.sent == [black_box.STACK_SIGNAL]


def test_a_process_that_has_not_received_the_request_is_not_asked_again(link, monkeypatch):
    monkeypatch.setattr(stack_requests, "APART", 0.0)
    masks(monkeypatch)
    link.request_stack()
    masks(monkeypatch, pending=1 << (black_box.STACK_SIGNAL - 1))
    assert link.request_stack() == black_box.STACKS_OFFSET
    assert link.handle.sent == [black_box.STACK_SIGNAL]
    masks(monkeypatch)
    link.request_stack()
    assert link.handle.sent == [black_box.STACK_SIGNAL] * 2


def test_what_a_later_request_gets_begins_where_the_earlier_stacks_end(link, monkeypatch):
    monkeypatch.setattr(stack_requests, "APART", 0.0)
    masks(monkeypatch)
    first = link.request_stack()
    os.pwrite(link._box, b"first", first)
    second = link.request_stack()
    os.pwrite(link._box, b"second", second)
    assert (link.stack_since(first), link.stack_since(second)) == ("firstsecond", "second")


def test_a_process_that_the_signal_would_end_is_not_asked(link, monkeypatch):
    masks(monkeypatch, caught=0)
    assert link.request_stack() is None
    masks(monkeypatch, caught=0, blocked=1 << (black_box.STACK_SIGNAL - 1))
    assert link.request_stack() is not None
    assert link.handle.sent == [black_box.STACK_SIGNAL]


def stacks_while(links, turn, monkeypatch):
    """Return the stacks, and how many pauses that took and one more. turn: called with the number of each pause."""
    masks(monkeypatch)
    pauses = itertools.count(1)
    monkeypatch.setattr(snapshots.native, "sleep", lambda _seconds: turn(next(pauses)))
    return snapshots.stacks(SimpleNamespace(links=links), threading.Lock(), 30.0), next(pauses)


def test_a_process_that_is_being_born_is_asked_as_soon_as_it_is_there(link, monkeypatch):
    process, link.handle = link.handle, None
    process.send_signal = lambda _number: os.pwrite(link._box, b"in serve", black_box.STACKS_OFFSET)

    def turn(pause):
        if pause == 3:
            link.handle = process

    stacks, pauses = stacks_while({link.number: link}, turn, monkeypatch)
    assert stacks == {0: "in serve"}
    assert pauses > 3


def test_a_process_whose_birth_has_failed_is_not_waited_for(link, monkeypatch):
    process, link.handle = link.handle, None
    links = {link.number: link}
    assert stacks_while(links, lambda _pause: links.clear(), monkeypatch) == ({}, 3)
    assert process.sent == []


def test_a_node_that_was_stopped_writes_one_stack_for_all_who_asked_meanwhile():
    with swarm_of(nodes.stop_itself, report_timeout=None, stop_timeout=0.2) as swarm:
        pid = pid_of(swarm)
        eventually(lambda: is_stopped(pid), "it has stopped itself")
        (link,) = swarm._supervisor._processes.links.values()
        eventually(lambda: swarm.stacks(0.0) == {} and awaits_request(pid), "it is asked")
        for _ in range(50):
            assert swarm.stacks(stack_requests.APART / 10) == {}
        with Pidfd.open(pid) as node:
            node.send_signal(signal.SIGCONT)
        begin = "most recent call first"
        written = functools.partial(link.stack_since, black_box.STACKS_OFFSET)
        eventually(lambda: not awaits_request(pid) and begin in written(), "it answers")
        assert written().count(begin) <= 2  # it may have been asked once before it had stopped
        assert "in stop_itself" in eventually(lambda: swarm.stacks(5.0).get(0), "and it can be asked again")


def test_a_node_whose_queue_of_signals_is_full_does_not_keep_them_from_the_others():
    with swarm_of(nodes.serve, 3) as swarm:
        pid = pid_of(swarm, 1)
        others = [pid_of(swarm, number) for number in (0, 2)]
        resource.prlimit(pid, resource.RLIMIT_SIGPENDING, (0, 0))
        with pytest.raises(PidfdError, match="RLIMIT_SIGPENDING") as caught:
            swarm.signal(signal.SIGRTMIN, 1)
        assert (caught.value.errno, caught.value.pid) == (errno.EAGAIN, pid)
        # A node that does not receive messages holds the signal back.
        assert all(process_usage.signal_masks(other).awaits(signal.SIGRTMIN) for other in others)


def awaits_request(pid):
    return process_usage.signal_masks(pid).awaits(black_box.STACK_SIGNAL)
