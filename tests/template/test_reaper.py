"""The order in which the template deals with a death, with everything of the kernel's replaced by notes."""

from __future__ import annotations

import os
import select
from types import SimpleNamespace

import pytest

from pidfdpool.process.native import signal
from pidfdpool.template import descendants, reaper
from pidfdpool.template.reaper import Reaper
from pidfdpool.template.worker_fork import LivingWorkers, WorkerProcess
from pidfdpool.transport import framing

OWN_MARK = 77


class Handle:
    """The handle of a worker, whose number is its descriptor plus 1000."""

    def __init__(self, fd, notes):
        self.fd, self.pid, self.notes, self.lives = fd, fd + 1000, notes, True

    def fileno(self):
        return self.fd

    def alive(self):
        return self.lives

    def close(self):
        self.notes.append(("close", self.fd))


@pytest.fixture
def world(monkeypatch):
    """Give a reaper of two workers, descriptors 5 and 6; `dead` are the numbers that can be waited for."""
    notes, dead = [], []

    def wait_any(kind, pid, options):
        if kind == os.P_PID:
            notes.append(("reap orphan", pid))
            dead.remove(pid)
            return None
        assert options & os.WNOWAIT, "a worker's status must not be lost"
        return SimpleNamespace(si_pid=dead[0]) if dead else None

    def wait4(pid, _options):
        notes.append(("reap", pid))
        if pid not in dead:
            return 0, 0, SimpleNamespace(ru_maxrss=0, ru_utime=0.0, ru_stime=0.0)
        dead.remove(pid)
        return pid, 9, SimpleNamespace(ru_maxrss=2, ru_utime=1.0, ru_stime=0.5)

    def kill_orphans(workers, marks):
        notes.append(("orphans", sorted(workers), sorted(marks, key=str)))
        return found.pop(0) if found else False

    found = []
    monkeypatch.setattr(reaper.os, "waitid", wait_any)
    monkeypatch.setattr(reaper.os, "wait4", wait4)
    monkeypatch.setattr(descendants, "kill_group", lambda handle: notes.append(("kill group", handle.pid)))
    monkeypatch.setattr(descendants, "kill_orphans", kill_orphans)
    pipe, writer = os.pipe2(os.O_NONBLOCK)
    living = LivingWorkers(OWN_MARK)
    for fd in (5, 6):
        living.add(WorkerProcess(fd, 1, Handle(fd, notes), fd))
    living.ranges = SimpleNamespace(remove=lambda fd: notes.append(("forget", fd)))
    workers = living.by_pid
    epoll = SimpleNamespace(unregister=lambda fd: notes.append(("unregister", fd)))
    made = Reaper(living, epoll, pipe, lambda frame: notes.append(("report", frame[0][0])))
    yield SimpleNamespace(reaper=made, notes=notes, dead=dead, found=found, workers=workers, pipe=pipe, writer=writer)
    os.close(pipe)
    os.close(writer)


DEATH_OF_5 = [
    ("kill group", 1005),
    ("reap", 1005),
    ("unregister", 5),
    ("forget", 5),
    ("close", 5),
    ("report", framing.DIED),
]


def test_the_group_is_killed_before_its_number_is_free_and_the_handle_is_closed_when_nobody_watches_it(world):
    world.dead.append(1005)
    world.workers[1005].handle.lives = False
    world.reaper.reap_workers([5])
    assert world.notes == DEATH_OF_5
    assert list(world.workers) == [1006]


def test_a_worker_that_a_tracer_has_is_kept_until_it_can_be_waited_for(world):
    world.workers[1005].handle.lives = False
    world.reaper.reap_workers([5])
    assert world.notes == DEATH_OF_5[:3], "its pidfd stays readable, and would be reported for ever"
    world.notes.clear()
    world.dead.append(1005)
    world.reaper.on_sigchld()
    assert world.notes[: len(DEATH_OF_5)] == DEATH_OF_5
    assert list(world.workers) == [1006]


def test_a_dead_worker_that_cannot_be_waited_for_yet_is_not_looked_at_again_and_again(world, monkeypatch):
    looks = [1005]
    monkeypatch.setattr(reaper.os, "waitid", lambda *_: SimpleNamespace(si_pid=looks.pop()))  # one look, and no more
    world.workers[1005].handle.lives = False
    world.reaper.on_sigchld()
    assert world.notes[:3] == DEATH_OF_5[:3]
    assert list(world.workers) == [1005, 1006], "the next SIGCHLD tells of it"


def test_a_worker_that_the_preload_has_reaped_is_forgotten_without_a_report(world, monkeypatch):
    def gone(*_):
        raise ChildProcessError

    monkeypatch.setattr(reaper.os, "wait4", gone)
    world.workers[1005].handle.lives = False
    world.reaper.reap_workers([5])
    assert world.notes == [each for each in DEATH_OF_5 if each[0] not in ("reap", "report")]
    assert list(world.workers) == [1006]


def test_after_each_death_orphans_are_reaped_and_those_of_dead_workers_are_looked_for(world):
    """The marks of the living are spared, and that of a worker of an outer pool in which this one is."""
    os.write(world.writer, b"\0" * 10)
    world.dead += [2000, 1005]
    world.reaper.on_sigchld()
    assert world.notes == [("reap orphan", 2000), *DEATH_OF_5, ("orphans", [1006], [6, OWN_MARK])]
    with pytest.raises(BlockingIOError):
        os.read(world.pipe, 1)  # the signal was taken notice of


def test_where_waitid_is_refused_each_child_is_looked_at(world, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "refused")

    reaped = []
    monkeypatch.setattr(reaper.os, "waitid", refuse)
    monkeypatch.setattr(reaper.os, "waitpid", lambda pid, options: reaped.append((pid, options)))
    monkeypatch.setattr(descendants, "children", lambda: [1005, 1006, 3000])
    world.dead.append(1005)
    world.workers[1005].handle.lives = False
    world.reaper.on_sigchld()
    assert world.notes[: len(DEATH_OF_5)] == DEATH_OF_5
    assert reaped == [(1005, os.WNOHANG), (3000, os.WNOHANG)], "the first is no worker any more"


def test_at_the_end_it_looks_until_no_worker_and_no_orphan_is_left(world, monkeypatch):
    """The children of an orphan that was killed are adopted only when that is dead."""
    polls, watched = [], []

    def poll(milliseconds):
        polls.append(milliseconds)
        assert 0 < milliseconds <= reaper.EXIT_TIMEOUT * 1000
        if len(polls) == 1:
            world.dead.extend([1005, 1006])
            world.found.extend([True, False])

    poller = SimpleNamespace(register=lambda fd, mask: watched.append((fd, mask)), poll=poll)
    monkeypatch.setattr(reaper, "native", SimpleNamespace(poll=lambda: poller))
    world.reaper.kill_remaining()
    assert watched == [(world.pipe, select.POLLIN)], "so that a death ends the wait"
    assert len(polls) == 2, "once for the workers, and once for what they had left"
    assert not world.workers
    assert [each[0] for each in world.notes].count("orphans") == 3


def test_at_the_end_it_does_not_wait_for_ever(world, monkeypatch):
    monkeypatch.setattr(reaper, "EXIT_TIMEOUT", 0.02)
    world.found += [True] * 100_000
    world.reaper.kill_remaining()
    assert len(world.workers) == 2


def test_every_worker_is_killed_with_its_group(world):
    world.reaper.kill_workers()
    assert world.notes == [("kill group", 1005), ("kill group", 1006)]


# ---- descendants ---------------------------------------------------------------------------------------------


class OldKernel:
    """A handle where a pidfd cannot name a group."""

    pid = 1005

    def __init__(self, notes):
        self.notes = notes

    def send_signal(self, number, *, group=False):
        if group:
            raise OSError(22, "too old")
        self.notes.append((number, self.pid))


def test_on_an_older_kernel_the_worker_is_killed_and_then_what_was_adopted_of_its_group(monkeypatch):
    notes = []
    monkeypatch.setattr(descendants, "kill_adopted", lambda group: notes.append(("adopted", group)))
    descendants.kill_group(OldKernel(notes))
    assert notes == [(signal.SIGKILL, 1005), ("adopted", 1005)]


def test_what_is_adopted_is_killed_until_no_more_of_the_group_comes(monkeypatch):
    """A process's children are adopted when it is dead."""
    family, groups, killed = {10: [11], 11: [12], 20: []}, {10: 5, 11: 5, 12: 5, 20: 9}, []
    there = [10, 20]

    class Orphan:
        def __init__(self, pid):
            self.pid = pid

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def send_signal(self, number):
            killed.append((number, self.pid))

        def wait(self, timeout):
            there.extend(family.get(self.pid, ()))  # it stays among the children until it is reaped

    monkeypatch.setattr(descendants, "Pidfd", SimpleNamespace(open=Orphan))
    monkeypatch.setattr(descendants, "children", lambda: list(there))
    monkeypatch.setattr(descendants, "_group_of", groups.get)
    descendants.kill_adopted(5)
    assert killed == [(signal.SIGKILL, pid) for pid in (10, 11, 12)]


def test_an_orphan_is_killed_if_it_has_a_mark_of_nobody_who_lives(monkeypatch):
    killed = []
    monkeypatch.setattr(descendants, "children", lambda: [1, 2, 3, 4, 5])
    monkeypatch.setattr(descendants.mark, "of", {1: None, 2: 20, 3: 30, 4: 40, 5: 40}.get)
    monkeypatch.setattr(descendants, "_kill", killed.append)
    assert descendants.kill_orphans({5}, {20, None, OWN_MARK})
    assert killed == [3, 4]
    assert not descendants.kill_orphans({5}, {20, 30, 40})
    assert killed == [3, 4]
