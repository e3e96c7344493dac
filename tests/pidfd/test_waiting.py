import errno
import math
import os
import resource
import signal
import threading
import time

import pytest

from pidfdpool.pidfd import ChildHandle, ExitStatus, Pidfd, PidfdError, PidfdMisused, SentinelHandle, sentinel_pipe
from tests.conditions import eventually
from tests.pidfd.processes import fork, open_descriptors, reap, sleeper


@pytest.fixture(params=["pidfd", "sentinel", "child"])
def process(request):
    """Provide a sleeping child and a handle of each kind."""
    read, write = sentinel_pipe()
    with sleeper() as pid:
        # The sleeper was forked with both ends; only its copy of the write end may remain.
        os.close(write)
        if request.param == "pidfd":
            os.close(read)
            handle = Pidfd.open(pid)
        elif request.param == "sentinel":
            handle = SentinelHandle(read, pid, lambda sig, _group: os.kill(pid, sig))
        else:
            handle = ChildHandle(read, pid)
        with handle:
            yield handle


def waiting_thread(handle):
    """Start a thread that waits for good, and return it, with a list of what came of it, once it does."""
    before = open_descriptors()
    outcome = []

    def wait() -> None:
        try:
            outcome.append(handle.wait())
        except PidfdError as error:
            outcome.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    eventually(lambda: open_descriptors() != before, "the thread has made its wakeup")
    return thread, outcome


def test_waiting_ends_with_the_process(process):
    thread, outcome = waiting_thread(process)
    process.send_signal(signal.SIGKILL)
    thread.join()
    assert outcome == [True]
    assert process.wait() is True
    assert process.wait(0) is True


def test_a_timeout_says_that_the_process_still_runs(process):
    assert process.wait(0) is False
    began = time.monotonic()
    assert process.wait(0.02) is False
    assert time.monotonic() - began >= 0.02


@pytest.mark.parametrize("timeout", [-1, -0.001, math.nan, -math.inf, "1"])
def test_an_impossible_timeout_is_refused(process, timeout):
    with pytest.raises(PidfdMisused, match="timeout") as caught:
        process.wait(timeout)
    assert (caught.value.errno, caught.value.pid) == (errno.EINVAL, process.pid)


@pytest.mark.parametrize("timeout", [math.inf, 1e300, 10**9])
def test_a_timeout_may_be_longer_than_poll_can_count(process, timeout):
    threading.Timer(0.01, process.send_signal, [signal.SIGKILL]).start()
    assert process.wait(timeout) is True


def test_closing_wakes_who_waits(process):
    thread, outcome = waiting_thread(process)
    process.close()
    thread.join()
    (error,) = outcome
    assert isinstance(error, PidfdMisused)
    assert (error.errno, error.pid) == (errno.EBADF, process.pid)


def test_closing_wakes_every_waiter_however_the_race_goes():
    with sleeper() as pid:
        before = open_descriptors()
        for _ in range(100):
            handle = Pidfd.open(pid)
            outcomes = []

            def wait(handle=handle, outcomes=outcomes) -> None:
                try:
                    outcomes.append(handle.wait(30))
                except PidfdMisused as error:
                    outcomes.append(error.errno)

            threads = [threading.Thread(target=wait) for _ in range(3)]
            for thread in threads:
                thread.start()
            handle.close()
            for thread in threads:
                thread.join()
            assert outcomes == [errno.EBADF] * 3
            assert open_descriptors() == before


def test_a_waiter_is_not_confused_when_the_number_is_taken_by_another_file():
    with sleeper() as pid:
        handle = Pidfd.open(pid)
        number = handle.fileno()
        thread, outcome = waiting_thread(handle)
        handle.close()
        thread.join()
        stranger = os.eventfd(1)  # readable: a waiter that polled it would say that the process has ended
        try:
            assert stranger == number
            assert [error.errno for error in outcome] == [errno.EBADF]
            with pytest.raises(PidfdMisused):
                handle.wait(0)
        finally:
            os.close(stranger)


def test_a_signal_handler_may_close_the_handle_that_its_thread_waits_on():
    before = open_descriptors()
    with sleeper() as pid:
        handle = Pidfd.open(pid)
        previous = signal.signal(signal.SIGUSR1, lambda *_: handle.close())
        me = threading.main_thread().ident
        timer = threading.Timer(0.02, signal.pthread_kill, [me, signal.SIGUSR1])
        timer.start()
        try:
            with pytest.raises(PidfdMisused) as caught:
                handle.wait(30)
        finally:
            timer.join()
            signal.signal(signal.SIGUSR1, previous)
        assert caught.value.errno == errno.EBADF
        assert open_descriptors() == before


def test_waiting_without_a_descriptor_left_says_so():
    with sleeper() as pid, Pidfd.open(pid) as handle:
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        probe = os.dup(0)  # the lowest number that is free: nothing more can be opened below it
        os.close(probe)
        resource.setrlimit(resource.RLIMIT_NOFILE, (probe, limits[1]))
        try:
            assert handle.alive()
            assert handle.wait(0) is False
            with pytest.raises(PidfdError) as caught:
                handle.wait(30)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert (caught.value.errno, caught.value.pid) == (errno.EMFILE, pid)


def test_what_the_parent_reports_wakes_who_waits():
    read, write = sentinel_pipe()
    try:
        with SentinelHandle(read, 42, lambda _sig, _group: None) as handle:
            thread, outcome = waiting_thread(handle)
            handle.set_exit_status(ExitStatus.from_wait_status(9))
            thread.join()
            assert outcome == [True]
            assert not handle.alive()
    finally:
        os.close(write)


def test_a_process_that_ended_before_needs_no_wakeup():
    pid = fork(lambda: 0)
    with Pidfd.open(pid) as handle:
        assert handle.wait() is True
        before = open_descriptors()
        assert handle.wait(5) is True
        assert open_descriptors() == before
    reap(pid)
