"""Forking a worker without a template around it: what makes workers can be used alone."""

from __future__ import annotations

import errno
import importlib
import operator
import os
import random
import select
import signal
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from pidfdpool.loop import answers
from pidfdpool.pidfd import capabilities
from pidfdpool.process import native
from pidfdpool.template.worker_fork import DescriptorRanges, WorkerDescriptors, WorkerForker
from pidfdpool.transport import channel as channels
from pidfdpool.transport import framing, tokens
from pidfdpool.worker.boot import PIDFD, Boot
from tests.conditions import children


@pytest.fixture
def boot():
    made = Boot(
        handles=PIDFD,
        host_pid=os.getppid(),
        host_name="MainProcess",
        argv=[],
        authkey=b"key",
        preload=(),
        forked=True,
        preload_call=None,
        initializer=None,
    )
    importlib.import_module(made.program[0])  # as a template does before it forks
    return made


def open_numbers():
    return set(os.listdir("/proc/self/fd"))


needs_pidfds = pytest.mark.skipif(not capabilities().usable, reason="needs pidfds")


@contextmanager
def forked(boot):
    """Fork a worker, yield it when it is ready, and have it leave."""
    ours, theirs = channels.pair()
    pipe = answers.attach(ours)
    channel = channels.Channel(ours)
    host_fd = os.pidfd_open(os.getpid())
    lifeline, lifeline_end = os.pipe()
    in_host, in_worker = tokens.pair()
    forker = WorkerForker(boot, host_fd, lifeline, channel.close)
    descriptors = forker.new_descriptors(theirs.detach(), in_worker)
    worker = forker.fork(3, 7, 0, descriptors)
    try:
        descriptors.close()
        frames = []
        while not frames:
            assert select.select([pipe], [], [], 20)[0], "the worker is ready"
            frames += answers.Answers(pipe, channel, b"").receive_nowait()
        assert [frame.kind for frame in frames] == [framing.READY]
        yield worker
        channel.send_nowait(framing.encode(framing.EXIT))
        assert worker.handle.wait(20)
        assert worker.handle.exit_status().code == 0
    finally:
        channel.close()
        worker.handle.close()
        for fd in (pipe, host_fd, lifeline, lifeline_end, in_host):
            os.close(fd)


@needs_pidfds
def test_a_forker_needs_no_template(boot):
    with forked(boot) as worker:
        assert (worker.slot, worker.generation) == (3, 7)


@needs_pidfds
@pytest.mark.parametrize("late", ["template", "worker"])
def test_a_worker_leads_its_group_whoever_of_two_comes_to_it_first(boot, monkeypatch, late):
    """Guards: what an initializer starts at once was in the template's group, where no kill of the worker reaches.

    And the host may signal the group as soon as the template has told of the worker.
    """
    real, is_late = os.setpgid, {"template": bool, "worker": operator.not_}[late]
    monkeypatch.setattr(os, "setpgid", lambda pid, group: None if is_late(pid) else real(pid, group))
    with forked(boot) as worker:
        assert os.getpgid(worker.handle.pid) == worker.handle.pid


def test_descriptors_that_did_not_arrive_leave_nothing_open():
    before = open_numbers()
    in_host, in_worker = tokens.pair()
    with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
        WorkerDescriptors(None, in_worker, pidfds=True, capture_stderr=False)
    os.close(in_host)
    assert open_numbers() == before


@pytest.mark.parametrize("pidfds", [True, False])
@pytest.mark.parametrize("capture_stderr", [True, False])
def test_descriptors_are_closed_together(pidfds, capture_stderr):
    before = open_numbers()
    ours, theirs = channels.pair()
    in_host, in_worker = tokens.pair()
    descriptors = WorkerDescriptors(theirs.detach(), in_worker, pidfds=pidfds, capture_stderr=capture_stderr)
    descriptors.close()
    descriptors.close()
    ours.close()
    os.close(in_host)
    assert open_numbers() == before


@pytest.fixture
def closed(monkeypatch):
    """Return what is closed, as ranges; nothing really is."""
    calls = []
    monkeypatch.setattr(native, "close_range", lambda first, end: calls.append(range(first, end)))
    return calls


def test_a_worker_closes_its_copies_of_hundreds_of_handles_by_one_call(closed):
    """Guards: each of a thousand workers closed those of all before it one by one, and births took twice as long."""
    ranges = DescriptorRanges()
    numbers = list(range(20, 1020))
    random.Random(1).shuffle(numbers)
    for fd in numbers:
        ranges.add(fd)
    ranges.close_in_worker()
    assert closed == [range(20, 1020)]


def test_a_descriptor_between_those_that_are_closed_stays_open(closed):
    ranges = DescriptorRanges()
    for fd in (7, 8, 9, 11, 12):
        ranges.add(fd)
    ranges.remove(8)
    ranges.close_in_worker()
    assert sorted(closed, key=min) == [range(7, 8), range(9, 10), range(11, 13)]


@pytest.mark.parametrize("seed", range(20))
def test_ranges_hold_what_was_added_and_not_removed_and_do_not_touch(seed, closed):
    source, ranges, expected = random.Random(seed), DescriptorRanges(), set()
    for _ in range(200):
        fd = source.randrange(30)
        if fd in expected:
            ranges.remove(fd)
            expected.remove(fd)
        else:
            ranges.add(fd)
            expected.add(fd)
    ranges.close_in_worker()
    assert sorted(fd for each in closed for fd in each) == sorted(expected)
    assert not {each.stop for each in closed} & {each.start for each in closed}


def test_a_range_is_closed_in_a_process_that_was_forked():
    ranges = DescriptorRanges()
    pairs = [os.pipe() for _ in range(5)]
    try:
        for fd in {*sum(pairs, ())} - {pairs[2][0]}:
            ranges.add(fd)
        pid = os.fork()
        if not pid:
            ranges.close_in_worker()
            opened = {fd for fd in sum(pairs, ()) if os.path.exists(f"/proc/self/fd/{fd}")}
            os._exit(0 if opened == {pairs[2][0]} else 1)
        assert os.waitpid(pid, 0)[1] == 0
    finally:
        for fd in sum(pairs, ()):
            os.close(fd)


def test_a_worker_that_nobody_could_watch_is_killed_and_reaped(boot, monkeypatch):
    """The kernel's limit of descriptors for all processes may be reached just then."""
    forker = WorkerForker(boot, -1, -1, lambda: None)
    monkeypatch.setattr(forker, "_become_worker", lambda *_: signal.pause())
    there = children(os.getpid())
    with pytest.raises(OSError, match="no more"):
        forker.fork(0, 1, 0, SimpleNamespace(handle=refuse))
    assert children(os.getpid()) == there


def refuse(_pid):
    raise OSError(errno.ENFILE, "no more")
