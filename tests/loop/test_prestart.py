"""`prestart`: the template and its workers are there before the first task."""

from __future__ import annotations

import os
import signal
import threading
import time
from functools import partial

import pytest

from pidfdpool import PidfdPoolExecutor, PoolBroken
from tests import calls
from tests.conditions import children, eventually, in_forked_child, open_descriptors

WAYS = ("spawn", "fork")
PER_WORKER = 5  # descriptors that the host holds: the channel, the pipe, the pidfd, the tokens, the black box
PER_POOL = (
    8  # the pool thread's epoll and its wakeup, the leader's; the template's channel, pidfd, requests, lifeline
)
OF_A_WORKER = 6  # beside the standard streams: channel, pipe, tokens, black box, lifeline, the end for requests
pytestmark = pytest.mark.parametrize("way", WAYS)


def states(pool) -> list[str]:
    return [worker.state for worker in pool.workers()]


def test_the_workers_are_ready_when_it_returns(way):
    with PidfdPoolExecutor(3, mp_context=way) as pool:
        assert pool.prestart() == 3
        assert states(pool) == ["IDLE"] * 3
        assert pool.stats().submitted == 0
        pids = {worker.pid for worker in pool.workers()}
        assert pool.submit(os.getpid).result() in pids
        assert {worker.pid for worker in pool.workers()} == pids
        assert pool.stats().restarts == 0


def test_the_host_has_no_child_of_ours_afterwards(way):
    before = children(os.getpid())
    with PidfdPoolExecutor(2, mp_context=way) as pool:
        pool.prestart()
        assert children(os.getpid()) == before


def test_fewer_may_be_asked_for_and_more_later(way):
    with PidfdPoolExecutor(3, mp_context=way) as pool:
        assert pool.prestart(1) == 1
        assert len(pool.workers()) == 1
        assert pool.prestart(1) == 1
        assert len(pool.workers()) == 1
        assert pool.prestart(2) == 2
        assert pool.prestart() == 3
        assert pool.prestart(1) == 3


def test_without_waiting_they_come_in_their_own_time(way):
    with PidfdPoolExecutor(2, mp_context=way) as pool:
        assert 0 <= pool.prestart(wait=False) <= 2
        eventually(lambda: states(pool) == ["IDLE", "IDLE"], "both workers are ready")


def test_the_initializer_is_done(way, tmp_path):
    log = tmp_path / "log"
    with PidfdPoolExecutor(2, mp_context=way, initializer=calls.append, initargs=(str(log), "x")) as pool:
        assert pool.prestart() == 2
        assert log.read_text().count("x") == 2


def test_a_timeout_tells_how_many_are_ready(way, tmp_path):
    release = str(tmp_path / "release")
    with PidfdPoolExecutor(2, mp_context=way, initializer=calls.wait_for, initargs=(release,)) as pool:
        assert pool.prestart(timeout=0.05) == 0
        assert pool.prestart(timeout=0) == 0
        (tmp_path / "release").touch()
        assert pool.prestart(timeout=30) == 2


def test_an_initializer_that_fails_is_told(way):
    with PidfdPoolExecutor(2, mp_context=way, initializer=calls.raise_it, initargs=(ValueError("no"),)) as pool:
        with pytest.raises(PoolBroken, match="initializer"):
            pool.prestart()
        with pytest.raises(PoolBroken, match="initializer"):
            pool.prestart(wait=False)


def test_a_preload_that_fails_is_told(way):
    with PidfdPoolExecutor(1, mp_context=way, preload=partial(calls.raise_it, ValueError("no"))) as pool:
        with pytest.raises(PoolBroken, match="preload"):
            pool.prestart()


def test_workers_that_die_at_once_break_the_pool_rather_than_hang(way):
    with PidfdPoolExecutor(1, mp_context=way, initializer=calls.die, intensity=1, backoff=0.0) as pool:
        with pytest.raises(PoolBroken):
            pool.prestart()


def test_a_pool_that_is_shut_down_starts_nothing(way):
    pool = PidfdPoolExecutor(1, mp_context=way)
    pool.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.prestart()
    assert "shut down" in repr(pool)


def test_a_shutdown_meanwhile_ends_the_waiting(way, tmp_path):
    release = tmp_path / "release"
    pool = PidfdPoolExecutor(1, mp_context=way, initializer=calls.wait_for, initargs=(str(release),))
    raised = []

    def wait() -> None:
        try:
            pool.prestart()
        except RuntimeError as error:
            raised.append(str(error))

    waiting = threading.Thread(target=wait)
    waiting.start()
    eventually(lambda: states(pool) == ["STARTING"], "the worker is on its way")
    pool.shutdown(wait=False)
    waiting.join(20)
    assert raised == ["cannot schedule new futures after shutdown"]
    release.touch()
    pool.shutdown()


def test_many_threads_may_ask_at_once(way):
    with PidfdPoolExecutor(2, mp_context=way) as pool:
        counts = []
        threads = [threading.Thread(target=lambda: counts.append(pool.prestart())) for _ in range(8)]
        threads += [threading.Thread(target=pool.submit, args=(abs, -1)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert counts == [2] * 8
        assert len(pool.workers()) == 2


def test_a_callback_and_a_signal_handler_may_ask_but_do_not_wait(way):
    with PidfdPoolExecutor(2, mp_context=way) as pool:
        pool.prestart(1)
        told = threading.Event()
        counts = []
        pool.submit(abs, -1).add_done_callback(lambda _: (counts.append(pool.prestart()), told.set()))
        assert told.wait(20)
        eventually(lambda: states(pool) == ["IDLE", "IDLE"], "both workers are ready")
        before = signal.signal(signal.SIGUSR1, lambda *_: counts.append(pool.prestart()))
        try:
            signal.raise_signal(signal.SIGUSR1)
        finally:
            signal.signal(signal.SIGUSR1, before)
        assert counts[1:] == [2]


def test_a_forked_child_starts_workers_of_its_own(way):
    with PidfdPoolExecutor(2, mp_context=way) as pool:
        pool.prestart()
        theirs = {worker.pid for worker in pool.workers()}

        def ask() -> None:
            assert pool.prestart() == 2
            assert not theirs & {worker.pid for worker in pool.workers()}
            pool.shutdown()

        assert in_forked_child(ask) == "ok"
        assert {worker.pid for worker in pool.workers()} == theirs


def test_those_that_idle_too_long_leave(way):
    with PidfdPoolExecutor(2, mp_context=way, idle_timeout=0.05, min_workers=1) as pool:
        assert pool.prestart() in (1, 2)
        eventually(lambda: len(pool.workers()) == 1, "one has left, the other stays")
        assert pool.submit(abs, -3).result(timeout=20) == 3


def test_the_collector_ends_a_pool_that_was_only_prestarted(way):
    pool = PidfdPoolExecutor(1, mp_context=way)
    pool.prestart()
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("pidfdpool")]
    assert len(threads) == 1
    del pool
    threads[0].join(20)
    assert not threads[0].is_alive()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"workers": 0}, ValueError, "workers must be >= 1, not 0"),
        ({"workers": 3}, ValueError, "workers must not exceed max_workers: 3 > 2"),
        ({"workers": "2"}, TypeError, "workers must be an integer or None, not '2'"),
        ({"workers": True}, TypeError, "workers must be an integer or None, not True"),
        ({"wait": 1}, TypeError, "wait must be True or False, not 1"),
        ({"timeout": -1}, ValueError, "timeout must be a number of seconds, 0 or more, or None, not -1"),
        ({"timeout": "1"}, TypeError, "timeout must be a number of seconds"),
    ],
)
def test_arguments_are_checked_before_anything_starts(way, arguments, error, message):
    with PidfdPoolExecutor(2, mp_context=way) as pool:
        with pytest.raises(error, match=message):
            pool.prestart(**arguments)
        assert "not started" in repr(pool)


def test_a_wait_is_not_needed_when_all_are_there(way):
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        pool.prestart()
        pool.submit(time.sleep, 0.2)
        assert pool.prestart(timeout=0) == 1, "a busy worker is a ready one"


def test_so_many_descriptors_are_open_and_no_more(way):
    count = lambda pid="self": len(open_descriptors(pid))  # noqa: E731
    before = count()
    with PidfdPoolExecutor(4, mp_context=way) as pool:
        for workers in (1, 4):
            assert pool.prestart(workers) == workers
            assert count() == before + PER_POOL + PER_WORKER * workers
        if way == "spawn":  # a fork inherits what else the host has
            assert {count(worker.pid) for worker in pool.workers()} == {3 + OF_A_WORKER}
    assert count() == before


def test_there_is_one_thread_and_it_sleeps(way):
    before = set(os.listdir("/proc/self/task"))
    with PidfdPoolExecutor(2, mp_context=way) as pool:
        pool.prestart()
        (thread,) = set(os.listdir("/proc/self/task")) - before
        pids = [worker.pid for worker in pool.workers()]
        pids.append(pool._pool.core.template.end.pid)
        assert [len(os.listdir(f"/proc/{pid}/task")) for pid in pids] == [1, 1, 1]

        def switches() -> list[str]:
            paths = [f"/proc/self/task/{thread}/status", *(f"/proc/{pid}/status" for pid in pids)]
            return [line for path in paths for line in open(path) if "voluntary_ctxt_switches" in line]

        quiet = []

        def is_quiet() -> bool:
            quiet.append(switches())
            return len(quiet) > 20 and quiet[-1] == quiet[-20]  # of looks that are 10 ms apart

        eventually(is_quiet, "nothing wakes up")
