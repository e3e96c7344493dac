import errno
import os
import resource
import signal
import threading

import pytest

from pidfdpool.pidfd import ExitStatus, Pidfd, PidfdMisused, capabilities
from tests.conditions import eventually, is_zombie
from tests.pidfd.processes import fork, reap, sleeper, wait_for_zombie

needs_info_exit = pytest.mark.skipif(
    not capabilities().info_exit, reason="this kernel keeps no exit status for pidfds (Linux 6.15)"
)


def die() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("code", [0, 3, 255])
def test_an_exit_code_is_told_and_the_child_is_reaped(code):
    pid = fork(lambda: code)
    with Pidfd.open(pid) as handle:
        handle.wait()
        assert handle.exit_status() == ExitStatus.from_wait_status(code << 8)
        with pytest.raises(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGRTMAX])
def test_a_deadly_signal_is_told(number):
    def child() -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    pid = fork(child)
    with Pidfd.open(pid) as handle:
        handle.wait()
        assert handle.exit_status().signal == number
        assert handle.exit_status().returncode == -number


def test_a_running_process_has_no_exit_status():
    with sleeper() as pid, Pidfd.open(pid) as handle:
        assert handle.exit_status() is None


def test_a_known_status_survives_closing():
    pid = fork(lambda: 3)
    with Pidfd.open(pid) as handle:
        handle.wait()
        handle.exit_status()
    assert handle.exit_status().code == 3


@needs_info_exit
@pytest.mark.parametrize(("body", "expected"), [(lambda: 3, 3 << 8), (die, signal.SIGTERM)])
def test_when_somebody_else_reaps_first_the_status_is_still_told(body, expected):
    pid = fork(body)
    with Pidfd.open(pid) as handle:
        assert reap(pid) == expected
        assert handle.exit_status() == ExitStatus.from_wait_status(expected)


@needs_info_exit
def test_when_children_are_ignored_the_status_is_still_told():
    previous = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        read, write = os.pipe()
        pid = fork(lambda: os.read(read, 1)[0])
        with Pidfd.open(pid) as handle:
            os.write(write, b"\x07")
            handle.wait()
            assert handle.exit_status().code == 7
        os.close(read)
        os.close(write)
    finally:
        signal.signal(signal.SIGCHLD, previous)


@needs_info_exit
def test_a_strangers_status_is_unknown_until_its_parent_reaps():
    pid_end, tell = os.pipe()
    hold, release = os.pipe()

    def parent() -> int:
        child = fork(lambda: 5)
        os.write(tell, str(child).encode())
        os.read(hold, 1)
        reap(child)
        return 0

    parent_pid = fork(parent)
    with Pidfd.open(int(os.read(pid_end, 20))) as handle:
        eventually(lambda: is_zombie(handle.pid), "the grandchild has ended, and nobody has reaped it")
        assert handle.wait(0)
        assert handle.exit_status() == ExitStatus.UNKNOWN
        os.write(release, b"!")
        reap(parent_pid)
        assert handle.exit_status().code == 5
    for fd in (pid_end, tell, hold, release):
        os.close(fd)


def test_without_help_from_the_kernel_the_status_is_unknown_and_not_made_up(monkeypatch):
    def old_kernel(*_):
        raise OSError(errno.ENOTTY, "Inappropriate ioctl for device")

    monkeypatch.setattr("fcntl.ioctl", old_kernel)
    pid = fork(lambda: 3)
    with Pidfd.open(pid) as handle:
        reap(pid)
        assert handle.exit_status() == ExitStatus.UNKNOWN
        monkeypatch.undo()
        if capabilities().info_exit:
            assert handle.exit_status().code == 3  # unknown was not for good


def test_an_unknown_status_is_not_to_be_had_from_a_closed_handle():
    with Pidfd.self() as handle:
        pass
    with pytest.raises(PidfdMisused, match="closed"):
        handle.exit_status()


def test_of_many_threads_that_ask_at_once_none_is_told_unknown(monkeypatch):
    def old_kernel(*_):
        raise OSError(errno.ENOTTY, "Inappropriate ioctl for device")

    monkeypatch.setattr("fcntl.ioctl", old_kernel)  # without it, who comes second has only the first one's answer
    for _ in range(30):
        pid = fork(lambda: 3)
        with Pidfd.open(pid) as handle:
            handle.wait()
            barrier, told = threading.Barrier(4), []

            def ask(handle=handle, barrier=barrier, told=told) -> None:
                barrier.wait()
                told.append(handle.exit_status())

            threads = [threading.Thread(target=ask) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert told == [ExitStatus.from_wait_status(3 << 8)] * 4


def test_ended_but_not_yet_waitable_is_unknown_and_does_not_block(monkeypatch):
    """As with a tracer, which is told of the end before the parent is."""
    pid = fork(lambda: 3)
    with Pidfd.open(pid) as handle:
        wait_for_zombie(pid)
        with monkeypatch.context() as patch:
            patch.setattr(os, "waitid", lambda *_: None)
            assert handle.exit_status() == ExitStatus.UNKNOWN
        assert handle.exit_status().code == 3
