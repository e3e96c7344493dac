"""Each native call by itself: what it asks the kernel or the interpreter for, and what it gives back."""

from __future__ import annotations

import _socket
import _thread
import builtins
import fcntl
import os
import resource
import select
import sys
import threading
import time
import warnings
from types import SimpleNamespace

import pytest

from pidfdpool.pidfd import sentinel_pipe
from pidfdpool.process import native
from tests.conditions import in_forked_child, open_descriptors, run_python


def reaped(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


# ---- forks -------------------------------------------------------------------------------------------------------

has_context = pytest.mark.skipif(
    not hasattr(native._warnings, "_warnings_context"), reason="before 3.14 no warning can be withheld for one thread"
)


@has_context
def test_what_the_interpreter_warns_of_is_withheld_and_told(monkeypatch):
    def fork():
        warnings.warn("beside threads", DeprecationWarning, stacklevel=1)
        return 7

    monkeypatch.setattr(native, "posix", SimpleNamespace(fork=fork))
    withheld = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert native.fork(withheld) == 7
        assert native.fork() == 7
    assert withheld == ["beside threads"]


@has_context
def test_warnings_are_as_before_when_a_fork_has_failed(monkeypatch):
    def fork():
        raise OSError("no more")

    monkeypatch.setattr(native, "posix", SimpleNamespace(fork=fork))
    with pytest.raises(OSError, match="no more"):
        native.fork([])
    with pytest.warns(UserWarning, match="seen"):
        warnings.warn("seen", stacklevel=1)


def test_an_interpreter_that_cannot_withhold_warnings_forks_all_the_same(monkeypatch):
    monkeypatch.setattr(native, "_warnings", SimpleNamespace())
    withheld = []
    pid = native.fork(withheld)
    if not pid:
        os._exit(5)
    assert reaped(pid) == 5
    assert withheld == []


# ---- descriptors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 1, 2])
def test_each_number_of_a_standard_stream_is_left_free(number):
    def child():
        os.close(number)
        fd = os.open(os.devnull, os.O_RDONLY)
        assert fd == number
        moved = native.above_stdio(fd)
        assert moved > 2
        assert number not in open_descriptors()

    assert in_forked_child(child) == "ok"


def test_a_number_above_them_is_kept():
    def child():
        for fd in range(3, 10):
            os.dup2(0, fd)
        for fd in (3, 9):
            assert native.above_stdio(fd) == fd

    assert in_forked_child(child) == "ok"


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_descriptor_that_cannot_be_moved_is_closed(number):
    def child():
        os.close(number)
        assert os.open(os.devnull, os.O_RDONLY) == number
        limit_descriptors(3)
        with pytest.raises(OSError, match="Too many open files|Invalid argument"):
            native.above_stdio(number)
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(number)

    assert in_forked_child(child) == "ok"


@pytest.mark.parametrize("ends", [(0, 1), (0, 2), (2, 0)])
@pytest.mark.parametrize("free", [3, 4])
def test_neither_end_of_a_sentinel_stays_open_where_one_cannot_be_moved(ends, free):
    """free: how many numbers there are. With 4 the first end finds one."""

    def child():
        for number in ends:
            os.close(number)
        os.closerange(3, 4)
        limit_descriptors(free)
        with pytest.raises(OSError, match="Too many open files|Invalid argument"):
            sentinel_pipe()
        for number in (*ends, 3):
            with pytest.raises(OSError, match="Bad file"):
                os.fstat(number)

    assert in_forked_child(child) == "ok"


def limit_descriptors(number):
    resource.setrlimit(resource.RLIMIT_NOFILE, (number, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


@pytest.mark.parametrize("blocking", [True, False])
def test_a_descriptor_is_made_blocking_and_keeps_its_other_flags(blocking):
    reader, writer = os.pipe2(os.O_DIRECT)
    os.set_blocking(writer, blocking)
    native.make_blocking(writer)
    assert os.get_blocking(writer)
    assert fcntl.fcntl(writer, fcntl.F_GETFL) & os.O_DIRECT
    os.close(reader)
    os.close(writer)


def test_a_duplicate_leads_to_the_same_file_and_is_not_passed_on():
    def child():
        reader, writer = os.pipe()
        os.close(0)
        other = native.duplicate(writer)
        assert other > 2, "though a lower number is free"
        assert not os.get_inheritable(other)
        os.write(other, b"x")
        assert os.read(reader, 1) == b"x"

    assert in_forked_child(child) == "ok"


def test_a_descriptor_that_was_to_be_passed_on_is_not_any_more():
    fd = os.open(os.devnull, os.O_RDONLY)
    os.set_inheritable(fd, True)
    native.set_close_on_exec(fd)
    assert not os.get_inheritable(fd)
    os.close(fd)


def test_a_range_of_descriptors_is_closed_without_its_end():
    def child():
        fds = [os.dup2(0, number) for number in (160, 161, 162)]
        native.close_range(fds[0], fds[2])
        there = open_descriptors()
        assert [fd in there for fd in fds] == [False, False, True]

    assert in_forked_child(child) == "ok"


def test_the_ends_of_a_pair_are_connected_stream_sockets_that_are_not_passed_on():
    ours, theirs = native.socketpair()
    for end in (ours, theirs):
        assert (end.family, end.type) == (_socket.AF_UNIX, _socket.SOCK_STREAM)
        assert not os.get_inheritable(end.fileno())
    ours.sendall(b"x")
    assert theirs.recv(2) == b"x"
    again = native.socket_of(theirs.detach())
    assert (again.family, again.type) == (_socket.AF_UNIX, _socket.SOCK_STREAM)
    for end in (ours, again):
        end.close()


# ---- ctypes ------------------------------------------------------------------------------------------------------


@pytest.fixture
def importing(monkeypatch):
    """Have `_ctypes` be not loaded yet; return how often it is."""
    load, loads = builtins.__import__, []

    def import_(name, *arguments, **options):
        if name == "_ctypes":
            loads.append(open_descriptors())
            return None
        return load(name, *arguments, **options)

    monkeypatch.delitem(sys.modules, "_ctypes", raising=False)
    monkeypatch.setattr(builtins, "__import__", import_)
    return loads


def test_a_library_that_is_loaded_already_is_not_loaded_again(monkeypatch, importing):
    monkeypatch.setitem(sys.modules, "_ctypes", SimpleNamespace())
    native.load_ctypes()
    assert importing == []


def test_with_all_standard_streams_open_nothing_is_held_while_a_library_is_loaded(importing):
    before = open_descriptors()
    native.load_ctypes()
    assert importing == [before]
    assert open_descriptors() == before


def test_the_numbers_of_closed_standard_streams_are_held_meanwhile_and_free_afterwards(importing):
    def child():
        os.close(1)
        os.close(2)
        before = open_descriptors()
        native.load_ctypes()
        assert importing[0].keys() - before.keys() == {1, 2}
        assert open_descriptors() == before

    assert in_forked_child(child) == "ok"


def test_they_are_free_also_if_the_library_cannot_be_loaded(monkeypatch):
    load = builtins.__import__

    def import_(name, *arguments, **options):
        if name == "_ctypes":
            raise ImportError("broken")
        return load(name, *arguments, **options)

    def child():
        os.close(1)
        before = open_descriptors()
        sys.modules.pop("_ctypes", None)
        with monkeypatch.context() as patch:
            patch.setattr(builtins, "__import__", import_)
            with pytest.raises(ImportError, match="broken"):
                native.load_ctypes()
        assert open_descriptors() == before

    assert in_forked_child(child) == "ok"


def test_without_a_free_number_the_library_is_loaded_all_the_same(monkeypatch, importing):
    def refuse(*_, **__):
        raise OSError("no more")

    monkeypatch.setattr(native.os, "open", refuse)
    native.load_ctypes()
    assert len(importing) == 1


# ---- threads -----------------------------------------------------------------------------------------------------


def test_a_fresh_thread_gives_what_the_call_gives_while_this_one_waits():
    order = []

    def call():
        time.sleep(0.01)
        order.append("call")
        return order, threading.get_native_id()

    value, thread = native.run_in_fresh_thread(call)
    order.append("after")
    assert value == ["call", "after"]
    assert thread != threading.get_native_id()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, LookupError])
def test_a_fresh_thread_raises_here_whatever_the_call_raises(error):
    def fail():
        raise error("from there")

    with pytest.raises(error, match="from there"):
        native.run_in_fresh_thread(fail)


def test_a_module_that_is_written_in_c_has_one_further_instance():
    """Guards: each lock of a gevent host was made by a module of its own, which was loaded for that."""
    second = native._second_instance("_thread")
    assert second is native._second_instance("_thread")
    assert second is not _thread
    assert second.allocate_lock is not _thread.allocate_lock


def test_the_first_thread_is_not_the_main_one_in_name_only():
    here = native.in_main_thread()
    assert here is (os.getpid() == threading.get_native_id())

    def child():
        assert native.in_main_thread(), "a forked process has one thread, and that is its first"

    assert in_forked_child(child) == "ok"


# ---- what there is around it -------------------------------------------------------------------------------------


def test_the_main_interpreter_is_no_subinterpreter():
    assert native.in_subinterpreter() is False


@pytest.mark.parametrize("name", ["_interpreters", "_xxsubinterpreters"])
@pytest.mark.parametrize("main", [0, 1])
def test_each_name_of_the_module_that_knows_interpreters_is_tried(monkeypatch, name, main):
    for other in ("_interpreters", "_xxsubinterpreters"):
        monkeypatch.setitem(sys.modules, other, None)
    monkeypatch.setitem(sys.modules, name, SimpleNamespace(get_current=lambda: 1, get_main=lambda: main))
    assert native.in_subinterpreter() is (main == 0)


def test_without_such_a_module_there_are_no_subinterpreters(monkeypatch):
    for name in ("_interpreters", "_xxsubinterpreters"):
        monkeypatch.setitem(sys.modules, name, None)
    assert native.in_subinterpreter() is False


@pytest.mark.parametrize(("flags", "expected"), [((), "False"), (("-i",), "True")])
def test_an_interpreter_that_was_told_to_be_interactive_is(flags, expected):
    done = run_python("from pidfdpool.process import native; print(native.is_interactive())", flags=flags)
    assert done.stdout.split()[0] == expected


def test_a_prompt_that_comes_later_is_noticed(monkeypatch):
    monkeypatch.setattr(native, "is_told_to_be_interactive", False)
    monkeypatch.delattr(sys, "ps1", raising=False)
    assert not native.is_interactive()
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    assert native.is_interactive()


def test_a_sleep_takes_its_seconds(monkeypatch):
    slept = []
    monkeypatch.setattr(native, "poll", lambda: SimpleNamespace(poll=slept.append))
    native.sleep(0.25)
    assert slept == [250]


def test_the_interpreters_own_are_taken_as_long_as_nobody_has_replaced_them():
    assert native._native(select, "epoll") is select.epoll
    assert native._native(select, "poll") is select.poll
