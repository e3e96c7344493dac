"""Which exit functions a new process runs: its own, and not those of the process that it was forked from."""

from __future__ import annotations

import atexit
import logging.handlers
import os
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor, process, thread

from pidfdpool.process import exiting
from tests.conditions import in_forked_child


class Thing:
    pass


def test_nothing_of_the_parents_is_done_at_the_end_of_a_new_process():
    done = []
    things = [Thing(), Thing()]
    finalizer = weakref.finalize(things[0], done.append, "of the parent")

    def child():
        atexit.register(done.append, "registered by the parent")
        process._threads_wakeups[things[0]] = None
        thread._threads_queues[things[0]] = None
        exiting.discard_inherited()
        assert not process._threads_wakeups, "its exit function would write into pipes of the parent's pools"
        assert not thread._threads_queues, "its exit function would wait for threads that are not there"
        atexit.register(done.append, "registered by itself")
        weakref.finalize(things[1], done.append, "of its own")
        exiting.run()
        assert done == ["of its own", "registered by itself"]

    assert in_forked_child(child) == "ok"
    assert finalizer.detach()
    assert done == []


def test_one_step_of_the_exit_that_raises_keeps_no_other_from_being_done(monkeypatch, tmp_path):
    def child():
        done, told = [], []
        monkeypatch.setattr(sys, "excepthook", lambda kind, *_: told.append(kind))
        for name in ("_join_threads", "_end_multiprocessing"):
            monkeypatch.setattr(exiting, name, lambda name=name: done.append(name) or sys.exit(1))
        atexit._clear()
        atexit.register(done.append, "registered")
        file = open(tmp_path / "file", "w")
        file.write("written")
        exiting.run()
        assert done == ["_join_threads", "registered", "_end_multiprocessing"]
        assert told == [SystemExit, SystemExit]
        assert (tmp_path / "file").read_text() == "written"

    assert in_forked_child(child) == "ok"


def test_what_is_registered_as_a_templates_own_is_not_done_by_its_workers():
    def child():
        done = []
        atexit._clear()
        exiting.mark_as_own()
        register = atexit.register
        register(done.append, "template")

        def worker():
            exiting.leave_inherited()
            register(done.append, "worker")  # a module has imported it
            atexit.register(done.append, "worker, too")
            atexit._run_exitfuncs()
            assert done == ["worker, too", "worker"]
            assert in_forked_child(child_of_worker) == "ok"

        def child_of_worker():
            register(done.append, "again")  # and what this one forks runs it, too, as any forked process does

            def grandchild():
                done.clear()
                atexit._run_exitfuncs()
                assert done == ["again"]

            assert in_forked_child(grandchild) == "ok"

        assert in_forked_child(worker) == "ok"
        atexit._run_exitfuncs()
        assert done == ["template"]

    assert in_forked_child(child) == "ok"


def test_records_that_the_parent_has_buffered_are_the_parents():
    handler = logging.handlers.MemoryHandler(10)
    handler.buffer.append("a record")

    def child():
        exiting.leave_inherited()
        assert handler.buffer == []

    try:
        assert in_forked_child(child) == "ok"
        assert handler.buffer == ["a record"]
    finally:
        handler.buffer.clear()
        handler.close()


class Noting(logging.Handler):
    """Notes what is done to it."""

    def __init__(self):
        super().__init__()
        self.done = []

    def emit(self, record):
        self.done.append(record.msg)

    def flush(self):
        self.done.append("flushed")

    def close(self):
        self.done.append("closed")
        super().close()


def test_handlers_of_the_parent_are_flushed_at_the_end_and_not_closed():
    """Guards: logging's own exit function was still there, and closed the copies. A close may do anything."""
    inherited, silent = Noting(), Noting()
    silent.flushOnClose = False  # as a MemoryHandler may have it

    def child():
        atexit._clear()
        atexit.register(logging.shutdown)  # as when the interpreter's start has loaded it, before any code of ours
        exiting.leave_inherited()
        own = Noting()
        atexit.register(own.emit, logging.makeLogRecord({"msg": "logged at exit"}))
        exiting.run()
        assert inherited.done == ["flushed"]
        assert own.done == ["logged at exit", "flushed", "closed"]
        assert silent.done == []
        assert in_forked_child(grandchild) == "ok"

    def grandchild():
        exiting.leave_inherited()
        exiting.run()
        assert inherited.done == ["flushed"] * 2, "once for each process, and not once for each of its parents"

    try:
        assert in_forked_child(child) == "ok"
        assert inherited.done == []
    finally:
        inherited.close()
        silent.close()


def test_a_handler_of_the_parents_that_is_gone_by_then_is_passed_over():
    inherited = [Noting()]

    def child():
        exiting.leave_inherited()
        del inherited[:]
        exiting._end_logs([weakref.ref(Thing()), *logging._handlerList])

    assert in_forked_child(child) == "ok"
    inherited.pop().close()


def test_a_pool_of_threads_that_a_new_process_makes_is_waited_for():
    def child():
        exiting.leave_inherited()
        done = []
        with ThreadPoolExecutor(1) as pool:
            pool.submit(done.append, os.getpid())
        exiting.run()
        assert done == [os.getpid()]

    assert in_forked_child(child) == "ok"
