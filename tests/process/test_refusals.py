"""What a process does without where a sandbox or an old interpreter refuses a call, and which errors it passes on."""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys
from types import SimpleNamespace

import pytest

from pidfdpool.process import counters, cpus, lifeline, native, safe_logging, sandbox, spinning
from tests.conditions import in_forked_child, open_descriptors

REFUSED = pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES, errno.ENOSYS])


def raising(number):
    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    return fail


# ---- counters ----------------------------------------------------------------------------------------------------


def test_refusals_are_these_errors_and_no_others():
    assert set(counters.REFUSALS) == {errno.EPERM, errno.EACCES, errno.ENOSYS}


@REFUSED
def test_a_refused_eventfd_is_made_up_for_by_a_pipe_that_nobody_else_holds(monkeypatch, number):
    monkeypatch.setattr(counters, "_pipes", False)
    monkeypatch.setattr(os, "eventfd", raising(number))
    before = open_descriptors()
    fd = counters.make()
    assert open_descriptors().keys() - before.keys() == {fd}
    assert not os.get_blocking(fd)
    assert not os.get_inheritable(fd)
    assert counters._pipes
    os.close(fd)


@REFUSED
def test_where_that_cannot_be_made_either_the_refusal_is_told_and_nothing_stays_open(monkeypatch, number):
    monkeypatch.setattr(counters, "_pipes", False)
    monkeypatch.setattr(os, "eventfd", raising(number))
    monkeypatch.setattr(os, "open", raising(errno.ENOENT))
    before = open_descriptors()
    with pytest.raises(OSError, match=f"eventfd2: {os.strerror(number)}") as caught:
        counters.make()
    assert caught.value.errno == number
    assert open_descriptors() == before
    assert not counters._pipes


def test_a_lack_of_descriptors_makes_no_pipe(monkeypatch):
    monkeypatch.setattr(os, "eventfd", raising(errno.EMFILE))
    monkeypatch.setattr(os, "pipe2", lambda *_: pytest.fail("it was no refusal"))
    with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
        counters.make()


def test_a_counter_has_no_number_of_a_standard_stream():
    def child():
        os.close(1)
        assert counters.make() > 2

    assert in_forked_child(child) == "ok"


@pytest.mark.parametrize("semaphore", [True, False])
def test_a_take_takes_one_unit_of_a_semaphore_and_else_all(semaphore):
    fd = counters.make(semaphore=semaphore)
    assert not os.get_blocking(fd)
    counters.add(fd, 3)
    assert [counters.take(fd) for _ in range(4)] == ([True] * 3 + [False] if semaphore else [True] + [False] * 3)
    os.close(fd)


def test_a_counter_is_cleared_by_one_call_of_the_kernel_where_it_is_no_pipe(monkeypatch):
    """It is made at each wake-up."""
    reads, read = [], counters._read
    monkeypatch.setattr(counters, "_pipes", False)
    monkeypatch.setattr(counters, "_read", lambda fd: reads.append(fd) or read(fd))
    fd = counters.make()
    counters.add(fd)
    counters.clear(fd)
    assert reads == [fd]
    os.close(fd)


# ---- the lifeline ------------------------------------------------------------------------------------------------


def test_without_proc_there_is_no_end_of_ones_own():
    assert lifeline.kill_me_at_end(999_999) is None


def test_an_end_of_ones_own_is_not_passed_on_and_leads_to_the_same_pipe():
    def child():
        reader, writer = os.pipe()
        os.close(0)
        own = lifeline.kill_me_at_end(reader)
        assert own > 2
        assert own not in (reader, writer)
        assert not os.get_inheritable(own)
        assert not os.get_blocking(own)
        assert os.get_blocking(reader), "whose description is another one"
        assert os.readlink(f"/proc/self/fd/{own}") == os.readlink(f"/proc/self/fd/{reader}")

    assert in_forked_child(child) == "ok"


@pytest.mark.parametrize("which", ["F_SETOWN", "F_SETSIG", "F_SETFL"])
def test_a_kernel_that_refuses_a_signal_at_the_end_keeps_nobody_from_beginning(monkeypatch, which):
    refused = getattr(lifeline.fcntl, which)
    real = lifeline.fcntl.fcntl

    def fcntl(fd, command, argument=0):
        if command == refused:
            raise PermissionError(errno.EPERM, "refused")
        return real(fd, command, argument)

    names = {name: getattr(lifeline.fcntl, name) for name in ("F_SETOWN", "F_SETSIG", "F_SETFL", "F_GETFL")}
    monkeypatch.setattr(lifeline, "fcntl", SimpleNamespace(fcntl=fcntl, **names))
    reader, writer = os.pipe()
    lifeline.signal_me_at_end(reader, signal.SIGUSR1)
    os.close(writer)
    os.close(reader)


# ---- the system calls that every pool needs ----------------------------------------------------------------------


@REFUSED
@pytest.mark.parametrize("place", [0, 1])
def test_the_error_of_a_refused_call_has_its_number_and_kind_and_says_who_needs_it(monkeypatch, number, place):
    calls = [("first", lambda: None), ("second", lambda: None)]
    calls[place] = (calls[place][0], raising(number))
    monkeypatch.setattr(sandbox, "_checked_in", None)
    monkeypatch.setattr(sandbox, "_calls", lambda: calls)
    told = f"may not call {calls[place][0]} \\({os.strerror(number)}\\), perhaps in a sandbox. A pool needs that"
    with pytest.raises(OSError, match=told) as caught:
        sandbox.check()
    assert caught.value.errno == number
    assert type(caught.value) is type(OSError(number, ""))
    assert caught.value.__cause__ is not None
    assert sandbox._checked_in is None


def test_a_sandbox_that_makes_up_a_number_for_this_process_refuses_it(monkeypatch):
    monkeypatch.setattr(sandbox, "_checked_in", None)
    monkeypatch.setattr(sandbox.os, "getpid", lambda: -1)
    with pytest.raises(PermissionError, match="may not call getpid"):
        sandbox.check()


def test_each_call_is_one_that_the_kernel_grants_here_and_they_are_these(monkeypatch):
    asked = []
    for name, call in sandbox._calls():
        call()
        asked.append(name)
    assert asked == [
        "getpid",
        "pipe2",
        "rt_sigprocmask",
        "socketpair",
        "sendmsg",
        "recvmsg",
        "sendto",
        "poll (ppoll)",
        "epoll_create1",
        "epoll_ctl",
        "epoll_wait",
        "recvfrom",
        "fcntl",
        "dup2",
    ]


@pytest.mark.parametrize("name", ["epoll_ctl", "recvfrom", "dup2"])
def test_what_was_opened_to_try_the_calls_is_closed_if_one_is_refused(monkeypatch, name):
    calls, before = sandbox._calls, open_descriptors()
    monkeypatch.setattr(sandbox, "_checked_in", None)

    def some_refused():
        for each, call in calls():
            yield each, raising(errno.EPERM) if each == name else call

    monkeypatch.setattr(sandbox, "_calls", some_refused)
    with pytest.raises(PermissionError, match=name):
        sandbox.check()
    assert open_descriptors() == before


# ---- CPUs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("configured", "told"), [(-1, None), (0, None), (1, 1), (7, 7)])
def test_a_number_that_python_was_told_is_one_above_0(monkeypatch, configured, told):
    monkeypatch.setattr(sys, "_get_cpu_count_config", lambda: configured, raising=False)
    assert cpus._told_to_python() == told


def test_a_python_that_takes_no_number_was_told_none(monkeypatch):
    monkeypatch.delattr(sys, "_get_cpu_count_config", raising=False)
    assert cpus._told_to_python() is None


def test_what_python_was_told_counts_whatever_the_process_may_use(monkeypatch):
    monkeypatch.setattr(sys, "_get_cpu_count_config", lambda: 99, raising=False)
    monkeypatch.setattr(cpus, "cpu_quota", lambda _root: pytest.fail("nobody has to ask"))
    assert cpus.usable() == 99


def test_who_may_use_one_cpu_does_not_read_what_limits_it(monkeypatch):
    monkeypatch.setattr(cpus, "_told_to_python", lambda: None)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {5})
    monkeypatch.setattr(cpus, "cpu_quota", lambda _root: pytest.fail("it cannot be less"))
    assert cpus.usable() == 1


@pytest.mark.parametrize(("quota", "count"), [(None, 4), (0, 1), (3, 3), (9, 4)])
def test_there_is_always_one_cpu(monkeypatch, quota, count):
    monkeypatch.setattr(cpus, "_told_to_python", lambda: None)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(4)))
    monkeypatch.setattr(cpus, "cpu_quota", lambda _root: quota)
    assert cpus.usable() == count


def test_an_empty_set_of_cpus_is_one(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set())
    assert cpus._placed_on() == 1


# ---- spinning ----------------------------------------------------------------------------------------------------


def test_who_may_not_ask_on_how_many_processors_it_runs_does_not_spin(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", raising(errno.EPERM))
    assert spinning._processors() == 1
    assert spinning.Spin(0.1)._limit == 0


@pytest.mark.parametrize("text", [b"", b"0.1 0.1 0.1\n", b"0.1 0.1 0.1 many/300 1\n", None])
def test_where_it_cannot_be_read_how_much_runs_nobody_spins(monkeypatch, tmp_path, text):
    path = tmp_path / "loadavg"
    if text is not None:
        path.write_bytes(text)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1})
    monkeypatch.setattr(spinning, "open", lambda _name, mode: open(path, mode), raising=False)
    assert spinning.Spin(0.1)._is_crowded(1e9) is True


@pytest.mark.parametrize(("running", "crowded"), [(1, False), (2, False), (3, True)])
def test_as_many_as_there_are_processors_is_no_crowd(monkeypatch, tmp_path, running, crowded):
    (tmp_path / "loadavg").write_text(f"0.1 0.2 0.3 {running}/300 4567\n")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1})
    monkeypatch.setattr(spinning, "open", lambda _name, mode: open(tmp_path / "loadavg", mode), raising=False)
    spin = spinning.Spin(0.1)
    assert spin._is_crowded(1e9) is crowded


def test_who_is_not_to_spin_does_not_even_ask_for_processors(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: pytest.fail("it was asked"))
    spin = spinning.Spin(0.0)
    assert spin.wait(lambda: pytest.fail("it looked"), lambda: "slept") == "slept"


def test_an_average_moves_by_a_quarter_and_begins_with_the_first():
    assert spinning._average(None, 8.0) == 8.0
    assert spinning._average(8.0, 4.0) == 7.0
    assert spinning._average(4.0, 8.0) == 5.0


# ---- records -----------------------------------------------------------------------------------------------------


def test_a_record_has_the_level_and_the_options_that_it_was_given(caplog):
    logger = logging.getLogger("tests.refusals")
    try:
        raise LookupError("gone")
    except LookupError:
        safe_logging.log(logger, logging.WARNING, "%s and %s", 1, 2, exc_info=True, extra={"mine": 3})
    [record] = caplog.records
    assert (record.levelno, record.getMessage(), record.exc_info[0], record.mine) == (
        logging.WARNING,
        "1 and 2",
        LookupError,
        3,
    )


def test_a_pipe_of_counters_takes_from_one_unit_to_all_that_fit(monkeypatch):
    monkeypatch.setattr(counters, "_pipes", False)
    monkeypatch.setattr(os, "eventfd", raising(errno.ENOSYS))
    fd = counters.make(semaphore=True)
    counters.add(fd, 2)
    assert [counters.take(fd) for _ in range(3)] == [True, True, False]
    counters.add(fd, 100_000)
    assert counters.take(fd)
    native.close(fd)
