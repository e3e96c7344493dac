"""What a process that was forked as a worker has and is when its program begins, and how it ends."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import sys
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from pidfdpool.pidfd import ChildHandle, Pidfd, capabilities, sentinel_pipe
from pidfdpool.process import lifeline
from pidfdpool.template import worker_fork
from pidfdpool.template.worker_fork import LivingWorkers, WorkerDescriptors, WorkerForker, WorkerProcess
from pidfdpool.transport import channel as channels
from pidfdpool.transport import framing, tokens
from pidfdpool.worker import mark
from pidfdpool.worker.boot import PIDFD, SENTINEL, Boot
from tests.conditions import in_forked_child, open_descriptors

needs_pidfds = pytest.mark.skipif(not capabilities().usable, reason="needs pidfds")
KINDS = [pytest.param(PIDFD, marks=needs_pidfds), SENTINEL]
ALL = {signal.SIGTERM, signal.SIGINT, signal.SIGUSR1}
_GET_PDEATHSIG = 2


class Program:
    """What a forked worker runs: it reports what `does` returns, and exits with `status`."""

    does = report = None
    status = 7

    def __init__(self, *made_of):
        self.made_of = made_of

    def run(self):
        told = Program.does(*self.made_of)
        os.write(Program.report, json.dumps(told).encode())
        return Program.status


class HoldingProgram(Program):
    """One that is not ready for these signals yet."""

    HELD_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2)


class Birth:
    """A template that forks workers, and all that it needs for one."""

    def __init__(self, handles=PIDFD, program=Program, **options):
        fields = {"preload": (), "forked": True, "preload_call": None, "initializer": None} | options
        self.boot = Boot(
            handles=handles,
            host_pid=os.getpid(),
            host_name="MainProcess",
            argv=[],
            authkey=b"key",
            program=(__name__, program.__name__),
            **fields,
        )
        self.ours, theirs = channels.pair()
        self.tokens, in_worker = tokens.pair()
        self.host, self.lifeline, self.report = sentinel_pipe(), sentinel_pipe(), os.pipe()
        self.closed = []
        self.forker = WorkerForker(self.boot, self.host[0], self.lifeline[0], lambda: self.closed.append(1))
        self.descriptors = self.forker.new_descriptors(theirs.detach(), in_worker)
        self.end, self.box = self.descriptors.end, self.descriptors.black_box
        self.in_worker = in_worker

    def run(self, does=lambda *_: None, slot=3, generation=9, cookie=0x01020304):
        """Have a worker do this; return its exit code, what it has reported, and the worker."""
        Program.does, Program.report = does, self.report[1]
        worker = self.forker.fork(slot, generation, cookie, self.descriptors)
        self.descriptors.close()
        with worker.handle:
            assert worker.handle.wait(20)
            while (status := worker.handle.exit_status()) is None:
                pass  # its pipe is closed a moment before it can be reaped
        os.close(self.report[1])
        with open(self.report[0]) as file:
            told = file.read()
        self.report = ()
        return status.code, json.loads(told) if told else None, worker

    def close(self):
        self.descriptors.close()
        self.ours.close()
        for fd in (self.tokens, *self.host, *self.lifeline, *self.report):
            os.close(fd)


@contextmanager
def birth(*arguments, **options):
    made = Birth(*arguments, **options)
    try:
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("handles", KINDS)
def test_a_program_gets_all_that_is_the_workers_own_and_its_result_is_the_exit_code(handles):
    def look(end, cookie, slot, boot, _host, sentinel, its_tokens, box, its_mark):
        here = end.fileno() == made.end and end.gettimeout() is None and boot is made.boot
        return [here, list(cookie), slot, sentinel, its_tokens, box, its_mark._mark]

    with birth(handles) as made:
        sentinel = made.descriptors.sentinel and made.descriptors.sentinel[1]
        code, told, worker = made.run(look)
    assert code == 7
    assert told == [True, list(framing.cookie_bytes(0x01020304)), 3, sentinel, made.in_worker, made.box, worker.mark]
    assert (sentinel is None) is (handles == PIDFD)
    assert (worker.slot, worker.generation) == (3, 9)


@pytest.mark.parametrize("program", [Program, HoldingProgram])
def test_a_program_begins_with_signals_as_in_a_fresh_process_but_for_those_that_it_holds(program):
    def look(*_):
        held = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        told = ctypes.c_int()
        ctypes.CDLL(None).prctl(_GET_PDEATHSIG, ctypes.byref(told))
        default = signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        return [sorted(map(int, held)), default, os.getpgid(0) == os.getpid(), told.value, made.closed]

    before = signal.signal(signal.SIGTERM, lambda *_: None)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        with birth(SENTINEL, program) as made:
            _, told, _ = made.run(look)
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask | {signal.SIGHUP}
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    held = sorted(map(int, getattr(program, "HELD_SIGNALS", ())))
    assert told == [held, True, True, signal.SIGKILL, [1]]


def test_no_signal_is_delivered_between_the_fork_and_the_end_of_the_parents_handlers(monkeypatch):
    masks, fork = [], worker_fork.native.fork

    def noted():
        masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        return fork()

    monkeypatch.setattr(worker_fork.native, "fork", noted)
    with birth(SENTINEL) as made:
        made.run()
    assert masks[0] >= ALL


def is_open(fd):
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


@pytest.mark.parametrize("has_own_end", [True, False])
def test_a_worker_sees_the_hosts_end_by_an_end_of_its_own_or_where_there_is_none_by_the_templates(
    monkeypatch, has_own_end
):
    def look(_end, _cookie, _slot, _boot, host, *_):
        return [host == made.host[0], is_open(host), is_open(made.host[0]), is_open(made.lifeline[0])]

    if not has_own_end:
        monkeypatch.setattr(lifeline, "kill_me_at_end", lambda _fd: None)
    with birth(SENTINEL) as made:
        _, told, _ = made.run(look)
    if has_own_end:
        assert told == [False, True, False, False]
    else:
        assert told == [True, True, True, False]


@pytest.mark.parametrize("handles", KINDS)
def test_what_is_made_for_the_host_and_the_template_is_closed_in_the_worker(handles):
    def look(*_):
        there = open_descriptors()
        return sorted(fd for fd, target in given.items() if there.get(fd) == target)

    with birth(handles, capture_stderr=True) as made:
        given = {fd: target for fd, target in open_descriptors().items() if fd in made.descriptors._open}
        kept = {made.end, made.in_worker, made.box}
        if handles == SENTINEL:
            kept.add(made.descriptors.sentinel[1])
        further = given.keys() - kept
        assert len(further) == 3, "both ends for standard error, and the number for the pidfd or the read end"
        _, told, _ = made.run(look)
    assert set(told) == kept


def test_standard_error_is_the_pipe_that_was_made_for_it():
    with birth(SENTINEL, capture_stderr=True) as made:
        reader = os.dup(made.descriptors.stderr[0])
        made.run(lambda *_: os.write(2, b"said"))
    with open(reader) as file:
        assert file.read() == "said"


def test_what_a_program_raises_is_told_on_standard_error_and_is_a_failure(monkeypatch, tmp_path):
    def fail(*_):
        raise LookupError("nothing there")

    with open(tmp_path / "said", "w") as file, birth(SENTINEL) as made:
        monkeypatch.setattr(sys, "stderr", file)
        code, told, _ = made.run(fail)
    assert "LookupError: nothing there" in (tmp_path / "said").read_text()
    assert (code, told) == (1, None)


def test_what_a_program_has_printed_is_written_before_it_is_gone(monkeypatch, tmp_path):
    with open(tmp_path / "printed", "w") as file, birth(SENTINEL) as made:
        monkeypatch.setattr(sys, "stdout", file)
        made.run(lambda *_: print("printed"))
    assert (tmp_path / "printed").read_text() == "printed\n"


@pytest.mark.parametrize(("parent", "runs"), [(1, False), (0, False), (-1, True)])
def test_a_worker_whose_template_has_died_leaves_and_where_that_cannot_be_asked_it_stays(monkeypatch, parent, runs):
    with birth(SENTINEL) as made:
        monkeypatch.setattr(worker_fork.os, "getppid", lambda: parent)
        code, told, _ = made.run(lambda *_: "ran")
    assert (code, told) == ((7, "ran") if runs else (1, None))


def test_a_sandbox_that_refuses_to_tie_it_to_the_template_or_a_group_keeps_no_worker_from_running(monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EPERM, "refused")

    monkeypatch.setattr(worker_fork.prctl, "set_parent_death_signal", refuse)
    monkeypatch.setattr(worker_fork.os, "setpgid", refuse)
    with birth(SENTINEL) as made:
        assert made.run(lambda *_: "ran")[:2] == (7, "ran")


def test_where_there_can_be_no_more_processes_there_is_no_worker(monkeypatch):
    def refuse():
        raise OSError(errno.EAGAIN, "no more")

    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    monkeypatch.setattr(worker_fork.native, "fork", refuse)
    with birth(SENTINEL) as made, pytest.raises(OSError, match="no more"):
        made.forker.fork(0, 1, 0, made.descriptors)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_each_worker_of_a_template_has_another_mark_and_so_has_each_template():
    with birth(SENTINEL) as one, birth(SENTINEL) as other:
        marks = [one.run()[2].mark, other.run()[2].mark]
    assert len(set(marks)) == 2
    assert mark.make(one.forker._mark_prefix, 9) == marks[0] != mark.make(one.forker._mark_prefix, 10)


# ---- descriptors -------------------------------------------------------------------------------------------------


def made_for_one(**options):
    ours, theirs = channels.pair()
    ours.close()
    in_host, in_worker = tokens.pair()
    os.close(in_host)
    return WorkerDescriptors(theirs.detach(), in_worker, **{"pidfds": False, "capture_stderr": False} | options)


@needs_pidfds
def test_the_number_for_the_pidfd_is_kept_free_for_it():
    """Guards: where no number was left after the fork, there was a worker that nobody could watch."""
    descriptors = made_for_one(pidfds=True)
    reserved = descriptors._reserved
    with descriptors.handle(os.getpid()) as handle:
        assert type(handle) is Pidfd
        assert handle.pid == os.getpid()
        assert handle.fileno() == reserved
        descriptors.close()
        assert handle.alive(), "it is not closed with the others"


def test_without_pidfds_the_worker_alone_holds_the_end_that_tells_of_it():
    descriptors = made_for_one()
    reader, writer = descriptors.sentinel
    handle = descriptors.handle(os.getpid())
    assert type(handle) is ChildHandle
    assert (handle.fileno(), handle.pid) == (reader, os.getpid())
    assert not is_open(writer)
    descriptors.close()
    assert is_open(reader)
    handle.close()
    assert not is_open(reader)


@pytest.mark.parametrize("missing", ["end", "tokens", "both"])
def test_where_one_did_not_arrive_the_other_is_closed_and_the_error_is_a_lack_of_descriptors(missing):
    before = open_descriptors()
    end = None if missing != "tokens" else os.open(os.devnull, os.O_RDONLY)
    its_tokens = None if missing != "end" else os.open(os.devnull, os.O_RDONLY)
    with pytest.raises(OSError, match=os.strerror(errno.EMFILE)) as caught:
        WorkerDescriptors(end, its_tokens, pidfds=True, capture_stderr=True)
    assert caught.value.errno == errno.EMFILE
    assert open_descriptors() == before


@pytest.mark.parametrize("pidfds", [True, False])
@pytest.mark.parametrize("error", [OSError, MemoryError])
def test_whatever_cannot_be_made_nothing_stays_open(monkeypatch, pidfds, error):
    def refuse(*_):
        raise error("no more")

    before = open_descriptors()
    needed = [(worker_fork.black_box, "create"), (os, "pipe2"), *([(os, "dup")] if pidfds else [])]
    for module, name in needed:
        ours, theirs = channels.pair()
        in_host, in_worker = tokens.pair()
        end = theirs.detach()
        with monkeypatch.context() as patch:
            patch.setattr(module, name, refuse)
            with pytest.raises(error, match="no more"):
                WorkerDescriptors(end, in_worker, pidfds=pidfds, capture_stderr=True)
        ours.close()
        os.close(in_host)
    assert open_descriptors() == before


def test_none_has_the_number_of_a_standard_stream():
    def child():
        _, theirs = channels.pair()
        _, in_worker = tokens.pair()
        for fd in (0, 1, 2):
            os.close(fd)
        there = set(open_descriptors())
        descriptors = WorkerDescriptors(theirs.detach(), in_worker, pidfds=True, capture_stderr=True)
        assert min(descriptors._open) > 2
        assert set(open_descriptors()) - there == descriptors._open - {in_worker, descriptors.end}
        descriptors.close()
        assert set(open_descriptors()) == there - {in_worker, descriptors.end}

    assert in_forked_child(child) == "ok"


# ---- those that live ---------------------------------------------------------------------------------------------


def test_a_worker_is_among_the_living_from_its_birth_until_it_is_removed(monkeypatch):
    closed = []
    monkeypatch.setattr(worker_fork.native, "close_range", lambda first, end: closed.append((first, end)))
    living = LivingWorkers(77)
    workers = [
        WorkerProcess(slot, 1, SimpleNamespace(pid=pid, fileno=lambda fd=fd: fd), mark=number)
        for slot, pid, fd, number in ((0, 100, 10, 5), (1, 101, 12, 6))
    ]
    for worker in workers:
        living.add(worker)
    assert living.by_pid == {100: workers[0], 101: workers[1]}
    assert living.marks == {77, 5, 6}
    assert [living.of_handle(fd) for fd in (10, 11, 12)] == [workers[0], None, workers[1]]
    living.remove(workers[0])
    assert living.by_pid == {101: workers[1]}
    assert living.marks == {77, 6}
    assert living.of_handle(10) is None
    living.ranges.close_in_worker()
    assert closed == [(12, 13)]
    living.add(workers[0])
    assert living.of_handle(10) is workers[0]
