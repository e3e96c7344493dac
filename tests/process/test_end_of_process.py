"""The exit functions of a new process: which of its parent's are removed, which are run, and in which order."""

from __future__ import annotations

import atexit
import logging
import logging.handlers
import multiprocessing.util
import sys
import threading
import weakref
from types import SimpleNamespace

import pytest

from pidfdpool.process import exiting, hygiene
from tests.conditions import in_forked_child


class Thing:
    pass


class Noting(logging.Handler):
    """Notes what is done to it; `error`: what its flush raises."""

    def __init__(self, error=None):
        super().__init__()
        self.done, self.error = [], error

    def emit(self, record):
        pass

    def flush(self):
        self.done.append("flushed")
        if self.error is not None:
            raise self.error


@pytest.fixture
def own():
    """Give a function that makes handlers which are closed at the end of the test."""
    made = []

    def make(*arguments):
        made.append(Noting(*arguments))
        return made[-1]

    yield make
    for handler in made:
        handler.error = None
        handler.close()


# ---- what is left to the parent ----------------------------------------------------------------------------------


def test_finalizers_of_the_parents_multiprocessing_are_its_own_and_what_is_to_run_after_a_fork_runs():
    def child():
        done = []
        multiprocessing.util.Finalize(None, done.append, args=("of the parent",), exitpriority=1)
        multiprocessing.util.register_after_fork(things[0], lambda _: done.append("after the fork"))
        exiting.leave_inherited()
        assert done == ["after the fork"]
        multiprocessing.util.Finalize(None, done.append, args=("its own",), exitpriority=1)
        exiting.run()
        assert done == ["after the fork", "its own"]

    things = [Thing()]
    assert in_forked_child(child) == "ok"


def test_a_process_without_these_modules_leaves_nothing_and_ends(monkeypatch):
    def child():
        for name in ("concurrent.futures.process", "concurrent.futures.thread", "multiprocessing.util", "threading"):
            sys.modules.pop(name, None)
        for name in ("logging", "logging.handlers", "weakref"):
            sys.modules.pop(name, None)
        atexit._clear()
        exiting.leave_inherited()
        assert atexit._ncallbacks() == 0
        exiting.run()

    assert in_forked_child(child) == "ok"


def test_modules_that_have_other_private_names_keep_no_process_from_beginning(monkeypatch):
    def child():
        sys.modules["logging"] = SimpleNamespace()
        sys.modules["weakref"] = SimpleNamespace(finalize=SimpleNamespace())
        exiting.leave_inherited()

    assert in_forked_child(child) == "ok"


def test_records_stay_in_buffers_of_handlers_that_are_no_buffers_of_loggings():
    """Only what logging itself calls a buffer is emptied."""
    handler = Noting()
    handler.buffer = ["a record"]

    def child():
        exiting.leave_inherited()
        assert handler.buffer == ["a record"]

    try:
        assert in_forked_child(child) == "ok"
    finally:
        handler.close()


def test_finalizers_of_a_new_process_run_at_its_end_and_its_parents_do_not():
    def child():
        done, things = [], [Thing(), Thing()]
        atexit._clear()
        weakref.finalize(things[0], done.append, "of the parent")
        exiting.leave_inherited()
        first = weakref.finalize(things[1], done.append, "its own")
        assert first.atexit
        exiting.run()
        assert done == ["its own"]

    assert in_forked_child(child) == "ok"


@pytest.mark.parametrize("error", [OSError, ValueError])
def test_a_handler_whose_stream_is_closed_keeps_no_other_from_being_flushed(own, error):
    failing, second = own(error("closed")), own()

    def child():
        exiting._end_logs([each for each in logging._handlerList if each() in (failing, second)])
        assert (failing.done, second.done) == (["flushed"], ["flushed"])

    assert in_forked_child(child) == "ok"


def test_copies_of_handlers_are_flushed_once_however_many_processes_they_have_come_through(own):
    handler = own()

    def child():
        exiting.leave_inherited()
        assert in_forked_child(grandchild) == "ok"

    def grandchild():
        exiting.leave_inherited()
        atexit._run_exitfuncs()
        assert handler.done == ["flushed"]

    assert in_forked_child(child) == "ok"


# ---- what is the template's --------------------------------------------------------------------------------------


def test_a_function_of_the_templates_can_be_unregistered_under_its_own_name():
    def child():
        done = []

        def function():
            done.append("called")

        atexit._clear()
        exiting.mark_as_own()
        assert atexit.register(function) is function, "as a decorator"
        atexit.register(done.append, "kept")
        atexit.unregister(function)
        atexit._run_exitfuncs()
        assert done == ["kept"]

    assert in_forked_child(child) == "ok"


def test_a_function_of_the_templates_gets_its_arguments():
    def child():
        done = []
        atexit._clear()
        exiting.mark_as_own()
        atexit.register(lambda *arguments, **keywords: done.append((arguments, keywords)), 1, two=2, function=3)
        atexit._run_exitfuncs()
        assert done == [((1,), {"two": 2, "function": 3})]

    assert in_forked_child(child) == "ok"


def test_what_cannot_be_called_is_refused_as_ever():
    def child():
        exiting.mark_as_own()
        with pytest.raises(TypeError, match="must be callable"):
            atexit.register("no function")

    assert in_forked_child(child) == "ok"


def test_a_new_process_has_the_interpreters_own_register_again():
    def child():
        original = atexit.register
        exiting.mark_as_own()
        assert atexit.register is not original
        exiting.leave_inherited()
        assert atexit.register is original
        exiting.mark_as_own()
        exiting.discard_inherited()
        assert atexit.register is original

    assert in_forked_child(child) == "ok"


# ---- the end -----------------------------------------------------------------------------------------------------


def test_the_steps_of_an_end_are_those_of_an_interpreters(monkeypatch):
    order = []
    util = SimpleNamespace(_exit_function=lambda: order.append("multiprocessing"))
    monkeypatch.setitem(sys.modules, "multiprocessing.util", util)
    monkeypatch.setattr(threading, "_shutdown", lambda: order.append("threads"))
    monkeypatch.setattr(atexit, "_run_exitfuncs", lambda: order.append("exit functions"))
    monkeypatch.setattr(exiting, "_flush_files", lambda: order.append("files"))
    monkeypatch.setattr(hygiene, "flush_output", lambda: order.append("output"))
    exiting.run()
    assert order == ["threads", "exit functions", "multiprocessing", "files", "output"]


@pytest.mark.parametrize(("mode", "buffering"), [("w", -1), ("wb", -1), ("r+b", -1), ("w+", -1)])
def test_files_of_every_kind_that_buffers_are_written_at_the_end(tmp_path, mode, buffering):
    path = tmp_path / "file"
    path.touch()

    def child():
        file = open(path, mode, buffering)
        file.write(b"written" if "b" in mode else "written")
        broken = open(tmp_path / "closed", "w")
        broken.detach().close()
        exiting._flush_files()
        assert path.read_text() == "written"

    assert in_forked_child(child) == "ok"
