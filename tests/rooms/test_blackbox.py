"""The black box: what a process leaves behind for who looks at it after its death."""

from __future__ import annotations

import errno
import os
import re
import signal
import time

import pytest

from pidfdpool import blackbox, payload
from pidfdpool.pidfd import Pidfd
from pidfdpool.worker import chunk
from tests.conditions import eventually, is_alive


@pytest.fixture
def box():
    fd = blackbox.create()
    yield fd
    os.close(fd)


def hold_the_gil_in_a_regex():
    re.match(r"(a+)+$", "a" * 60 + "b")


@pytest.fixture
def start(box):
    """Give the test a function that starts children, and see them dead however the test ends."""
    started = []

    def start(body):
        started.append(fork(box, body))
        return started[-1]

    yield start
    for child in started:
        if not child.closed:
            child.send_signal(signal.SIGKILL)
            finish(child)


def fork(box, body):
    """Run body in a forked child that records its stacks; return the child's handle once it says that it runs."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            blackbox.record_stacks(box)
            body(lambda: os.write(write, b"."))
        finally:
            os._exit(7)
    os.close(write)
    try:
        assert os.read(read, 1) == b"."
    finally:
        os.close(read)
    return Pidfd.open(pid)


def finish(child):
    assert child.wait(10)
    status = child.exit_status()
    child.close()
    return status


def wait_until_it_is_deep_in_there(child):
    """Wait until the regular expression is all that the child does.

    faulthandler walks frames of Python's at whatever point the signal comes. Where one is only being made or left, it
    may trip over it (seen once with CPython 3.13, as a SIGSEGV).
    """
    eventually(
        lambda: sum(map(int, open(f"/proc/{child.pid}/stat").read().split()[13:15])) > 5, "it computes for 60 ms"
    )


def test_a_new_box_tells_nothing(box):
    assert blackbox.last_beat(box) is None
    assert blackbox.stack(box) is None
    assert not os.get_inheritable(box)


def test_a_heartbeat_is_read_back_through_another_descriptor(box):
    other = os.dup(box)
    try:
        for now in (time.monotonic(), time.monotonic()):
            blackbox.beat(box, now)
            assert blackbox.last_beat(other) == now
        assert blackbox.stack(other) is None
    finally:
        os.close(other)


def test_a_box_that_cannot_be_read_tells_nothing():
    read, write = os.pipe()
    os.close(write)
    try:
        assert blackbox.last_beat(read) is None
        assert blackbox.stack(read) is None
    finally:
        os.close(read)


def test_sigterm_writes_the_stack_of_a_process_whose_gil_is_held_and_still_kills_it(box, start):
    def body(ready):
        ready()
        hold_the_gil_in_a_regex()

    child = start(body)
    wait_until_it_is_deep_in_there(child)
    child.send_signal(signal.SIGTERM)
    assert finish(child).signal == signal.SIGTERM
    assert "hold_the_gil_in_a_regex" in blackbox.stack(box)


def test_a_stopped_process_that_is_sent_both_signals_at_once_still_tells(box, start):
    def body(ready):
        ready()
        hold_the_gil_in_a_regex()

    child = start(body)
    wait_until_it_is_deep_in_there(child)
    for number in (signal.SIGSTOP, blackbox.STACK_SIGNAL, signal.SIGTERM, signal.SIGCONT):
        child.send_signal(number)
    assert finish(child).signal == signal.SIGTERM
    assert "most recent call first" in blackbox.stack(box)


def test_a_process_that_ignores_sigterm_is_asked_by_the_other_signal(box, start):
    def body(ready):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        ready()
        hold_the_gil_in_a_regex()

    child = start(body)
    child.send_signal(signal.SIGTERM)

    def asked():
        # A signal that comes while the interpreter enters a function finds a stack that is cut off there.
        child.send_signal(blackbox.STACK_SIGNAL)
        # A process that lives on may be in the middle of writing; the last line is that of the outermost frame.
        return "<module>" in (blackbox.stack(box) or "")

    eventually(asked, "the stack is written")
    assert is_alive(child.pid)
    child.send_signal(signal.SIGKILL)
    assert finish(child).signal == signal.SIGKILL


def test_a_heartbeat_does_not_move_where_stacks_are_written(box, start):
    def body(ready):
        blackbox.beat(box, 1.5)
        signal.raise_signal(blackbox.STACK_SIGNAL)
        blackbox.beat(box, 2.5)
        signal.raise_signal(blackbox.STACK_SIGNAL)
        ready()

    assert finish(start(body)).code == 7
    assert blackbox.last_beat(box) == 2.5
    assert blackbox.stack(box).count("most recent call first") == 2


def test_of_a_long_stack_the_end_is_returned(box):
    os.pwrite(box, b"x" * 100 + b"the end", blackbox.STACK_AT)
    assert blackbox.stack(box, 10) == "xxxthe end"
    assert blackbox.stack(box) == "x" * 100 + "the end"


def test_a_forked_child_that_forgets_leaves_the_box_alone_and_dies_as_usual(box, start):
    def body(ready):
        blackbox.forget_stacks()
        ready()
        signal.pause()

    child = start(body)
    child.send_signal(signal.SIGTERM)
    assert finish(child).signal == signal.SIGTERM
    assert blackbox.stack(box) is None


def test_forgetting_leaves_a_handler_of_the_tasks_in_place(box, start):
    def body(ready):
        signal.signal(signal.SIGTERM, lambda *_: os._exit(3))
        blackbox.forget_stacks()
        ready()
        while True:  # a signal just before one long wait would be seen by nobody
            time.sleep(0.05)

    child = start(body)
    child.send_signal(signal.SIGTERM)
    assert finish(child).code == 3


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM, errno.EACCES, None])
def test_without_memory_files_the_box_is_a_file_without_a_name(monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    if number is None:
        monkeypatch.delattr(os, "memfd_create")
    else:
        monkeypatch.setattr(os, "memfd_create", refuse)
    fd = blackbox.create()
    try:
        assert os.fstat(fd).st_nlink == 0
        blackbox.beat(fd, 1.0)
        assert blackbox.last_beat(fd) == 1.0
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM])
def test_a_lack_of_descriptors_or_memory_is_reported(monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "memfd_create", refuse)
    with pytest.raises(OSError, match=os.strerror(number)):
        blackbox.create()


# ---- calls -----------------------------------------------------------------------------------------------------


def test_while_a_run_of_calls_is_made_each_is_marked_and_afterwards_none(box, monkeypatch):
    """Guards against a worker that dies while it pickles the results, and is said to have been at the last call."""
    monkeypatch.setattr(chunk, "box", box)
    monkeypatch.setattr(chunk, "_marks", None)
    (function,), arguments = payload.dumps(blackbox.marks), payload.dumps([box] * 3)
    results, failure, _ = chunk.call_all(function, arguments, False)
    assert (payload.loads([buffer.raw() for buffer in results]), failure) == ([1, 2, 3], None)
    assert blackbox.marks(box) == 0
