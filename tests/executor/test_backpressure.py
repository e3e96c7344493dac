"""max_pending: how many accepted tasks there may be that have not ended."""

from __future__ import annotations

import os
import threading
import time

import pytest

from pidfdpool import PidfdPoolExecutor, PoolBroken
from pidfdpool.errors import QueueFull
from tests import calls
from tests.conditions import eventually


def fill(pool, tmp_path, count):
    """Submit so many tasks that end when the file `release` is made, and wait until the first one runs."""
    paths = [str(tmp_path / str(number)) for number in range(count)]
    futures = [pool.submit(calls.run_until, path, str(tmp_path / "release"), path) for path in paths]
    eventually(lambda: os.path.exists(paths[0]), "the first one runs")
    return futures


class Caller(threading.Thread):
    """A thread that calls something once, and keeps what came of it."""

    def __init__(self, function, *args):
        super().__init__()
        self.call = function, args
        self.result = self.error = None
        self.start()

    def run(self):
        function, args = self.call
        try:
            self.result = function(*args)
        except BaseException as error:
            self.error = error

    def is_blocked(self):
        """Return whether it waits for room."""
        import sys

        frame = sys._current_frames().get(self.ident)
        names = set()
        while frame is not None:
            names.add(frame.f_code.co_name)
            frame = frame.f_back
        return {"submit", "wait"} <= names


def test_submit_waits_until_there_is_room(way, tmp_path):
    with PidfdPoolExecutor(1, mp_context=way, max_pending=2) as pool:
        fill(pool, tmp_path, 2)
        third = Caller(pool.submit, calls.double, 2)
        eventually(third.is_blocked, "submit waits")
        assert pool.stats().pending == 2
        calls.note(str(tmp_path / "release"))
        third.join(20)
        assert third.result.result(timeout=20) == 4


def test_there_are_never_more_pending_than_asked_for(way):
    with PidfdPoolExecutor(2, mp_context=way, max_pending=5) as pool:
        seen = []

        def submit():
            for _ in range(50):
                pool.submit(calls.double, 2)
                seen.append(pool.stats().pending)

        callers = [Caller(submit) for _ in range(4)]
        for caller in callers:
            caller.join(30)
            assert caller.error is None
        assert not any(caller.is_alive() for caller in callers)
        assert max(seen) <= 5
    assert pool.stats().finished == 200


def test_map_takes_its_arguments_as_there_is_room(way):
    with PidfdPoolExecutor(2, mp_context=way, max_pending=3) as pool:
        assert list(pool.map(calls.double, range(50))) == [2 * number for number in range(50)]
        assert sorted(pool.map_unordered(calls.double, range(50), chunksize=3)) == [2 * n for n in range(50)]


def test_queue_full_is_raised_where_waiting_was_not_asked_for(way, tmp_path):
    with PidfdPoolExecutor(1, mp_context=way, max_pending=2, block=False) as pool:
        futures = fill(pool, tmp_path, 2)
        with pytest.raises(QueueFull, match="max_pending is 2"):
            pool.submit(calls.double, 2)
        assert pool.stats().submitted == 2
        waiter = Caller(pool.options(block=True).submit, calls.double, 2)
        eventually(waiter.is_blocked, "the view waits")
        calls.note(str(tmp_path / "release"))
        waiter.join(20)
        assert waiter.result.result(timeout=20) == 4
        assert all(future.result(timeout=20) for future in futures)
        assert pool.submit(calls.double, 3).result(timeout=20) == 6


def test_a_cancelled_task_makes_room(way, tmp_path):
    with PidfdPoolExecutor(1, mp_context=way, max_pending=2) as pool:
        _first, second = fill(pool, tmp_path, 2)
        third = Caller(pool.submit, calls.double, 2)
        eventually(third.is_blocked, "submit waits")
        assert second.cancel()
        third.join(20)
        assert third.result is not None
        calls.note(str(tmp_path / "release"))
        assert third.result.result(timeout=20) == 4


def test_a_callback_may_submit_though_there_is_no_room(way, tmp_path):
    followers = []

    def follow(_done):
        followers.extend(pool.submit(calls.double, number) for number in range(3))

    with PidfdPoolExecutor(1, mp_context=way, max_pending=1) as pool:
        (first,) = fill(pool, tmp_path, 1)
        first.add_done_callback(follow)
        calls.note(str(tmp_path / "release"))
        eventually(lambda: len(followers) == 3, "the callback came through")
        assert [future.result(timeout=20) for future in followers] == [0, 2, 4]


def test_a_subscriber_may_submit_though_there_is_no_room(way, tmp_path):
    followers = []
    with PidfdPoolExecutor(1, mp_context=way, max_pending=1) as pool:
        unsubscribe = pool.subscribe(lambda death: followers.append(pool.submit(calls.double, 2)))
        bad = pool.submit(calls.die)
        assert bad.exception(timeout=20) is not None
        unsubscribe()
        assert followers[0].result(timeout=20) == 4


@pytest.mark.parametrize("end", ["shutdown", "kill_workers"])
def test_who_waits_is_told_when_the_pool_is_shut_down(way, end, tmp_path):
    with PidfdPoolExecutor(1, mp_context=way, max_pending=1) as pool:
        fill(pool, tmp_path, 1)
        callers = [Caller(pool.submit, calls.double, 2) for _ in range(3)]
        eventually(lambda: all(caller.is_blocked() for caller in callers), "submit waits")
        if end == "shutdown":
            pool.shutdown(wait=False)
        else:
            pool.kill_workers()
        for caller in callers:
            caller.join(20)
            assert isinstance(caller.error, RuntimeError)
            assert "after shutdown" in str(caller.error)
        calls.note(str(tmp_path / "release"))


def test_who_waits_is_told_when_the_pool_breaks(way, tmp_path):
    with PidfdPoolExecutor(1, mp_context=way, max_pending=1, on_crash="break") as pool:
        (first,) = fill(pool, tmp_path, 1)
        callers = [Caller(pool.submit, calls.double, 2) for _ in range(3)]
        eventually(lambda: all(caller.is_blocked() for caller in callers), "submit waits")
        os.kill(first.worker.pid, 9)
        for caller in callers:
            caller.join(20)
            assert isinstance(caller.error, PoolBroken)


def test_a_task_between_two_attempts_is_pending(way, tmp_path):
    path = str(tmp_path / "attempts")
    rules = {"retries": 1, "retry_on": ValueError, "retry_backoff": 0.2}
    with PidfdPoolExecutor(1, mp_context=way, max_pending=1, block=False, **rules) as pool:
        future = pool.submit(calls.fail_until, path, 2, "ValueError")
        eventually(lambda: pool.stats().delayed or future.done(), "the first attempt failed")
        with pytest.raises(QueueFull):
            pool.submit(calls.double, 2)
        assert future.result(timeout=20) == 2


def test_a_blocked_submit_can_be_interrupted(way, tmp_path):
    """By Ctrl-C, as everything that waits."""
    import signal

    with PidfdPoolExecutor(1, mp_context=way, max_pending=1) as pool:
        (first,) = fill(pool, tmp_path, 1)
        main = threading.get_ident()

        def interrupt():
            time.sleep(0.1)
            signal.pthread_kill(main, signal.SIGINT)

        interrupter = Caller(interrupt)
        with pytest.raises(KeyboardInterrupt):
            pool.submit(calls.double, 2)
        interrupter.join()
        calls.note(str(tmp_path / "release"))
        assert first.result(timeout=20)
        assert pool.submit(calls.double, 2).result(timeout=20) == 4
