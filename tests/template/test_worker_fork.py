"""Forking a worker without a template around it: what makes workers can be used alone."""

from __future__ import annotations

import errno
import os
import select

import pytest

from pidfdpool.pidfd import capabilities
from pidfdpool.template.worker_fork import WorkerDescriptors, WorkerForker
from pidfdpool.transport import channel as channels
from pidfdpool.transport import framing, tokens
from pidfdpool.worker.boot import PIDFD, Boot


@pytest.fixture
def boot():
    return Boot(
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


def open_numbers():
    return set(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not capabilities().usable, reason="needs pidfds")
def test_a_forker_needs_no_template(boot):
    ours, theirs = channels.pair()
    channel = channels.Channel(ours)
    host_fd = os.pidfd_open(os.getpid())
    lifeline, lifeline_end = os.pipe()
    in_host, in_worker = tokens.pair()
    forker = WorkerForker(boot, host_fd, lifeline, channel.close)
    descriptors = forker.new_descriptors(theirs.detach(), in_worker)
    worker = forker.fork(3, 7, 0, descriptors)
    try:
        assert (worker.slot, worker.generation) == (3, 7)
        descriptors.close()
        frames = []
        while not frames:
            assert select.select([channel.fileno()], [], [], 20)[0], "the worker is ready"
            frames += channel.receive_nowait()
        assert [frame.kind for frame in frames] == [framing.READY]
        channel.send_nowait(framing.encode(framing.EXIT))
        assert worker.handle.wait(20)
        assert worker.handle.exit_status().code == 0
    finally:
        channel.close()
        worker.handle.close()
        for fd in (host_fd, lifeline, lifeline_end, in_host):
            os.close(fd)


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
