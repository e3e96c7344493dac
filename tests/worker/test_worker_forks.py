"""What a process that a task forks has of the worker: nothing, so that it neither answers nor keeps anything open."""

from __future__ import annotations

import os
import signal
import time

import pytest

from pidfdpool import current_task, heartbeat, unhealthy
from pidfdpool.process import native
from pidfdpool.transport import black_box, framing
from pidfdpool.worker import chunk, context, rebuild_guard
from tests.conditions import eventually, in_forked_child, is_alive, open_descriptors
from tests.worker.own_worker import OwnWorker


@pytest.fixture
def worker():
    with OwnWorker(watch_memory=True) as worker:
        assert worker.receive().kind == framing.READY
        yield worker


def double(number):
    return 2 * number


@pytest.mark.parametrize("raises", [False, True])
def test_a_copy_that_returns_from_the_task_ends_and_the_worker_alone_answers(worker, raises):
    worker.send_task(1, fork_and_return, raises)
    frame = worker.receive()
    assert (frame.kind, frame.value) == (framing.ERROR if raises else framing.RESULT, 1)
    assert worker.run(2, os.waitstatus_to_exitcode, worker.run(3, wait_for_child)) == 0
    assert worker.run(4, double, 2) == 4


PIDS: list = []


def fork_and_return(raises):
    pid = os.fork()
    if pid:
        PIDS.append(pid)
    if raises:
        raise LookupError
    return "child" if not pid else "worker"


def wait_for_child():
    return os.waitpid(PIDS.pop(), 0)[1]


def test_what_the_copy_had_written_into_a_buffer_is_there_when_it_has_ended(worker, tmp_path):
    worker.send_task(1, fork_and_print, str(tmp_path / "out"))
    worker.result()
    worker.run(2, wait_for_child)
    assert (tmp_path / "out").read_text() == "of the copy\n"


def fork_and_print(path):
    import sys

    pid = os.fork()
    if pid:
        PIDS.append(pid)
    else:
        sys.stdout = open(path, "w")  # it stays open, and is not flushed
        print("of the copy")


def test_a_copy_holds_no_descriptor_of_the_workers(worker):
    before, after = worker.run(1, descriptors_here_and_in_a_copy)
    for name in ("blackbox", "/statm", "socket:", "eventfd"):
        assert any(name in target for target in before.values()), name
        assert not any(name in target for target in after.values()), name
    pipes = {fd for fd, target in before.items() - open_descriptors().items() if target.startswith("pipe:")}
    assert len(pipes) == 2
    assert not pipes & set(after), "the one for answers, and the one that tells of the worker's life"
    assert set(after.items()) <= set(before.items())


def descriptors_here_and_in_a_copy():
    before = open_descriptors()
    reader, writer = os.pipe()
    if not os.fork():
        os.close(reader)
        here = {fd: target for fd, target in open_descriptors().items() if fd != writer}
        os.write(writer, repr(here).encode())
        os._exit(0)
    os.close(writer)
    with open(reader) as file:
        found = eval(file.read())
    os.wait()
    return before, found


def test_a_copy_that_lives_on_does_not_keep_the_host_from_seeing_the_end(worker):
    pid = worker.run(1, fork_and_stay)
    worker.send_exit()
    try:
        with pytest.raises(EOFError):
            worker.receive()
        assert is_alive(pid)
    finally:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: not is_alive(pid), "it has ended")


def fork_and_stay():
    pid = os.fork()
    if not pid:
        time.sleep(60)
        os._exit(0)
    return pid


def in_copy(look):
    """Return what look() raises or returns in a copy of this process."""
    reader, writer = os.pipe()
    if not os.fork():
        try:
            told = repr(look())
        except BaseException as error:
            told = repr(f"{type(error).__name__}: {error}")
        os.write(writer, told.encode())
        os._exit(0)
    os.close(writer)
    with open(reader) as file:
        found = file.read()
    os.wait()
    return eval(found)


def says_nothing():
    heartbeat()
    unhealthy("of the copy")
    return current_task(), context.loop(), context.running_task(), chunk.black_box_fd, chunk._marks


def test_a_copy_says_nothing_for_the_worker_and_has_no_task(worker):
    assert worker.run(1, in_copy, says_nothing) == (None, None, 0, None, None)
    assert black_box.last_heartbeat(worker.box) is None
    assert worker.run(2, double, 2) == 4, "it is well, and nothing else has been said"


def write_a_stack_into_what_is_opened_next():
    """Send the signals that write stacks, where all of the worker's numbers are open again."""
    fds = [os.memfd_create("of the copy") for _ in range(30)]
    if signal.getsignal(black_box.STACK_SIGNAL) == signal.SIG_DFL:
        pid = os.fork()
        if not pid:
            os.kill(os.getpid(), black_box.STACK_SIGNAL)
            os._exit(0)
        ended = os.waitpid(pid, 0)[1]
        return os.waitstatus_to_exitcode(ended), [os.fstat(fd).st_size for fd in fds if os.fstat(fd).st_size]
    return None


def test_a_stack_of_a_copy_is_written_nowhere(worker):
    status, written = worker.run(1, in_copy, write_a_stack_into_what_is_opened_next)
    assert (status, written) == (-black_box.STACK_SIGNAL, [])
    assert not black_box.read_stack(worker.box)


def fork_while_rebuilding():
    return in_copy(lambda: rebuild_guard.check() or "allowed")


class ForksWhenRebuilt:
    def __reduce__(self):
        return fork_while_rebuilding, ()


def test_a_copy_that_is_made_while_a_call_is_rebuilt_may_start_no_pool(worker):
    assert worker.run(1, str, ForksWhenRebuilt()).startswith("RuntimeError: a pool was used by ")
    assert worker.run(2, fork_while_rebuilding) == "allowed"


def test_what_a_copy_has_mapped_of_a_chunk_begins_no_call():
    def copy():
        run = chunk._Run([1, 2, 3])
        calls = run.calls()
        assert next(calls) == 1
        chunk._run = run
        chunk.forget_in_forked_child()
        assert run.stopped
        assert list(calls) == []

    assert in_forked_child(copy) == "ok"


def test_nothing_is_closed_twice_in_a_copy_of_a_copy(worker):
    assert worker.run(1, in_copy, copy_of_a_copy) == 30


def copy_of_a_copy():
    fds = [os.memfd_create("of the copy") for _ in range(30)]
    alive = in_copy(lambda: sum(1 for fd in fds if os.fstat(fd)))
    for fd in fds:
        native.close(fd)
    return alive
