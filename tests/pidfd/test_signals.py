import ctypes
import errno
import os
import re
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from pidfdpool.pidfd import Pidfd, PidfdError, PidfdMisused, ProcessGone, capabilities
from pidfdpool.process import native
from tests.conditions import eventually, is_alive
from tests.pidfd.processes import fork, open_descriptors, reap, sleep_long, sleeper, wait_for_zombie


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, int(signal.SIGUSR1)])
def test_a_signal_reaches_the_process(number):
    with sleeper() as pid, Pidfd.open(pid) as handle:
        handle.send_signal(number)
        assert handle.wait()
        assert handle.exit_status().signal == number


@pytest.mark.parametrize("number", [-1, signal.NSIG, 1000, True, "9", None])
def test_what_is_no_signal_is_refused_with_errno_and_pid(number):
    with Pidfd.self() as handle, pytest.raises(PidfdMisused, match="no such signal") as caught:
        handle.send_signal(number)
    assert (caught.value.errno, caught.value.pid) == (errno.EINVAL, os.getpid())


def test_a_reaped_process_is_not_signalled():
    pid = fork(lambda: 0)
    with Pidfd.open(pid) as handle:
        wait_for_zombie(pid)
        handle.send_signal(signal.SIGTERM)  # taken by a zombie, without notice
        reap(pid)
        with pytest.raises(ProcessLookupError, match="SIGTERM") as caught:
            handle.send_signal(signal.SIGTERM)
    assert isinstance(caught.value, ProcessGone)
    assert (caught.value.errno, caught.value.pid) == (errno.ESRCH, pid)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can take the identity of another user")
def test_another_users_process_is_not_signalled():
    with sleeper() as pid:

        def child() -> int:
            handle = Pidfd.open(pid)
            os.setresuid(65534, 65534, 65534)
            try:
                handle.send_signal(signal.SIGTERM)
            except PermissionError as error:
                return 42 if (error.errno, error.pid) == (errno.EPERM, pid) else 1
            return 2

        assert os.waitstatus_to_exitcode(reap(fork(child))) == 42
        assert is_alive(pid)


@pytest.mark.parametrize("sent", [0, 1, 123456, -5, 2**31 - 1])
def test_a_signal_carries_a_value(sent):
    assert received(sent) == (sent, os.getpid(), -1)  # SI_QUEUE


@pytest.mark.skipif(not capabilities().group_signal, reason="this kernel cannot signal a group by pidfd (Linux 6.9)")
@pytest.mark.parametrize("leads", [False, True])
def test_so_does_one_for_a_group_whether_or_not_the_process_leads_one(leads):
    assert received(5, leads=leads, group=True) == (5, os.getpid(), -1)


def received(sent, *, leads=False, **options):
    """Send a signal with a value to a child; return the value that it got, from whom, and how it was sent."""
    ready, tell = os.pipe()
    answer, reply = os.pipe()

    def child() -> int:
        if leads:
            os.setpgid(0, 0)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        os.write(tell, b"!")
        info = signal.sigwaitinfo([signal.SIGUSR1])
        os.write(reply, f"{info.si_status} {info.si_pid} {info.si_code}".encode())
        return 0

    pid = fork(child)
    with Pidfd.open(pid) as handle:
        os.read(ready, 1)
        handle.send_signal(signal.SIGUSR1, value=sent, **options)
        value, sender, code = map(int, os.read(answer, 100).split())
        reap(pid)
    for fd in (ready, tell, answer, reply):
        os.close(fd)
    return ctypes.c_int(value).value, sender, code


@pytest.mark.parametrize("value", ["1", 1.5, True, 1 << 64, -(1 << 63) - 1])
def test_a_value_that_is_no_integer_of_64_bits_is_refused(value):
    with Pidfd.self() as handle, pytest.raises(PidfdMisused, match="no integer") as caught:
        handle.send_signal(0, value=value)
    assert (caught.value.errno, caught.value.pid) == (errno.EINVAL, os.getpid())


def test_a_value_cannot_be_sent_to_a_reaped_process():
    pid = fork(lambda: 0)
    with Pidfd.open(pid) as handle:
        reap(pid)
        with pytest.raises(ProcessGone) as caught:
            handle.send_signal(signal.SIGUSR1, value=1)
    assert (caught.value.errno, caught.value.pid) == (errno.ESRCH, pid)


def group_with_a_grandchild():
    """Fork a leader of a group of its own, which forks and ends; return its pid and that of the grandchild."""
    read, write = os.pipe()

    def leader() -> int:
        os.setpgid(0, 0)
        os.write(write, str(fork(sleep_long)).encode())
        return 0

    pid = fork(leader)
    grandchild = int(os.read(read, 20))
    os.close(read)
    os.close(write)
    return pid, grandchild


@pytest.mark.skipif(not capabilities().group_signal, reason="this kernel cannot signal a group by pidfd (Linux 6.9)")
def test_a_group_is_killed_through_the_pidfd_of_its_reaped_leader():
    pid, grandchild = group_with_a_grandchild()
    with Pidfd.open(pid) as handle:
        reap(pid)
        assert is_alive(grandchild)
        with pytest.raises(ProcessGone):
            handle.send_signal(signal.SIGKILL)
        handle.send_signal(signal.SIGKILL, group=True)
        eventually(lambda: not is_alive(grandchild), "the grandchild is killed")


@pytest.mark.skipif(not capabilities().group_signal, reason="this kernel cannot signal a group by pidfd (Linux 6.9)")
def test_a_process_that_leads_no_group_is_signalled_alone():
    with sleeper() as pid, sleeper() as sibling, Pidfd.open(pid) as handle:
        assert os.getpgid(pid) == os.getpgid(sibling) == os.getpgid(0)
        handle.send_signal(signal.SIGKILL, group=True)
        assert handle.wait(20)
        assert is_alive(sibling)
        # It has ended, so nobody is left who could have been meant.
        with pytest.raises(ProcessGone, match="group=True"):
            handle.send_signal(signal.SIGKILL, group=True)


def test_the_example_of_the_page_ends_a_child_that_ignores_sigterm(capsys):
    """It shares this process's group, as every child does that nobody has given a group of its own."""
    page = (Path(__file__).parents[2] / "docs/pidfd.md").read_text()
    (example,) = re.findall(r"```python\n([^`]*pidfdpool\.pidfd import Pidfd\n[^`]*)```", page)
    quick = example.replace("timeout=5", "timeout=0.05").replace('"sleep", "60"', "*STUBBORN")
    assert quick.count("STUBBORN") == 1
    stubborn = ("sh", "-c", "trap '' TERM; echo; while :; do sleep 0.02; done")
    made = []

    class Popen(subprocess.Popen):
        def __init__(self, command):
            super().__init__(command, stdout=subprocess.PIPE)
            self.stdout.readline()  # it ignores SIGTERM from here on
            made.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "Popen", Popen)
        exec(quick, {"STUBBORN": stubborn})
    made[0].stdout.close()
    assert capsys.readouterr().out == "killed by SIGKILL\n"
    assert not is_alive(made[0].pid)
    made[0].wait()  # it was reaped by its pidfd; this has Popen take note


def test_a_kernel_that_cannot_signal_groups_is_told_by_the_error(monkeypatch):
    def old_kernel(fd, sig, info=None, flags=0):
        if flags:
            raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(native.signal, "pidfd_send_signal", old_kernel)
    with Pidfd.self() as handle, pytest.raises(PidfdError, match=r"Linux 6\.9") as caught:
        handle.send_signal(signal.SIGTERM, group=True)
    assert (caught.value.errno, caught.value.pid) == (errno.EINVAL, os.getpid())


@pytest.mark.many_times
def test_closing_while_others_signal_never_reaches_a_stranger():
    """The stranger's pidfd takes every number that is given up; one signal through a stale number would kill it."""
    before = open_descriptors()
    with sleeper() as stranger:
        for _ in range(60):
            pid = fork(sleep_long)
            handle = Pidfd.open(pid)
            go, wrong = threading.Event(), []

            def signal_on(handle=handle, go=go, wrong=wrong) -> None:
                go.wait()
                while True:
                    try:
                        handle.send_signal(signal.SIGKILL)
                    except PidfdMisused as error:
                        if error.errno != errno.EBADF:
                            wrong.append(error)
                        return

            threads = [threading.Thread(target=signal_on) for _ in range(3)]
            for thread in threads:
                thread.start()
            go.set()
            handle.close()
            reuse = [os.pidfd_open(stranger) for _ in range(8)]
            for thread in threads:
                thread.join()
            os.kill(pid, signal.SIGKILL)
            reap(pid)
            for fd in reuse:
                os.close(fd)
            assert not wrong
            assert is_alive(stranger)
    assert open_descriptors() == before


def test_the_last_user_closes_and_not_the_one_who_says_so(monkeypatch):
    """The race made slow: while one thread is in the middle of sending, another closes."""
    with sleeper() as pid:
        handle = Pidfd.open(pid)
        number = handle.fileno()
        sending, go_on = threading.Event(), threading.Event()
        seen = []

        def slow(fd, sig, info=None, flags=0):
            sending.set()
            go_on.wait()
            seen.append((fd, os.readlink(f"/proc/self/fd/{fd}")))

        monkeypatch.setattr(native.signal, "pidfd_send_signal", slow)
        thread = threading.Thread(target=handle.send_signal, args=[signal.SIGTERM])
        thread.start()
        sending.wait()
        handle.close()
        assert handle.closed
        assert number in open_descriptors()
        go_on.set()
        thread.join()
        ((fd, target),) = seen
        assert fd == number
        assert "pidfd" in target
        assert number not in open_descriptors()
