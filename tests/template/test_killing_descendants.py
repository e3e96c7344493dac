"""How what a dead worker left behind is killed: by which handle, with which signal, and what is done if that fails.

With everything of the kernel's replaced by notes; `test_descendants` has the real processes.
"""

from __future__ import annotations

import errno
import math
import os
import signal
import threading
from types import SimpleNamespace

import pytest

from pidfdpool.pidfd import PidfdError, ProcessGone
from pidfdpool.template import descendants
from tests.conditions import in_forked_child


class Kernel:
    """Opens pidfds, and notes what is sent. `refused`: by number, what an open raises."""

    def __init__(self):
        self.refused, self.sent, self.waits, self.opened, self.by_number = {}, [], [], 0, []

    def open(self, pid):
        if pid in self.refused:
            raise self.refused[pid]
        self.opened += 1
        return Opened(self, pid)


class Opened:
    """A handle that notes for its kernel."""

    def __init__(self, kernel, pid):
        self.kernel, self.pid = kernel, pid

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kernel.opened -= 1

    def send_signal(self, number, *, group=False):
        assert not group, "an orphan may be in the group of a worker that lives"
        self.kernel.sent.append((self.pid, number))

    def wait(self, timeout=math.inf):
        self.kernel.waits.append(timeout)


@pytest.fixture
def kernel(monkeypatch):
    kernel = Kernel()
    monkeypatch.setattr(descendants, "Pidfd", kernel)
    monkeypatch.setattr(descendants.os, "kill", lambda *sent: kernel.by_number.append(sent))
    yield kernel
    assert kernel.opened == 0, "each handle is closed"


def gone(pid):
    return ProcessGone(errno.ESRCH, "pidfd_open", pid)


def orphans(monkeypatch, marks):
    """Have these be the children, with their marks."""
    monkeypatch.setattr(descendants, "children", lambda: list(marks))
    monkeypatch.setattr(descendants.mark, "of", marks.get)


def test_an_orphan_is_killed_by_its_pidfd(monkeypatch, kernel):
    orphans(monkeypatch, {10: 1, 11: 1})
    assert descendants.kill_orphans((), (None,))
    assert kernel.sent == [(10, signal.SIGKILL), (11, signal.SIGKILL)]
    assert kernel.by_number == []


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOSYS, errno.EPERM])
def test_an_orphan_is_killed_by_its_number_where_it_gets_no_pidfd(monkeypatch, kernel, number):
    """It is an unreaped child, so the number is its own."""
    orphans(monkeypatch, {10: 1, 11: 1})
    kernel.refused[10] = PidfdError(number, "pidfd_open", 10)
    assert descendants.kill_orphans((), (None,))
    assert kernel.by_number == [(10, signal.SIGKILL)]
    assert kernel.sent == [(11, signal.SIGKILL)]


def test_a_number_that_is_free_is_not_signalled(monkeypatch, kernel):
    orphans(monkeypatch, {10: 1, 11: 1})
    kernel.refused[10] = gone(10)
    assert descendants.kill_orphans((), (None,))
    assert kernel.by_number == []
    assert kernel.sent == [(11, signal.SIGKILL)]


def test_an_orphan_that_may_not_be_signalled_keeps_no_other_from_being_killed(monkeypatch, kernel):
    def refuse(*_):
        raise PermissionError(errno.EPERM, "another user's")

    orphans(monkeypatch, {10: 1, 11: 1})
    kernel.refused[10] = PidfdError(errno.EMFILE, "pidfd_open", 10)
    monkeypatch.setattr(descendants.os, "kill", refuse)
    assert descendants.kill_orphans((), (None,))
    assert kernel.sent == [(11, signal.SIGKILL)]


def test_workers_are_not_even_looked_at_for_orphans(monkeypatch, kernel):
    """Guards: after each death of a child, one system call for each of a thousand workers."""
    looked_at = []
    monkeypatch.setattr(descendants, "children", lambda: [5, 6, 7])
    monkeypatch.setattr(descendants.mark, "of", looked_at.append)
    assert not descendants.kill_orphans({5, 6}, (None,))
    assert looked_at == [7]
    assert kernel.sent == []


# ---- a group -----------------------------------------------------------------------------------------------------


class Worker:
    """The handle of a worker, which refuses what `refused` says: of the group, or of the worker alone."""

    pid = 1005

    def __init__(self, *, group=None, alone=None):
        self.refused, self.asked = {True: group, False: alone}, []

    def send_signal(self, number, *, group=False):
        self.asked.append((number, group))
        if self.refused[group] is not None:
            raise self.refused[group]


@pytest.fixture
def adopted(monkeypatch):
    """Return the groups of which adopted processes are killed."""
    groups = []
    monkeypatch.setattr(descendants, "kill_adopted", groups.append)
    return groups


@pytest.mark.parametrize("refused", [None, gone(1005)], ids=["killed", "nobody is left"])
def test_a_group_is_killed_by_one_call_where_the_kernel_can(adopted, refused):
    """Guards: the children of the template were read and looked at for each of a thousand deaths."""
    worker = Worker(group=refused)
    descendants.kill_group(worker)
    assert worker.asked == [(signal.SIGKILL, True)]
    assert adopted == []


@pytest.mark.parametrize("alone", [None, gone(1005)], ids=["it lives", "it is reaped"])
def test_an_older_kernel_kills_the_worker_and_then_the_rest_of_its_group(adopted, alone):
    worker = Worker(group=PidfdError(errno.EINVAL, "send_signal", 1005), alone=alone)
    descendants.kill_group(worker)
    assert worker.asked == [(signal.SIGKILL, True), (signal.SIGKILL, False)]
    assert adopted == [1005]


def test_one_of_a_group_that_cannot_be_opened_keeps_no_other_from_being_killed(monkeypatch, kernel):
    monkeypatch.setattr(descendants, "children", lambda: [10, 11, 12])
    monkeypatch.setattr(descendants, "_group_of", {10: 5, 11: 5, 12: 6}.get)
    kernel.refused[10] = gone(10)
    descendants.kill_adopted(5)  # and it returns, though both stay among the children until they are reaped
    assert kernel.sent == [(11, signal.SIGKILL)]


def test_the_template_waits_a_moment_at_most_for_one_that_was_killed(monkeypatch, kernel):
    """Guards: a process in an uninterruptible sleep would have kept the template from serving."""
    monkeypatch.setattr(descendants, "children", lambda: [10])
    monkeypatch.setattr(descendants, "_group_of", lambda _pid: 5)
    descendants.kill_adopted(5)
    [timeout] = kernel.waits
    assert 0 < timeout <= 1.5


def test_the_group_of_who_is_gone_is_nobodys():
    assert descendants._group_of(os.getpid()) == os.getpgid(0)
    assert descendants._group_of(2**22 + 1) is None


# ---- children ----------------------------------------------------------------------------------------------------


def test_the_children_are_those_of_this_process_and_of_no_other():
    def child():
        assert descendants.children() == []
        gate = os.pipe()
        pids = []
        for _ in range(2):
            pids.append(os.fork())
            if not pids[-1]:
                os.close(gate[1])
                os.read(gate[0], 1)
                os._exit(0)
        assert descendants.children() == pids
        os.close(gate[1])
        os.waitpid(pids[0], 0)
        os.waitid(os.P_PID, pids[1], os.WEXITED | os.WNOWAIT)
        assert descendants.children() == pids[1:], "one that is to be reaped is still a child"
        os.waitpid(pids[1], 0)

    assert in_forked_child(child) == "ok"


def test_a_kernel_that_does_not_list_children_has_none_to_tell_of(monkeypatch):
    monkeypatch.setattr(descendants, "_thread", SimpleNamespace(get_native_id=lambda: 2**22 + 1))
    assert threading.get_native_id() != 2**22 + 1
    assert descendants.children() == []
