"""The black box: what can be read of a process after its death."""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
import threading
import time

import pytest

from pidfdpool.pidfd import Pidfd
from pidfdpool.serialization import payload
from pidfdpool.transport import black_box
from pidfdpool.worker import chunk
from tests.conditions import eventually, is_alive


def hold_the_gil_in_a_regex():
    re.match(r"(a+)+$", "a" * 60 + "b")


@pytest.fixture
def start(box):
    """Give the test a function that starts children; all are dead at the end, however the test ends."""
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
    """Run body in a forked child that records its stacks; return the child's handle when it reports that it runs."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            black_box.record_stacks(box)
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
    """Wait until the child runs nothing but the regular expression.

    faulthandler walks the frames at whatever point the signal comes. If a frame is being made or left, it may crash
    (seen once with CPython 3.13, as a SIGSEGV).
    """
    eventually(
        lambda: sum(map(int, open(f"/proc/{child.pid}/stat").read().split()[13:15])) > 5, "it computes for 60 ms"
    )


def test_a_new_box_is_empty(box):
    assert black_box.last_heartbeat(box) is None
    assert black_box.read_stack(box) is None
    assert not os.get_inheritable(box)


def test_a_heartbeat_is_read_back_through_another_descriptor(box):
    other = os.dup(box)
    try:
        for now in (time.monotonic(), time.monotonic()):
            black_box.record_heartbeat(box, now)
            assert black_box.last_heartbeat(other) == now
        assert black_box.read_stack(other) is None
    finally:
        os.close(other)


def test_a_heartbeat_of_the_future_is_not_believed(box):
    """A task may write into the box, and would be alive for ever."""
    black_box.record_heartbeat(box, time.monotonic() + 1000)
    assert black_box.last_heartbeat(box) is None


def test_an_unreadable_box_counts_as_empty():
    read, write = os.pipe()
    os.close(write)
    try:
        assert black_box.last_heartbeat(read) is None
        assert black_box.read_stack(read) is None
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
    assert "hold_the_gil_in_a_regex" in black_box.read_stack(box)


def wait_in_another_thread(waits):
    waits.set()
    while True:
        time.sleep(5)


def test_sigterm_writes_the_stacks_of_all_threads(box, start):
    """What the main thread waits for is often in another one."""

    def body(ready):
        waits = threading.Event()
        threading.Thread(target=wait_in_another_thread, args=(waits,), daemon=True).start()
        waits.wait()
        ready()
        while True:
            signal.pause()

    child = start(body)
    eventually(lambda: all_threads_sleep(child.pid), "none of its threads makes or leaves a frame")
    child.send_signal(signal.SIGTERM)
    assert finish(child).signal == signal.SIGTERM
    assert "wait_in_another_thread" in black_box.read_stack(box)


def all_threads_sleep(pid):
    states = [open(f"/proc/{pid}/task/{name}/stat").read().split(")")[1].split()[0] for name in threads_of(pid)]
    return len(states) == 2 and set(states) == {"S"}


def threads_of(pid):
    return os.listdir(f"/proc/{pid}/task")


def test_a_stopped_process_that_gets_both_signals_at_once_writes_its_stack(box, start):
    def body(ready):
        ready()
        hold_the_gil_in_a_regex()

    child = start(body)
    wait_until_it_is_deep_in_there(child)
    for number in (signal.SIGSTOP, black_box.STACK_SIGNAL, signal.SIGTERM, signal.SIGCONT):
        child.send_signal(number)
    assert finish(child).signal == signal.SIGTERM
    assert "most recent call first" in black_box.read_stack(box)


def test_a_process_that_ignores_sigterm_writes_its_stack_at_the_other_signal(box, start):
    def body(ready):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        ready()
        hold_the_gil_in_a_regex()

    child = start(body)
    child.send_signal(signal.SIGTERM)

    def asked():
        # If the signal comes while the interpreter enters a function, the stack is cut off there.
        child.send_signal(black_box.STACK_SIGNAL)
        # A process that lives on may still be writing; the last line is that of the outermost frame.
        return "<module>" in (black_box.read_stack(box) or "")

    eventually(asked, "the stack is written")
    assert is_alive(child.pid)
    child.send_signal(signal.SIGKILL)
    assert finish(child).signal == signal.SIGKILL


def test_a_heartbeat_does_not_move_where_stacks_are_written(box, start):
    def body(ready):
        black_box.record_heartbeat(box, 1.5)
        signal.raise_signal(black_box.STACK_SIGNAL)
        black_box.record_heartbeat(box, 2.5)
        signal.raise_signal(black_box.STACK_SIGNAL)
        ready()

    assert finish(start(body)).code == 7
    assert black_box.last_heartbeat(box) == 2.5
    assert black_box.read_stack(box).count("most recent call first") == 2


def test_the_end_of_a_long_stack_is_returned(box):
    os.pwrite(box, b"x" * 100 + b"the end", black_box.STACKS_OFFSET)
    assert black_box.read_stack(box, 10) == "xxxthe end"
    assert black_box.read_stack(box) == "x" * 100 + "the end"


def test_a_forked_child_that_stops_recording_leaves_the_box_alone_and_dies_as_usual(box, start):
    def body(ready):
        black_box.stop_recording_stacks()
        ready()
        signal.pause()

    child = start(body)
    child.send_signal(signal.SIGTERM)
    assert finish(child).signal == signal.SIGTERM
    assert black_box.read_stack(box) is None


def test_stopping_to_record_leaves_a_tasks_handler_in_place(box, start):
    def body(ready):
        signal.signal(signal.SIGTERM, lambda *_: os._exit(3))
        black_box.stop_recording_stacks()
        ready()
        while True:  # a signal just before one long wait would not be noticed
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
    fd = black_box.create()
    try:
        assert os.fstat(fd).st_nlink == 0
        black_box.record_heartbeat(fd, 1.0)
        assert black_box.last_heartbeat(fd) == 1.0
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM])
def test_a_lack_of_descriptors_or_memory_is_reported(monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "memfd_create", refuse)
    with pytest.raises(OSError, match=os.strerror(number)):
        black_box.create()


# ---- calls -----------------------------------------------------------------------------------------------------


def test_while_a_run_of_calls_is_made_each_is_marked_and_afterwards_none(box, monkeypatch):
    """Guards against a worker that dies while it pickles the results, and is said to have been at the last call."""
    monkeypatch.setattr(chunk, "black_box_fd", box)
    monkeypatch.setattr(chunk, "_marks", None)
    (function,), arguments = payload.dumps(black_box.count_marks), payload.dumps([box] * 3)
    results, failure, _ = chunk.call_all(function, arguments, False)
    assert (payload.loads([buffer.raw() for buffer in results]), failure) == ([1, 2, 3], None)
    assert black_box.count_marks(box) == 0


def test_before_the_worker_records_what_it_begins_nothing_is_known_of_that(box):
    """A worker may be without room for its record: then its tokens have to tell."""
    os.pwrite(box, (7).to_bytes(8, sys.byteorder), 8 * black_box.LAST_BEGUN)
    assert black_box.last_begun(box) is None
    assert black_box.claimed_tasks(box) == ()
    black_box.map_words(box)[black_box.LAST_BEGUN] = 8
    assert black_box.last_begun(box) == 8
