"""Forks of the host that Python is not told of: C code that calls fork() runs none of its hooks. uWSGI does that."""

from __future__ import annotations

import functools
import os

import pytest

from pidfdpool import InheritedFutureError
from tests import calls, conditions
from tests.conditions import eventually, is_alive, run_python

in_forked_child = functools.partial(conditions.in_forked_child, fork=conditions.unseen_fork)


def test_the_inherited_executor_works_in_the_child_with_processes_of_its_own(pool):
    template = pool.submit(os.getppid).result()

    def child():
        assert list(pool.map(calls.double, range(20))) == [2 * n for n in range(20)]
        assert pool.submit(os.getppid).result() != template
        pool.shutdown()

    assert in_forked_child(child) == "ok"
    assert pool.submit(os.getppid).result() == template


def test_futures_that_were_pending_fail_in_the_child_as_soon_as_it_uses_a_pool(pool, tmp_path):
    pending = pool.submit(calls.run_until, str(tmp_path / "runs"), str(tmp_path / "release"), "value")
    called = []
    pending.add_done_callback(lambda _: called.append(os.getpid()))

    def child():
        assert pool.submit(calls.double, 2).result(timeout=10) == 4
        with pytest.raises(InheritedFutureError, match="pending when its process was forked"):
            pending.result(timeout=10)
        assert not called, "the callback belongs to the parent"
        pool.shutdown()

    assert in_forked_child(child) == "ok"
    (tmp_path / "release").touch()
    assert pending.result() == "value"
    eventually(lambda: called == [os.getpid()], "it is called back, once")


def begin_and_wait(folder):
    (folder / "begun").touch()
    eventually((folder / "go on").exists, "the task may go on")
    return "went on"


@pytest.mark.parametrize(
    "first", ["shutdown", "kill", "terminate", "resize", "look", "cancel", "kill task", "collect"]
)
def test_whatever_the_child_does_first_the_parents_pool_goes_on(pool, first, tmp_path):
    worker, template = pool.submit(calls.identify).result()
    running = pool.submit(begin_and_wait, tmp_path)
    eventually((tmp_path / "begun").exists, "the task runs")

    def child():
        if first == "shutdown":
            pool.shutdown()
        elif first == "kill":
            pool.kill_workers()
        elif first == "terminate":
            pool.terminate_workers()
        elif first == "resize":
            pool.resize(1)
        elif first == "look":
            assert pool.workers() == ()
            assert pool.stats().submitted == 0
        elif first == "cancel":
            assert not running.cancel()
        elif first == "kill task":
            assert not running.kill()
        elif first == "collect":
            pool._own.pool = None

    assert in_forked_child(child) == "ok"
    (tmp_path / "go on").touch()
    assert running.result(timeout=20) == "went on"
    assert pool.submit(os.getppid).result(timeout=20) == template
    assert is_alive(worker)


def test_a_child_of_a_child_works_too(pool):
    def grandchild():
        assert pool.submit(calls.double, 4).result() == 8
        pool.shutdown()

    def child():
        assert pool.submit(calls.double, 3).result() == 6
        assert in_forked_child(grandchild) == "ok"
        assert pool.submit(calls.double, 5).result() == 10
        pool.shutdown()

    assert in_forked_child(child) == "ok"


@pytest.mark.parametrize("used", ["used", "unused"])
def test_the_childs_exit_waits_for_nothing_of_the_parents(way, used):
    """The interpreter's end is where pools are finished: the parent's must not be, nor its thread be waited for."""
    done = run_python(
        """
        import ctypes, os, sys
        from pidfdpool import PidfdPoolExecutor
        from tests import calls
        pool = PidfdPoolExecutor(1, mp_context=sys.argv[1])
        worker = pool.submit(os.getpid).result()
        pid = ctypes.PyDLL(None).fork()
        if not pid:
            if sys.argv[2] == "used":
                assert pool.submit(os.getpid).result(timeout=20) != worker
            sys.exit(5)
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 5, status
        assert pool.submit(os.getpid).result(timeout=20) == worker
        """,
        way,
        used,
    )
    assert (done.returncode, done.stderr) == (0, "")
