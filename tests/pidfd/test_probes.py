"""What is concluded from each answer of the kernel: whether a call works, with what it is made, and what failed."""

from __future__ import annotations

import errno
import os
import select
import signal
from types import SimpleNamespace

import pytest

import pidfdpool.pidfd
from pidfdpool.pidfd import (
    Pidfd,
    PidfdError,
    PidfdMisused,
    ProcessGone,
    SentinelHandle,
    base,
    capabilities,
    capability,
    handle,
    sentinel_pipe,
    siginfo,
)
from pidfdpool.pidfd.errors import checked_signal, signal_name, to_pidfd_error
from tests.pidfd.processes import fork, open_descriptors, reap, sleeper


def raising(number):
    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    return fail


@pytest.fixture
def nothing_known(monkeypatch):
    monkeypatch.setattr(capability, "_known", {})
    monkeypatch.delenv(capability.FORCE_FALLBACK, raising=False)


TRANSIENT = [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR, errno.EAGAIN]


# ---- what is granted ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "module", "call", "fine"),
    [
        ("send_signal", "signal", "pidfd_send_signal", None),
        ("group_signal", "signal", "pidfd_send_signal", errno.ESRCH),
        ("waitid", "os", "waitid", errno.ECHILD),
        ("info", "capability", "get_info", None),
        ("queue_value", "siginfo", "send_with_value", None),
    ],
)
@pytest.mark.parametrize("number", [None, errno.ESRCH, errno.ECHILD, errno.EINVAL, errno.EPERM, errno.ENOSYS])
def test_a_call_is_granted_if_it_succeeds_or_fails_as_it_has_to(
    nothing_known, monkeypatch, name, module, call, fine, number
):
    place = {"signal": capability.signal, "os": os, "capability": capability, "siginfo": siginfo}[module]
    if name == "queue_value":
        monkeypatch.setitem(capability._known, "send_signal", True)
    monkeypatch.setattr(place, call, (lambda *_: None) if number is None else raising(number))
    before = open_descriptors()
    assert getattr(capabilities(), name) is (number is None or number == fine)
    assert open_descriptors() == before


@pytest.mark.parametrize("number", TRANSIENT)
def test_a_lack_that_may_pass_is_raised_and_nothing_is_learned(nothing_known, monkeypatch, number):
    with monkeypatch.context() as patch:
        patch.setattr(os, "waitid", raising(number))
        before = open_descriptors()
        with pytest.raises(PidfdError, match="probe of pidfds") as caught:
            _ = capabilities().waitid
        assert open_descriptors() == before
    assert (caught.value.errno, caught.value.pid) == (number, os.getpid())
    assert capabilities().waitid


def test_each_probe_is_of_this_process_and_has_no_effect(nothing_known, monkeypatch):
    asked = []

    def send(fd, number, info=None, flags=0):
        asked.append((os.readlink(f"/proc/self/fd/{fd}"), number, info, flags))

    monkeypatch.setattr(capability.signal, "pidfd_send_signal", send)
    assert capabilities().send_signal
    assert capabilities().group_signal
    assert [each[1:] for each in asked] == [(0, None, 0), (0, None, handle.SIGNAL_PROCESS_GROUP)]
    assert all("pidfd" in each[0] for each in asked)


def test_a_refusal_is_remembered_as_well(nothing_known, monkeypatch):
    asked = []

    def waitid(*arguments):
        asked.append(arguments[2])
        raise OSError(errno.EINVAL, "no such kind")

    monkeypatch.setattr(os, "waitid", waitid)
    assert [capabilities().waitid for _ in range(3)] == [False] * 3
    assert asked == [os.WEXITED | os.WNOHANG], "a process must not be waited for"


def test_signals_with_values_are_not_tried_where_there_are_no_signals(nothing_known, monkeypatch):
    monkeypatch.setitem(capability._known, "send_signal", False)
    monkeypatch.setattr(siginfo, "send_with_value", lambda *_: pytest.fail("it was tried"))
    assert not capabilities().queue_value


def test_a_status_of_the_reaped_is_not_looked_for_where_nothing_is_told_at_all(nothing_known, monkeypatch):
    monkeypatch.setitem(capability._known, "info", False)
    monkeypatch.setattr(capability, "_info_has_exit_of_thread", lambda: pytest.fail("it was tried"))
    assert not capabilities().info_exit


@pytest.mark.parametrize(
    ("answer", "granted"),
    [((handle.INFO_EXIT,), True), ((handle.INFO_EXIT | 1,), True), ((1,), False), (None, False)],
)
def test_a_status_is_told_where_the_kernel_has_filled_it_in(nothing_known, monkeypatch, answer, granted):
    monkeypatch.setattr(capability, "get_info", raising(errno.ESRCH) if answer is None else lambda *_: answer)
    monkeypatch.setattr(capability, "_poll", lambda *_: True)
    before = open_descriptors()
    assert capability._info_has_exit_of_thread() is granted
    assert open_descriptors() == before


def test_where_threads_have_no_pidfds_no_status_is_told(monkeypatch):
    monkeypatch.setattr(os, "pidfd_open", raising(errno.EINVAL))
    assert capability._info_has_exit_of_thread() is False
    monkeypatch.setattr(os, "pidfd_open", raising(errno.EMFILE))
    with pytest.raises(PidfdError):
        capability._info_has_exit_of_thread()


@pytest.mark.parametrize(("value", "forced"), [("", False), ("0", True), ("1", True)])
def test_any_text_in_the_environment_forces_the_fallback_and_no_text_does_not(
    nothing_known, monkeypatch, value, forced
):
    monkeypatch.setenv(capability.FORCE_FALLBACK, value)
    assert capabilities().usable is not forced


# ---- errors ------------------------------------------------------------------------------------------------------


def test_an_error_without_a_number_is_one_of_input_and_output():
    assert to_pidfd_error(OSError("no number"), "wait", 5).errno == errno.EIO


def test_an_error_of_a_number_that_nobody_knows_shows_the_number():
    assert str(PidfdError(9999, "wait", 5)).endswith("(9999)")
    assert str(PidfdError(errno.EBADF, "wait", 5)) == f"wait for pid 5: {os.strerror(errno.EBADF)} (EBADF)"
    assert str(PidfdError(errno.EBADF, "wait", None, "A hint.")).endswith("(EBADF). A hint.")


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (9, "SIGKILL"),
        (signal.SIGCHLD, "SIGCHLD"),
        (signal.SIGABRT, "SIGABRT"),
        (signal.SIGIO, "SIGIO"),
        (signal.SIGRTMIN, "SIGRTMIN"),
        (signal.SIGRTMAX, "SIGRTMAX"),
        (0, "signal 0"),
        (50, "signal 50"),
    ],
)
def test_a_signal_is_called_by_the_name_that_python_gives_it(number, name):
    assert signal_name(number) == name
    if not name.startswith("signal"):
        assert signal.Signals(number).name == name


def test_the_operation_tells_the_signal_and_whether_it_was_for_a_group():
    assert checked_signal(signal.SIGTERM, False, 5) == "send_signal(SIGTERM)"
    assert checked_signal(signal.SIGTERM, True, 5) == "send_signal(SIGTERM, group=True)"
    assert checked_signal(signal.NSIG - 1, False, 5)
    with pytest.raises(PidfdMisused):
        checked_signal(signal.NSIG, False, 5)


# ---- descriptors that were received ------------------------------------------------------------------------------


@pytest.fixture
def received():
    with sleeper() as pid:
        fd = os.pidfd_open(pid)
        yield pid, fd
        os.close(fd)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EPERM, errno.ENOSYS])
def test_where_waitid_does_not_tell_what_a_pidfd_is_proc_does(monkeypatch, received, number):
    _, fd = received
    null = os.open(os.devnull, os.O_RDONLY)
    monkeypatch.setattr(os, "waitid", raising(number))
    assert handle._is_pidfd(fd)
    assert not handle._is_pidfd(null)
    assert not handle._is_pidfd(-1)
    os.close(null)


def test_to_look_at_a_descriptor_takes_no_status_and_never_waits(monkeypatch, received):
    asked = []
    monkeypatch.setattr(os, "waitid", lambda *arguments: asked.append(arguments))
    assert handle._is_pidfd(received[1])
    assert asked == [(os.P_PIDFD, received[1], os.WEXITED | os.WNOHANG | os.WNOWAIT)]


def test_the_number_behind_a_pidfd_is_told_by_the_kernel_or_by_proc(monkeypatch, received):
    pid, fd = received
    assert handle._pid_behind(fd) == pid
    monkeypatch.setattr(handle, "get_info", raising(errno.ENOTTY))
    assert handle._pid_behind(fd) == pid
    for number in (0, -1, None):
        monkeypatch.setattr(handle, "_fdinfo_pid", lambda _fd, number=number: number)
        assert handle._pid_behind(fd) is None


def test_the_line_of_proc_is_that_of_the_process_and_what_is_no_pidfd_has_none(received):
    pid, fd = received
    null = os.open(os.devnull, os.O_RDONLY)
    assert handle._fdinfo_pid(fd) == pid
    assert handle._fdinfo_pid(null) is None
    assert handle._fdinfo_pid(999_999) is None
    os.close(null)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOENT])
def test_a_number_that_is_no_process_is_misused(monkeypatch, number):
    monkeypatch.setattr(handle, "_pidfd_open", raising(number))
    with pytest.raises(PidfdMisused, match="It is a thread, or is just ending") as caught:
        Pidfd.open(5)
    assert (caught.value.errno, caught.value.pid) == (errno.EINVAL, 5)


@pytest.mark.parametrize(("number", "kind"), [(errno.ESRCH, ProcessGone), (errno.EMFILE, PidfdError)])
def test_other_errors_of_an_open_are_what_they_are(monkeypatch, number, kind):
    monkeypatch.setattr(handle, "_pidfd_open", raising(number))
    with pytest.raises(kind, match="^pidfd_open for pid 5: ") as caught:
        Pidfd.open(5)
    assert caught.value.errno == number


def test_a_descriptor_that_is_refused_is_not_made_close_on_exec():
    reader, writer = os.pipe()
    os.set_inheritable(reader, True)
    with pytest.raises(PidfdMisused):
        Pidfd.from_fd(reader, 5)
    assert os.get_inheritable(reader)
    os.close(reader)
    os.close(writer)


# ---- waits -------------------------------------------------------------------------------------------------------


class Poller:
    """Finds nothing; notes for how many milliseconds it was asked."""

    def __init__(self):
        self.polls, self.registered = [], []

    def register(self, *asked):
        self.registered.append(asked)

    def poll(self, milliseconds):
        self.polls.append(milliseconds)
        return []


def test_a_wait_is_for_what_is_left_of_its_time_and_never_longer_than_poll_can_count(monkeypatch):
    now, poller = [100.0], Poller()
    poll = poller.poll

    def polls(milliseconds):
        now[0] += 2.0
        return poll(milliseconds)

    poller.poll = polls
    monkeypatch.setattr(base, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(base, "select", SimpleNamespace(poll=lambda: poller, POLLIN=select.POLLIN, POLLNVAL=0))
    reader, writer = sentinel_pipe()
    with SentinelHandle(reader, 5, print) as sentinel:
        assert sentinel.wait(5) is False
        assert poller.polls == [5000, 3000, 1000]
        assert (reader, 0) in poller.registered
        poller.polls.clear()
        poller.poll = lambda milliseconds: poll(milliseconds) or [(reader, select.POLLHUP)] * (len(poller.polls) > 2)
        assert sentinel.wait() is True
        assert poller.polls == [base.native.LONGEST_WAIT * 1000] * 3
    os.close(writer)


def test_a_handle_that_was_forgotten_closes_its_wakeup_too():
    before = open_descriptors()
    pid = fork(lambda: 0)
    one = Pidfd.open(pid)
    reap(pid)
    assert one.wait(5)
    with sleeper() as other:
        one._wakeup()
        second = Pidfd.open(other)
        second.wait(0.001)
        with pytest.warns(ResourceWarning, match="unclosed <Pidfd"):
            del one, second
        assert open_descriptors() == before


def test_a_poll_that_fails_is_an_error_of_the_handles(monkeypatch):
    class Failing(Poller):
        def poll(self, _milliseconds):
            raise OSError(errno.ENOMEM, "no memory")

    with Pidfd.self() as this:
        monkeypatch.setattr(base.native, "poll", Failing)
        with pytest.raises(PidfdError, match="^poll for pid") as caught:
            this.alive()
    assert caught.value.errno == errno.ENOMEM


# ---- the package -------------------------------------------------------------------------------------------------


def test_all_public_names_are_there_and_are_listed_and_no_others():
    assert set(pidfdpool.pidfd.__all__) == set(pidfdpool.pidfd._HOME)
    for name, home in pidfdpool.pidfd._HOME.items():
        value = getattr(pidfdpool.pidfd, name)
        assert value.__module__ == f"pidfdpool.pidfd.{home}"
    assert set(pidfdpool.pidfd.__all__) <= set(dir(pidfdpool.pidfd))
    with pytest.raises(AttributeError, match="module 'pidfdpool.pidfd' has no attribute 'nothing'"):
        _ = pidfdpool.pidfd.nothing
