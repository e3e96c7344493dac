"""What the template tells of a death, and which calls of the kernel it makes for that, with what is refused."""

from __future__ import annotations

import errno
import os
from types import SimpleNamespace

import pytest

from pidfdpool.pidfd import ExitStatus
from pidfdpool.template import descendants, reaper
from pidfdpool.template.reaper import Reaper
from pidfdpool.template.worker_fork import LivingWorkers, WorkerProcess
from pidfdpool.transport import framing

USED = SimpleNamespace(ru_maxrss=3, ru_utime=1.25, ru_stime=0.5)


class Handle:
    """The handle of a worker, whose number is its descriptor plus 1000."""

    def __init__(self, fd):
        self.fd, self.pid, self.lives, self.status, self.closed = fd, fd + 1000, True, None, False

    def fileno(self):
        return self.fd

    def alive(self):
        return self.lives

    def exit_status(self):
        return self.status

    def close(self):
        self.closed = True


class Template:
    """A reaper and two workers, descriptors 5 and 6, where what the kernel does is up to the test."""

    def __init__(self, pipe):
        self.sent, self.unregistered, self.killed = [], [], []
        self.workers = LivingWorkers(None)
        for fd in (5, 6):
            self.workers.add(WorkerProcess(fd + 10, fd + 20, Handle(fd), mark=fd))
        epoll = SimpleNamespace(unregister=self.unregister)
        self.reaper = Reaper(self.workers, epoll, pipe, self.sent.append)

    def unregister(self, fd):
        self.unregistered.append(fd)

    def ends(self, fd):
        """Have the worker be dead; return its handle."""
        handle = self.workers.of_handle(fd).handle
        handle.lives = False
        return handle

    def told(self):
        """Return kind, slot, generation, status, memory and time of each report."""
        found = []
        for pieces in self.sent:
            kind, _, slot, generation, value = framing.HEADER.unpack_from(pieces[0])
            found.append((kind, slot, generation, value, *framing.USAGE.unpack(pieces[-1])))
        return found


@pytest.fixture
def pipe():
    reader, writer = os.pipe2(os.O_NONBLOCK)
    yield reader, writer
    os.close(reader)
    os.close(writer)


@pytest.fixture
def template(monkeypatch, pipe):
    template = Template(pipe[0])
    monkeypatch.setattr(descendants, "kill_group", lambda handle: template.killed.append(handle.pid))
    monkeypatch.setattr(descendants, "kill_orphans", lambda *_: False)
    monkeypatch.setattr(reaper.os, "waitid", lambda *_: None)
    return template


def raising(number):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    return fail


def test_a_death_is_told_with_its_status_and_what_the_worker_has_used(template, monkeypatch):
    """Memory in bytes, though the kernel counts it in KiB; the time of the program and of the kernel together."""
    asked = []

    def wait4(*arguments):
        asked.append(arguments)
        return 1005, 11, USED

    monkeypatch.setattr(reaper.os, "wait4", wait4)
    handle = template.ends(5)
    template.reaper.reap_workers([5, 6])
    assert template.told() == [(framing.DIED, 15, 25, 11, 3 * 1024, 1.75)]
    assert asked == [(1005, os.WNOHANG)]
    assert handle.closed
    assert template.unregistered == [5]


@pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES, errno.ENOSYS])
@pytest.mark.parametrize(
    ("status", "told"), [(ExitStatus(code=3), 3 << 8), (ExitStatus(signal=9), 9)], ids=["code", "signal"]
)
def test_where_usage_is_refused_the_status_is_told_without_it(template, monkeypatch, number, status, told):
    monkeypatch.setattr(reaper.os, "wait4", raising(number))
    template.ends(5).status = status
    template.reaper.reap_workers([5])
    assert template.told() == [(framing.DIED, 15, 25, told, 0, 0.0)]
    assert list(template.workers.by_pid) == [1006]


@pytest.mark.parametrize("status", [None, ExitStatus.UNKNOWN], ids=["not yet", "not known"])
def test_where_usage_is_refused_a_worker_is_kept_until_its_status_is_known(template, monkeypatch, status):
    monkeypatch.setattr(reaper.os, "wait4", raising(errno.EPERM))
    handle = template.ends(5)
    handle.status = status
    template.reaper.reap_workers([5])
    assert template.sent == []
    assert list(template.workers.by_pid) == [1005, 1006]
    assert not handle.closed
    assert template.unregistered == [5], "it would be reported again and again"


def test_an_error_that_is_no_refusal_is_raised(template, monkeypatch):
    monkeypatch.setattr(reaper.os, "wait4", raising(errno.EFAULT))
    template.ends(5)
    with pytest.raises(OSError, match=os.strerror(errno.EFAULT)):
        template.reaper.reap_workers([5])
    monkeypatch.setattr(reaper.os, "waitid", raising(errno.EFAULT))
    with pytest.raises(OSError, match=os.strerror(errno.EFAULT)):
        template.reaper.on_sigchld()


def test_a_worker_that_is_not_watched_any_more_is_reaped_all_the_same(template, monkeypatch):
    """As one that a tracer had: its descriptor was taken out of epoll when it could not be waited for yet."""
    monkeypatch.setattr(reaper.os, "wait4", lambda *_: (1005, 0, USED))
    monkeypatch.setattr(template, "unregister", raising(errno.ENOENT))
    template.reaper = Reaper(
        template.workers, SimpleNamespace(unregister=template.unregister), -1, template.sent.append
    )
    template.ends(5)
    template.reaper.reap_workers([5])
    assert [each[:2] for each in template.told()] == [(framing.DIED, 15)]


def test_all_dead_workers_are_reaped_at_one_look_and_those_that_live_are_let_alone(template, monkeypatch):
    dead = [1006, 1005]
    monkeypatch.setattr(reaper.os, "waitid", lambda *_: SimpleNamespace(si_pid=dead[0]) if dead else None)
    monkeypatch.setattr(reaper.os, "wait4", lambda pid, _: (dead.remove(pid) or pid, 0, USED))
    template.reaper.reap_workers([])
    assert [each[1] for each in template.told()] == [16, 15]
    assert template.killed == [1006, 1005]


def test_a_look_never_waits_and_never_takes_a_status_that_is_to_be_reported(template, monkeypatch):
    """And nothing is asked of children that have only been stopped."""
    looks, dead = [], [2000]

    def waitid(kind, pid, options):
        looks.append((kind, pid, options))
        if kind == os.P_PID:
            dead.clear()
        return SimpleNamespace(si_pid=dead[0]) if dead else None

    monkeypatch.setattr(reaper.os, "waitid", waitid)
    template.reaper.on_sigchld()
    look = (os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    assert looks == [look, (os.P_PID, 2000, os.WEXITED | os.WNOHANG), look]


def test_a_template_without_any_child_is_content(template, monkeypatch):
    monkeypatch.setattr(reaper.os, "waitid", raising(errno.ECHILD))
    template.reaper.on_sigchld()
    template.reaper.reap_workers([])
    assert template.sent == []


@pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES, errno.ENOSYS])
def test_where_a_look_is_refused_those_that_live_are_not_touched(template, monkeypatch, number):
    waited = []

    def waitpid(pid, options):
        waited.append((pid, options))
        if pid == 3000:
            raise ChildProcessError  # a thread of the preload's was quicker

    monkeypatch.setattr(reaper.os, "waitid", raising(number))
    monkeypatch.setattr(reaper.os, "waitpid", waitpid)
    monkeypatch.setattr(reaper.os, "wait4", lambda pid, _: (pid, 0, USED))
    monkeypatch.setattr(descendants, "children", lambda: [3000, 1006, 3001])
    template.ends(5)
    template.reaper.on_sigchld()
    assert [each[1] for each in template.told()] == [15]
    assert template.killed == [1005], "the other lives"
    assert waited == [(3000, os.WNOHANG), (3001, os.WNOHANG)]


def test_all_signals_that_have_come_are_taken_at_once(template, pipe):
    """Guards: what was left in the pipe woke the template again for nothing."""
    while True:
        try:
            os.write(pipe[1], bytes(5000))
        except BlockingIOError:
            break
    template.reaper.on_sigchld()
    with pytest.raises(BlockingIOError):
        os.read(pipe[0], 1)


def test_at_the_end_nothing_is_waited_for_if_nothing_is_left(template, monkeypatch):
    def poll(_milliseconds):
        raise AssertionError("there is nothing to wait for")

    poller = SimpleNamespace(register=lambda *_: None, poll=poll)
    monkeypatch.setattr(reaper, "native", SimpleNamespace(poll=lambda: poller))
    for worker in list(template.workers.by_pid.values()):
        template.workers.remove(worker)
    template.reaper.kill_remaining()


@pytest.mark.parametrize("left", ["a worker", "an orphan"])
def test_at_the_end_the_wait_is_for_what_is_left_of_the_time(template, monkeypatch, left):
    now, waits = [100.0], []

    def poll(milliseconds):
        waits.append(milliseconds)
        now[0] += 0.125

    poller = SimpleNamespace(register=lambda *_: None, poll=poll)
    monkeypatch.setattr(reaper, "native", SimpleNamespace(poll=lambda: poller))
    monkeypatch.setattr(reaper, "time", SimpleNamespace(monotonic=lambda: now[0]))
    if left == "an orphan":
        for worker in list(template.workers.by_pid.values()):
            template.workers.remove(worker)
        monkeypatch.setattr(descendants, "kill_orphans", lambda *_: True)
    template.reaper.kill_remaining()
    assert waits == [500, 375, 250, 125]
