import copy
import errno
import fcntl
import gc
import os
import pickle
import signal
import threading

import pytest

from pidfdpool.pidfd import Pidfd, PidfdError, PidfdMisused, ProcessGone
from tests.conditions import eventually, run_python
from tests.pidfd.processes import fork, open_descriptors, reap, sleeper, wait_for_zombie


def test_a_running_process_is_alive_and_a_zombie_is_not():
    with sleeper() as pid, Pidfd.open(pid) as handle:
        assert handle.alive()
        os.kill(pid, signal.SIGKILL)
        wait_for_zombie(pid)
        os.kill(pid, 0)  # by signal 0 it would seem to live
        assert not handle.alive()
        reap(pid)
        assert not handle.alive()


def test_a_process_can_name_itself():
    with Pidfd.self() as handle:
        assert handle.pid == os.getpid()
        assert handle.alive()
        assert handle.exit_status() is None


@pytest.mark.parametrize("pid", [-1, 0, True, "17", None, 1.0, 2**40])
def test_what_is_no_pid_is_refused_with_errno_and_pid(pid):
    with pytest.raises(PidfdMisused) as caught:
        Pidfd.open(pid)
    assert caught.value.errno == errno.EINVAL
    assert caught.value.pid == (pid if isinstance(pid, int) else None)


def test_a_process_that_was_reaped_cannot_be_opened():
    pid = fork(lambda: 0)
    reap(pid)
    with pytest.raises(ProcessLookupError) as caught:
        Pidfd.open(pid)
    assert (caught.value.errno, caught.value.pid) == (errno.ESRCH, pid)


def test_a_thread_is_no_process():
    started, leave = threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: (started.set(), leave.wait()))
    thread.start()
    started.wait()
    try:
        with pytest.raises(PidfdMisused, match="thread") as caught:
            Pidfd.open(thread.native_id)
    finally:
        leave.set()
        thread.join()
    assert (caught.value.errno, caught.value.pid) == (errno.EINVAL, thread.native_id)


def test_a_received_descriptor_is_taken_over_and_its_pid_is_found():
    with sleeper() as pid:
        fd = os.pidfd_open(pid)
        os.set_inheritable(fd, True)
        with Pidfd.from_fd(fd) as handle:
            assert (handle.fileno(), handle.pid) == (fd, pid)
            assert not os.get_inheritable(fd)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


def test_the_pid_of_a_reaped_process_must_be_told():
    pid = fork(lambda: 0)
    fd = os.pidfd_open(pid)
    reap(pid)
    with pytest.raises(ProcessGone, match="pid="):
        Pidfd.from_fd(fd)
    with Pidfd.from_fd(fd, pid) as handle:
        assert handle.pid == pid


def test_taking_over_a_zombie_leaves_its_status_to_be_read():
    pid = fork(lambda: 3)
    wait_for_zombie(pid)
    with Pidfd.from_fd(os.pidfd_open(pid)) as handle:
        assert handle.pid == pid
        assert handle.exit_status().code == 3


@pytest.mark.parametrize("make", [lambda: os.open("/dev/null", os.O_RDONLY), lambda: os.eventfd(0)])
def test_a_descriptor_that_is_no_pidfd_is_refused_and_stays_open(make):
    fd = make()
    try:
        with pytest.raises(PidfdMisused, match="not an open pidfd") as caught:
            Pidfd.from_fd(fd)
        assert caught.value.errno == errno.EBADF
        os.fstat(fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize("fd", [-1, 999_999, 2**40, True, "3", None])
def test_what_is_no_open_descriptor_is_refused(fd):
    with pytest.raises(PidfdMisused) as caught:
        Pidfd.from_fd(fd, 42)
    assert (caught.value.errno, caught.value.pid) == (errno.EBADF, 42)


def test_a_closed_handle_refuses_everything_with_errno_and_pid():
    handle = Pidfd.self()
    handle.close()
    handle.close()
    assert handle.closed
    uses = (
        handle.fileno,
        handle.alive,
        handle.wait,
        handle.exit_status,
        lambda: handle.send_signal(0),
        lambda: handle.send_signal(0, value=1),
    )
    for use in uses:
        with pytest.raises(PidfdMisused, match="closed") as caught:
            use()
        assert (caught.value.errno, caught.value.pid) == (errno.EBADF, os.getpid())


def test_a_descriptor_closed_behind_the_handle_is_an_error_and_no_death():
    handle = Pidfd.self()
    null = os.open("/dev/null", os.O_RDONLY)
    os.close(handle.fileno())
    try:
        for use in (handle.alive, handle.wait, handle.exit_status):
            with pytest.raises(PidfdMisused, match="without the handle") as caught:
                use()
            assert caught.value.errno == errno.EBADF
    finally:
        os.dup2(null, handle.fileno())  # the handle will close this number
        os.close(null)
        handle.close()


def test_the_descriptors_are_close_on_exec():
    with sleeper() as pid, Pidfd.open(pid) as handle:
        before = open_descriptors()
        handle.wait(0.001)
        (wakeup,) = open_descriptors() - before
        for fd in (handle.fileno(), wakeup):
            assert fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC


def test_closing_closes_every_descriptor():
    before = open_descriptors()
    with sleeper() as pid:
        handle = Pidfd.open(pid)
        handle.wait(0.001)
        assert len(open_descriptors() - before) == 2
        handle.close()
        assert open_descriptors() == before


def test_a_forgotten_handle_warns_and_closes():
    before = open_descriptors()

    def forget():
        Pidfd.self()
        gc.collect()

    with pytest.warns(ResourceWarning, match=f"unclosed <Pidfd pid={os.getpid()}"):
        forget()
    assert open_descriptors() == before


def test_the_repr_tells_the_state():
    with sleeper() as pid:
        handle = Pidfd.open(pid)
        assert repr(handle) == f"<Pidfd pid={pid} fd={handle.fileno()} alive>"
        os.kill(pid, signal.SIGKILL)
        handle.wait()
        assert repr(handle) == f"<Pidfd pid={pid} fd={handle.fileno()} ended>"
        handle.exit_status()
        assert repr(handle) == f"<Pidfd pid={pid} fd={handle.fileno()} killed by SIGKILL>"
        handle.close()
        assert repr(handle) == f"<Pidfd pid={pid} closed, killed by SIGKILL>"
    nameless = Pidfd.self()
    nameless.close()
    assert repr(nameless) == f"<Pidfd pid={os.getpid()} closed>"


def test_without_the_call_in_python_opening_says_so(monkeypatch):
    monkeypatch.delattr(os, "pidfd_open")
    with pytest.raises(PidfdError) as caught:
        Pidfd.self()
    assert (caught.value.errno, caught.value.pid) == (errno.ENOSYS, os.getpid())


def test_a_forked_childs_copy_works_and_closing_it_does_not_wake_the_parent():
    with sleeper() as pid, Pidfd.open(pid) as handle:
        handle.wait(0.001)  # so that there is a wakeup, which the child shares

        def child() -> int:
            fd = handle.fileno()
            if not handle.alive() or handle.wait(0.001):
                return 1
            handle.close()
            try:
                os.fstat(fd)
            except OSError:
                return 42
            return 2

        assert os.waitstatus_to_exitcode(reap(fork(child))) == 42
        assert handle.alive()
        assert not handle.wait(0.001)


def test_a_forked_child_that_has_waited_too_closes_its_wakeup_and_the_copy_of_its_parents():
    before = open_descriptors()
    with sleeper() as pid, Pidfd.open(pid) as handle:
        handle.wait(0.001)

        def grandchild() -> int:
            handle.wait(0.001)
            handle.close()
            return 42 if open_descriptors() == before else 1

        def child() -> int:
            handle.wait(0.001)
            status = os.waitstatus_to_exitcode(reap(fork(grandchild)))
            handle.close()
            return status if open_descriptors() == before else 2

        assert os.waitstatus_to_exitcode(reap(fork(child))) == 42


def test_a_child_forked_while_a_thread_waits_can_close_its_copy():
    with sleeper() as pid, Pidfd.open(pid) as handle:
        before = open_descriptors()
        woken = []
        waiter = threading.Thread(target=lambda: woken.append(handle.wait()))
        waiter.start()
        eventually(lambda: open_descriptors() != before, "the thread has made its wakeup, and so holds a loan")

        def child() -> int:
            fd = handle.fileno()
            handle.close_in_forked_child()
            return 42 if fd not in open_descriptors() else 1

        assert os.waitstatus_to_exitcode(reap(fork(child))) == 42
        assert waiter.is_alive()
        handle.send_signal(signal.SIGKILL)
        waiter.join()
        assert woken == [True]


def test_importing_the_package_loads_no_heavy_module():
    script = """
        import sys
        import pidfdpool.pidfd
        from pidfdpool.pidfd import prctl
        heavy = {"ctypes", "inspect", "dataclasses", "asyncio", "multiprocessing", "socket"}
        print(*sorted(heavy & set(sys.modules)))
        allowed = ("pidfdpool.pidfd", "pidfdpool.process", "pidfdpool._version")
        print(*sorted(name for name in sys.modules if name.startswith("pidfdpool.") and not name.startswith(allowed)))
    """
    result = run_python(script, flags=["-S"])
    assert (result.stdout.split(), result.stderr) == ([], "")


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_copy_is_refused(how):
    """It would close the descriptor, and a signal might go to the process whose pidfd gets the number next."""
    with Pidfd.self() as handle:
        with pytest.raises(TypeError, match="cannot copy or pickle 'Pidfd' object: its descriptor belongs"):
            how(handle)
        gc.collect()
        assert handle.alive()
