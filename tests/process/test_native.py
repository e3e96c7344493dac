"""What the interpreter really has, where somebody has put something else into the standard modules."""

from __future__ import annotations

import _thread
import builtins
import os
import select
import signal
import socket
import sys
import threading
import warnings
from types import SimpleNamespace

import pytest

from pidfdpool.process import native
from tests.conditions import in_forked_child, open_descriptors


class Stranger:
    """What a host may have put there."""

    def __init__(self, *_: object, **__: object) -> None:
        raise AssertionError("the replacement was used")


@pytest.fixture
def greenlets(monkeypatch):
    """Return a set of what gevent says that it has replaced."""
    replaced = set()
    told = SimpleNamespace(is_object_patched=lambda module, name: f"{module}.{name}" in replaced)
    monkeypatch.setitem(sys.modules, "gevent.monkey", told)
    return replaced


@pytest.fixture
def patched(monkeypatch, greenlets):
    greenlets.add("_thread.start_new_thread")
    monkeypatch.setattr(_thread, "start_new_thread", lambda *_: Stranger())
    monkeypatch.setattr(_thread, "allocate_lock", Stranger)
    monkeypatch.setattr(select, "poll", Stranger)
    monkeypatch.delattr(select, "epoll")
    monkeypatch.setattr(socket, "socketpair", Stranger)
    monkeypatch.setattr(socket, "socket", Stranger)
    monkeypatch.setattr(os, "fork", Stranger)
    monkeypatch.setattr(os, "posix_spawn", Stranger)
    monkeypatch.setattr(signal, "signal", Stranger)


def use_all() -> None:
    ours, theirs = native.socketpair()
    again = native.socket_of(theirs.detach())
    waiting = native.epoll()
    waiting.register(ours.fileno(), select.EPOLLIN)
    poller = native.poll()
    poller.register(ours.fileno(), select.POLLIN)
    assert (waiting.poll(0), poller.poll(0)) == ([], [])
    again.send(b"x")
    assert waiting.poll(0) == [(ours.fileno(), select.EPOLLIN)]
    assert poller.poll(0) == [(ours.fileno(), select.POLLIN)]
    for closing in (ours, again, waiting):
        closing.close()
    with native.reentrant_lock():
        assert native.run_in_fresh_thread(threading.get_native_id) != threading.get_native_id()


def test_everything_works():
    assert not native.threads_are_greenlets()
    use_all()


def test_everything_works_where_it_is_patched(patched):
    assert native.threads_are_greenlets()
    use_all()


@pytest.mark.usefixtures("patched")
def test_processes_and_signals_are_the_kernels():
    pid = native.fork()
    if not pid:
        os._exit(7)
    assert os.waitid(os.P_PID, pid, os.WEXITED).si_status == 7
    assert native.get_signal(signal.SIGUSR2) == native.SIG_DFL
    native.set_signal(signal.SIGUSR2, native.SIG_IGN)
    assert native.get_signal(signal.SIGUSR2) == signal.SIG_IGN
    native.set_signal(signal.SIGUSR2, native.SIG_DFL)


def test_sockets_block_whatever_the_hosts_default_is():
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(0.01)
    try:
        ends = native.socketpair()
        ends = (*ends, native.socket_of(os.dup(ends[0].fileno())))
        assert [(end.gettimeout(), os.get_blocking(end.fileno())) for end in ends] == [(None, True)] * 3
        for end in ends:
            end.close()
    finally:
        socket.setdefaulttimeout(before)


def test_what_a_fresh_thread_raises_is_raised():
    def fail():
        raise OSError(24, "no more")

    with pytest.raises(OSError, match="no more"):
        native.run_in_fresh_thread(fail)


@pytest.mark.usefixtures("patched")
def test_greenlets_without_a_poll_that_lets_others_run_are_refused(greenlets, monkeypatch):
    with native.epoll() as waiting, pytest.raises(RuntimeError, match=r"select\.select is not patched"):
        native.wait_readable(waiting, 0.0)
    asked = []
    greenlets.add("select.select")
    monkeypatch.setattr(select, "select", lambda *arguments: asked.append(arguments))
    with native.epoll() as waiting:
        native.wait_readable(waiting, 0.5)
        assert asked == [([waiting], [], [], 0.5)]


def test_a_wrapper_that_still_starts_a_thread_makes_no_greenlets(monkeypatch):
    """Debuggers put one there, to see each thread from its beginning."""
    real = _thread.start_new_thread
    monkeypatch.setattr(_thread, "start_new_thread", lambda *arguments: real(*arguments))
    assert not native.threads_are_greenlets()
    use_all()


def test_gevent_that_was_loaded_and_has_replaced_nothing_makes_no_greenlets(greenlets):
    assert not native.threads_are_greenlets()


def test_a_module_of_gevent_that_is_still_being_imported_is_not_asked(monkeypatch):
    monkeypatch.setitem(sys.modules, "gevent.monkey", SimpleNamespace())
    assert not native.threads_are_greenlets()


def test_eventlet_is_asked_too(monkeypatch):
    replaced = {"thread"}
    told = SimpleNamespace(is_monkey_patched=replaced.__contains__)
    monkeypatch.setitem(sys.modules, "eventlet.patcher", told)
    assert native.threads_are_greenlets()
    replaced.clear()
    assert not native.threads_are_greenlets()


def test_the_main_thread_is_known():
    assert native.in_main_thread() == (threading.get_native_id() == os.getpid())
    assert not native.run_in_fresh_thread(native.in_main_thread)


def test_a_descriptor_with_the_number_of_a_standard_stream_gets_another_one():
    def child():
        os.close(0)
        fd = os.open(os.devnull, os.O_RDONLY)
        assert fd == 0
        moved = native.above_stdio(fd)
        assert moved > 2
        assert not os.get_inheritable(moved)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(0)
        assert native.above_stdio(moved) == moved

    assert in_forked_child(child) == "ok"


@pytest.mark.parametrize("closed", [{0}, {1}, {2}, {0, 1, 2}], ids=str)
def test_a_library_that_keeps_a_file_open_gets_no_number_of_a_standard_stream(closed, monkeypatch):
    """Guards: with standard error closed, libffi's file got its number, and every print went there and failed."""
    load, opened = builtins.__import__, []

    def import_(name, *arguments, **options):
        if name != "_ctypes":
            return load(name, *arguments, **options)
        opened.append(os.open(os.devnull, os.O_RDONLY))
        if 2 in closed:  # another thread puts a file there meanwhile
            os.dup2(opened[0], 2)
        return None

    def child():
        for fd in closed:
            os.close(fd)
        sys.modules.pop("_ctypes", None)
        monkeypatch.setattr(builtins, "__import__", import_)
        before = set(open_descriptors())
        native.load_ctypes()
        assert opened[0] > 2
        others = {2} if 2 in closed else set()
        assert set(open_descriptors()) - before == {*opened, *others}, "the numbers are free again"

    assert in_forked_child(child) == "ok"


def test_warnings_are_shown_again_after_a_fork():
    pid = native.fork([])
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
    with pytest.warns(UserWarning, match="seen"):
        warnings.warn("seen", stacklevel=1)
