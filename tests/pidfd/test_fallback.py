import errno
import fcntl
import os
import signal
import threading

import pytest

from pidfdpool.pidfd import (
    ChildHandle,
    ExitStatus,
    PidfdDenied,
    PidfdError,
    PidfdMisused,
    ProcessGone,
    SentinelHandle,
    sentinel_pipe,
)
from tests.conditions import eventually, is_alive, run_python
from tests.pidfd.processes import fork, open_descriptors, reap, sleep_long, wait_for_zombie


def child_with_sentinel(body=sleep_long, lead=False):
    """Fork a child that alone holds the write end; return the read end and its pid."""
    read, write = sentinel_pipe()
    if lead:

        def lead_a_group():
            os.setpgid(0, 0)
            body()

        pid = fork(lead_a_group)
        os.setpgid(pid, pid)
    else:
        pid = fork(body)
    os.close(write)
    return read, pid


def reaped(handle):
    """Return the status of a child that is ending: its pipe is closed a moment before it can be reaped."""
    return eventually(handle.exit_status, "the child can be reaped")


@pytest.fixture
def child():
    handle = ChildHandle(*child_with_sentinel())
    with handle:
        yield handle
        if handle.exit_status() is None:
            handle.send_signal(signal.SIGKILL)
            reaped(handle)


@pytest.fixture
def sentinel():
    """Provide a child seen as if it were somebody else's; what is asked of its parent is noted and done."""
    read, pid = child_with_sentinel()
    asked = []

    def deliver(sig, group):
        asked.append((sig, group))
        os.kill(pid, sig)

    with SentinelHandle(read, pid, deliver) as handle:
        handle.asked = asked
        yield handle
    os.kill(pid, signal.SIGKILL)
    reap(pid)


def test_the_ends_of_the_pipe_are_close_on_exec_and_no_standard_streams():
    script = """
        import fcntl, os
        from pidfdpool.pidfd import sentinel_pipe
        os.close(0), os.close(2)
        ends = sentinel_pipe()
        print(min(ends) >= 3, all(fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC for fd in ends))
        for fd in ends:
            os.close(fd)
        print(os.open("/dev/null", os.O_RDONLY), os.open("/dev/null", os.O_RDONLY))
    """
    assert run_python(script).stdout == "True True\n0 2\n"


@pytest.mark.parametrize("kind", ["child", "sentinel"])
def test_a_fallback_tells_the_living_from_the_ended(kind, request):
    handle = request.getfixturevalue(kind)
    assert handle.alive()
    assert handle.exit_status() is None
    assert "alive" in repr(handle)
    os.kill(handle.pid, signal.SIGKILL)
    wait_for_zombie(handle.pid)
    assert handle.wait() is True
    assert not handle.alive()


@pytest.mark.parametrize("kind", ["child", "sentinel"])
def test_a_fallback_refuses_what_a_pidfd_refuses(kind, request):
    handle = request.getfixturevalue(kind)
    for wrong in (-1, signal.NSIG, True, "9"):
        with pytest.raises(PidfdMisused, match="no such signal") as caught:
            handle.send_signal(wrong)
        assert (caught.value.errno, caught.value.pid) == (errno.EINVAL, handle.pid)
    with pytest.raises(PidfdMisused, match="through a pidfd only"):
        handle.send_signal(signal.SIGTERM, value=1)
    assert handle.alive()


@pytest.mark.parametrize("make", [lambda read: ChildHandle(read, 42), lambda read: SentinelHandle(read, 42, print)])
def test_a_closed_fallback_refuses_everything_with_errno_and_pid(make):
    read, write = sentinel_pipe()
    before = open_descriptors()
    handle = make(read)
    handle.close()
    handle.close()
    for use in (handle.fileno, handle.alive, handle.wait, lambda: handle.send_signal(signal.SIGTERM)):
        with pytest.raises(PidfdMisused, match="closed") as caught:
            use()
        assert (caught.value.errno, caught.value.pid) == (errno.EBADF, 42)
    assert before - open_descriptors() == {read}
    os.close(write)


def test_bytes_in_the_pipe_are_no_sign_of_an_end():
    read, write = sentinel_pipe()
    os.write(write, b"noise")
    with SentinelHandle(read, 42, print) as handle:
        assert handle.alive()
        assert handle.wait(0.001) is False
        os.close(write)
        assert handle.wait(0.001) is True


def test_bytes_in_the_pipe_do_not_keep_who_waits_busy():
    reader, writer = sentinel_pipe()
    with SentinelHandle(reader, 1, lambda *_: None) as handle:
        os.write(writer, b"data")
        looks, look = [], handle._polls_end
        handle._polls_end = lambda *arguments: looks.append(1) or look(*arguments)
        assert not handle.wait(0.05)
        assert len(looks) <= 4
    os.close(writer)


def test_the_parent_is_asked_to_signal(sentinel):
    sentinel.send_signal(signal.SIGUSR1, group=True)
    sentinel.wait()
    assert sentinel.asked == [(signal.SIGUSR1, True)]


@pytest.mark.parametrize(("number", "kind"), [(errno.ESRCH, ProcessGone), (errno.EPERM, PidfdDenied)])
def test_the_parents_refusal_comes_with_errno_and_pid(number, kind):
    read, write = sentinel_pipe()

    def refuse(_sig, _group):
        raise OSError(number, "refused")

    with SentinelHandle(read, 42, refuse) as handle, pytest.raises(kind) as caught:
        handle.send_signal(signal.SIGTERM)
    assert (caught.value.errno, caught.value.pid) == (number, 42)
    os.close(write)


def test_an_ended_process_has_an_unknown_status_until_its_parent_reports():
    read, pid = child_with_sentinel(lambda: 3)
    status = ExitStatus.from_wait_status(reap(pid))
    with SentinelHandle(read, pid, print) as handle:
        handle.wait()
        assert handle.exit_status() == ExitStatus.UNKNOWN
        handle.set_exit_status(status)
        handle.set_exit_status(ExitStatus.UNKNOWN)
        assert handle.exit_status().code == 3
    assert handle.exit_status().code == 3


def test_a_child_is_reaped_by_its_handle_and_its_status_survives_closing():
    handle = ChildHandle(*child_with_sentinel(lambda: 3))
    with handle:
        handle.wait()
        assert reaped(handle).code == 3
        with pytest.raises(ChildProcessError):
            os.waitpid(handle.pid, os.WNOHANG)
    assert handle.exit_status().code == 3


def test_a_reaped_childs_number_is_never_signalled(child, monkeypatch):
    os.kill(child.pid, signal.SIGKILL)
    wait_for_zombie(child.pid)
    child.send_signal(signal.SIGTERM)  # a zombie still has its number
    assert reaped(child).signal == signal.SIGKILL
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("a number was signalled that is not the child's any more"))
    monkeypatch.setattr(os, "killpg", os.kill)
    for group in (False, True):
        with pytest.raises(ProcessGone) as caught:
            child.send_signal(signal.SIGTERM, group=group)
        assert (caught.value.errno, caught.value.pid) == (errno.ESRCH, child.pid)


def test_a_number_that_somebody_else_reaped_is_not_signalled_either(child, monkeypatch):
    os.kill(child.pid, signal.SIGKILL)
    reap(child.pid)
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("a number was signalled that is not the child's any more"))
    with pytest.raises(ProcessGone):
        child.send_signal(signal.SIGTERM)
    assert child.exit_status() == ExitStatus.UNKNOWN
    assert not child.alive()


def test_a_forked_copy_of_the_parent_may_not_signal_its_child(child):
    def copy() -> int:
        try:
            child.send_signal(signal.SIGKILL)
        except ProcessGone:
            return 42
        return 1

    assert os.waitstatus_to_exitcode(reap(fork(copy))) == 42
    assert child.alive()


def test_a_childs_group_is_signalled():
    read, write = os.pipe()

    def lead() -> None:
        os.write(write, str(fork(sleep_long)).encode())
        sleep_long()

    with ChildHandle(*child_with_sentinel(lead, lead=True)) as handle:
        grandchild = int(os.read(read, 20))
        handle.send_signal(signal.SIGKILL, group=True)
        handle.wait()
        assert reaped(handle).signal == signal.SIGKILL
        eventually(lambda: not is_alive(grandchild), "the grandchild is killed")
    os.close(read)
    os.close(write)


def test_a_child_that_leads_no_group_is_signalled_alone():
    with ChildHandle(*child_with_sentinel(sleep_long)) as handle:
        assert os.getpgid(handle.pid) == os.getpgid(0)
        handle.send_signal(signal.SIGKILL, group=True)
        handle.wait()
        assert reaped(handle).signal == signal.SIGKILL


def test_the_parent_is_not_deceived_by_a_grandchild_that_keeps_the_pipe():
    read, write = os.pipe()

    def leave_one_behind() -> None:
        os.write(write, str(fork(sleep_long)).encode())

    with ChildHandle(*child_with_sentinel(leave_one_behind)) as handle:
        grandchild = int(os.read(read, 20))
        wait_for_zombie(handle.pid)
        assert not handle.wait(0)  # the pipe is still held
        assert not handle.alive()
        assert handle.exit_status().code == 0
        assert handle.wait(0)
        os.kill(grandchild, signal.SIGKILL)
    os.close(read)
    os.close(write)


@pytest.mark.many_times
def test_reaping_and_signalling_at_once_never_signals_a_reaped_number():
    for _ in range(40):
        with ChildHandle(*child_with_sentinel()) as handle:
            refused = []

            def signal_on(handle=handle, refused=refused) -> None:
                while not refused:
                    try:
                        handle.send_signal(signal.SIGKILL)
                    except PidfdError as error:
                        refused.append(error)

            thread = threading.Thread(target=signal_on)
            thread.start()
            handle.wait()
            status = reaped(handle)
            thread.join()
            assert status.signal == signal.SIGKILL
            assert [type(error) for error in refused] == [ProcessGone]


def test_the_read_end_given_to_a_handle_is_closed_with_it(child):
    fd = child.fileno()
    assert fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    os.kill(child.pid, signal.SIGKILL)
    reap(child.pid)
    child.close()
    assert fd not in open_descriptors()


# ---- where a sandbox refuses waitid --------------------------------------------------------------------------------


@pytest.fixture(params=[errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EINVAL])
def refused(request, monkeypatch):
    """Have waitid fail; return with which error."""

    def refuse(*_):
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(os, "waitid", refuse)
    return request.param


def test_a_child_is_watched_signalled_and_reaped_without_waitid_too(child, refused):
    assert child.alive()
    if refused == errno.EINVAL:  # no refusal of a sandbox's, but a mistake
        with pytest.raises(OSError, match="Invalid argument"):
            child.exit_status()
        with pytest.raises(OSError, match="Invalid argument"):
            child.send_signal(signal.SIGKILL)
        os.kill(child.pid, signal.SIGKILL)
        os.waitpid(child.pid, 0)
        child._set_status(ExitStatus(signal=9))
        return
    assert child.exit_status() is None
    child.send_signal(signal.SIGKILL)
    assert child.wait(20)
    assert not child.alive(), "the pipe tells"
    assert reaped(child).signal == signal.SIGKILL
    with pytest.raises(ProcessGone):
        child.send_signal(signal.SIGKILL)


# ---- what has ended stays so ---------------------------------------------------------------------------------------


def test_a_status_is_known_by_every_question_once_it_was_told(sentinel):
    assert sentinel.alive()
    assert not sentinel.wait(0)
    sentinel.set_exit_status(ExitStatus(code=4))
    assert not sentinel.alive(), "though its pipe is open, which a descendant may hold"
    assert sentinel.wait(0)
    assert sentinel.wait(20)
    assert sentinel.exit_status() == ExitStatus(code=4)
    assert repr(sentinel).endswith("exited with code 4>")
    sentinel.set_exit_status(ExitStatus(signal=9))
    assert sentinel.exit_status() == ExitStatus(signal=9), "the parent knows best"


def test_a_forked_copy_does_not_know_its_parents_child(child):
    def copy() -> int:
        known = child.alive(), child.exit_status().unknown
        child.close_in_forked_child()
        return 42 if known == (True, True) else 1

    assert os.waitstatus_to_exitcode(reap(fork(copy))) == 42
    assert child.alive()
    assert child.exit_status() is None


def test_once_a_status_is_known_the_number_is_not_asked_for_any_more(child, monkeypatch):
    os.kill(child.pid, signal.SIGKILL)
    wait_for_zombie(child.pid)
    reaped(child)
    for name in ("waitid", "waitpid", "kill", "killpg"):
        monkeypatch.setattr(os, name, lambda *_: pytest.fail("another process may have that number"))
    assert not child.alive()
    assert child.exit_status().signal == signal.SIGKILL
    with pytest.raises(ProcessGone):
        child.send_signal(signal.SIGTERM)


@pytest.mark.parametrize("ended", [False, True])
def test_without_a_group_the_child_alone_is_signalled_as_long_as_it_runs(child, monkeypatch, ended):
    def no_such_group(*_):
        raise ProcessLookupError(errno.ESRCH, "no such group")

    monkeypatch.setattr(os, "killpg", no_such_group)
    if ended:
        os.kill(child.pid, signal.SIGKILL)
        wait_for_zombie(child.pid)
        with pytest.raises(ProcessGone):
            child.send_signal(signal.SIGTERM, group=True)
    else:
        child.send_signal(signal.SIGKILL, group=True)
        assert child.wait(20)
