"""Forks of the host while its pool is alive: both sides work, neither disturbs the other."""

from __future__ import annotations

import concurrent.futures
import faulthandler
import os
import re
import sys
import threading

import pytest

from pidfdpool import InheritedFutureError, PidfdPoolExecutor
from pidfdpool.executor import lifecycle
from pidfdpool.scheduler import events
from tests import calls
from tests.conditions import children, eventually, in_forked_child, is_alive, open_descriptors, unseen_fork


def test_the_inherited_executor_works_in_the_child_with_processes_of_its_own(pool):
    template = pool.submit(os.getppid).result()

    def child():
        assert list(pool.map(calls.double, range(20))) == [2 * n for n in range(20)]
        assert pool.submit(os.getppid).result() != template
        pool.shutdown()

    assert in_forked_child(child) == "ok"
    assert pool.submit(os.getppid).result() == template


def test_futures_that_were_pending_fail_in_the_child_with_a_clear_error(pool, tmp_path):
    paths = [str(tmp_path / str(number)) for number in range(6)]
    pending, *queued = (pool.submit(calls.run_until, path, str(tmp_path / "release"), "value") for path in paths)
    called = []
    pending.add_done_callback(lambda _: called.append(os.getpid()))

    def child():
        for future in (pending, *queued):
            with pytest.raises(InheritedFutureError, match="pending when its process was forked"):
                future.result(timeout=10)
        assert not called, "the callback belongs to the parent"

    assert in_forked_child(child) == "ok"
    (tmp_path / "release").touch()
    assert pending.result() == "value"
    assert [future.result() for future in queued] == ["value"] * 5
    assert called == [os.getpid()]


@pytest.mark.parametrize("end", ["ignore", "shutdown", "kill", "exit", "os._exit", "abort", "collect", "exec"])
def test_whatever_the_child_does_the_parents_pool_goes_on(pool, end):
    worker, template = pool.submit(calls.identify).result()
    running = pool.submit(calls.sleep, 0.2, "value")
    pid = os.fork()
    if not pid:
        try:
            if end == "shutdown":
                pool.shutdown()
            elif end == "kill":
                pool.kill_workers()
            elif end == "exit":
                sys.exit(0)
            elif end == "abort":
                faulthandler.disable()  # pytest's would print a traceback that looks like a failure
                os.abort()
            elif end == "collect":
                pool._own.pool = None
            elif end == "exec":
                os.execvp("true", ["true"])
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert running.result(timeout=20) == "value"
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


@pytest.mark.many_times
def test_forks_while_other_threads_submit_never_hang_the_child(pool):
    stop = threading.Event()

    def keep_submitting():
        while not stop.is_set():
            pool.submit(calls.double, 1).result()

    threads = [threading.Thread(target=keep_submitting) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(15):
            assert in_forked_child(lambda: _use_and_shut_down(pool)) == "ok"
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize("fork", [os.fork, unseen_fork])
def test_the_childs_collector_waits_for_no_thread_that_was_not_copied(pool, fork):
    """Guards: the pool thread was waking somebody when its host forked, and had not yet given the lock for that back.

    In the child the collector let go of the executor, mostly at the interpreter's end, and waited for a copied lock.
    """
    inner = pool._pool
    held, done = threading.Event(), threading.Event()

    def hold():
        with inner.core.poller._wake_lock:
            held.set()
            done.wait()

    def child():
        inner._note_lost_owner(None)
        inner.core.poller.__del__()

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        held.wait()
        assert in_forked_child(child, fork) == "ok"
    finally:
        done.set()
        thread.join()
    assert pool.submit(calls.double, 1).result() == 2


class Held:
    """Locks that another thread holds."""

    def __init__(self, *locks):
        self._locks = locks
        self._held, self._done = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._hold)

    def _hold(self):
        for lock in self._locks:
            lock.acquire()
        self._held.set()
        self._done.wait()
        for lock in reversed(self._locks):
            lock.release()

    def __enter__(self):
        self._thread.start()
        assert self._held.wait(20)

    def __exit__(self, *_):
        self._done.set()
        self._thread.join()


def guards(pool):
    """Return every lock of ours that another thread may hold at a fork, whatever it is doing."""
    inner = pool._pool
    (adaptive_map,) = pool._own.maps
    arena = inner.leases.arena
    return {  # in the order in which they are taken
        "of who serves": inner.core.poller.serving,
        "of the map": adaptive_map._turns._lock,
        "of the executor": pool._own.lock,
        "of all pools": lifecycle._lock,
        "of who notices a fork": lifecycle._fork_locks.setdefault(os.getpid(), threading.RLock()),
        "of a future": pool.submit(calls.sleep, 0.5)._condition,
        "of the pool": inner.core.lock,
        "of the segments": arena._lock,
        "of who wakes": inner.core.poller._wake_lock,
    }


@pytest.mark.parametrize("fork", [os.fork, unseen_fork])
def test_a_guard_that_another_thread_holds_stops_nobody_in_the_child(pool, fork, tmp_path):
    """Neither at a fork that Python is told of nor at another one, whatever the child does with the copies."""
    release = tmp_path / "release"
    futures = [pool.submit(calls.wait_for, str(release)) for _ in range(3)]
    results = pool.map(calls.sleep, [0.001] * 200)
    held = guards(pool)
    inner = pool._pool

    def child():
        pool.stats()
        for future in futures:
            future.cancel()
            assert concurrent.futures.wait([future], 20).done
        with pytest.raises(InheritedFutureError):
            list(results)
        with PidfdPoolExecutor(1, mp_context="fork") as another:
            assert another.submit(calls.double, 2).result(20) == 4
        assert pool.submit(calls.double, 3).result(20) == 6
        assert list(pool.map(calls.double, range(3), timeout=20)) == [0, 2, 4]
        inner.core.handle(events.ShutdownRequested())
        inner.core.poller.wake()
        inner.leases.abandon_in_forked_child()
        pool.shutdown()
        lifecycle._at_exit()

    with Held(*held.values()):
        assert in_forked_child(child, fork) == "ok"
    release.touch()
    assert pool.submit(calls.double, 1).result(20) == 2
    assert len(list(results)) == 200


def _use_and_shut_down(pool):
    assert pool.submit(calls.double, 3).result(timeout=20) == 6
    pool.shutdown()


def test_a_pool_that_was_never_used_forks_well(way):
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        assert in_forked_child(lambda: _use_and_shut_down(pool)) == "ok"
        assert pool.submit(calls.double, 1).result() == 2


def test_the_child_has_no_descriptor_of_the_parents_pool(pool):
    def of_pools():
        return [name for name in open_descriptors().values() if re.search("pidfd|eventfd|eventpoll", name)]

    def child():
        assert not of_pools()

    assert of_pools()
    assert in_forked_child(child) == "ok"
    assert children(os.getpid()) == []
    eventually(lambda: pool.submit(calls.double, 1).result() == 2, "the pool works")


class SlowToRebuild:
    """A result whose rebuilding in the host takes until a file is made."""

    def __init__(self, started, release):
        self.paths = started, release

    def __reduce__(self):
        return calls.run_until, (*self.paths, "rebuilt")


def test_a_result_that_is_being_rebuilt_fails_in_a_child_that_is_forked_meanwhile(tmp_path):
    started, release = tmp_path / "started", tmp_path / "release"
    with PidfdPoolExecutor(1) as pool:
        future = pool.submit(SlowToRebuild, str(started), str(release))
        eventually(started.exists, "it is being rebuilt")

        def child():
            assert isinstance(future.exception(10), InheritedFutureError)

        report = in_forked_child(child)
        release.touch()
        assert report == "ok"
        assert future.result(20) == "rebuilt"


def test_a_child_that_is_forked_while_the_executors_locks_are_held_uses_it():
    """By another thread, which is not there in the child to give them back."""
    held, give_back = threading.Event(), threading.Event()
    with PidfdPoolExecutor(1) as pool:
        assert pool.submit(calls.double, 1).result(20) == 2

        def hold():
            with pool._own.lock, pool._pool.core.lock:
                held.set()
                give_back.wait(20)

        holder = threading.Thread(target=hold)
        holder.start()
        assert held.wait(20)

        def child():
            assert pool.submit(calls.double, 2).result(10) == 4
            pool.shutdown()

        try:
            assert in_forked_child(child) == "ok"
        finally:
            give_back.set()
            holder.join()
