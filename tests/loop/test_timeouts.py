"""Tasks that run for too long, wait for too long, or fall silent."""

from __future__ import annotations

import contextlib
import os
import pickle
import time

import pytest

import pidfdpool
from pidfdpool import PidfdPoolExecutor
from pidfdpool.deaths import Cause
from pidfdpool.errors import DeadlineExceeded, HeartbeatLost, TaskTimeout
from tests import calls
from tests.conditions import eventually, is_alive

TIMEOUT, GRACE = 1.0, 1.0
MARGIN = 15  # what the end of a task may take beyond both on a busy machine; by itself it would not end

HANGS = [
    "hang_in_python",
    "hang_in_native_code",
    "hang_in_sleep",
    "hang_in_read",
    "hang_and_ignore_sigterm",
]


@pytest.mark.usefixtures("sure_of_deaths")
@pytest.mark.parametrize("how", HANGS)
def test_a_task_that_hangs_is_ended_in_time_with_all_that_it_started(way, how, tmp_path):
    path = str(tmp_path / "pids")
    with PidfdPoolExecutor(2, mp_context=way, timeout=TIMEOUT, grace=GRACE) as pool:
        pool.submit(calls.double, 1).result()
        began = time.monotonic()
        future = pool.submit(calls.hang_with_a_child, how, path)
        others = [pool.submit(calls.double, number) for number in range(20)]
        error = future.exception(timeout=20)
        took = time.monotonic() - began
        worker, child = map(int, open(path).read().split())
        assert isinstance(error, TaskTimeout)
        assert isinstance(error, TimeoutError)
        assert took < TIMEOUT + GRACE + MARGIN
        assert took >= TIMEOUT
        eventually(lambda: not is_alive(worker) and not is_alive(child), "the worker and its child are gone")
        assert [other.result() for other in others] == [2 * number for number in range(20)]
        assert pool.submit(calls.double, 2).result() == 4

    assert error.pid == worker
    assert (error.task_id, error.attempt, error.task) == (2, 1, "tests.calls.hang_with_a_child")
    assert error.death.cause is Cause.TIMEOUT
    assert f"in {how}" in error.stack
    assert f"in {how}" in str(error.__cause__)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is TaskTimeout
    assert (str(copy), copy.stack) == (str(error), error.stack)
    assert str(copy.__cause__) == str(error.__cause__)
    assert copy.death == error.death


def test_a_task_that_sigterm_makes_finish_within_the_grace_delivers_its_result(way, tmp_path):
    path = str(tmp_path / "pid")
    with PidfdPoolExecutor(1, mp_context=way, timeout=1.0, grace=1.0) as pool:
        assert pool.submit(calls.on_sigterm, "return", path).result(timeout=20) == "finished early"
        pid = int(open(path).read())
        assert pool.submit(os.getpid).result() != pid, "the worker is not used again"
        eventually(lambda: not is_alive(pid), "the worker is gone")


def test_a_task_that_sigterm_makes_raise_has_timed_out(way, tmp_path):
    with PidfdPoolExecutor(1, mp_context=way, timeout=0.3, grace=0.3) as pool:
        error = pool.submit(calls.on_sigterm, "raise", str(tmp_path / "pid")).exception(timeout=20)
        assert isinstance(error, TaskTimeout)
        assert "timeout of 0.3 s" in str(error)
        assert pool.submit(calls.double, 2).result() == 4


def test_waiting_in_the_queue_does_not_count(way, tmp_path):
    started, release = str(tmp_path / "started"), str(tmp_path / "release")
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        first = pool.submit(calls.run_until, started, release, "first")
        second = pool.options(timeout=1.0).submit(calls.double, 2)
        eventually(lambda: os.path.exists(started), "the first one runs")
        time.sleep(1.1)
        calls.note(release)
        assert (first.result(), second.result()) == ("first", 4)


def test_a_timeout_is_taken_back_when_the_task_ends(way):
    with PidfdPoolExecutor(1, mp_context=way, timeout=1.0) as pool:
        pid = pool.submit(os.getpid).result()
        time.sleep(1.1)
        assert pool.submit(os.getpid).result() == pid


def test_the_clocks_of_one_task_do_not_hit_the_next_one(way):
    """Guards: the result of a task with a timeout was taken in a way that let its clock run on."""
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        pool.submit(abs, -1).result()
        pool.options(timeout=1.0).submit(abs, -2).result()
        pool.options(heartbeat_timeout=1.0).submit(abs, -3).result()
        assert pool.submit(calls.sleep, 1.2, "not killed").result() == "not killed"


def test_a_timeout_is_kept_though_the_pool_thread_was_to_sleep_for_longer(tmp_path):
    """Both workers are there, so nothing but the timeout itself wakes it."""
    first, second, release = (str(tmp_path / name) for name in ("first", "second", "release"))
    with PidfdPoolExecutor(2) as pool:
        pool.prestart()
        try:
            future = pool.options(timeout=600.0).submit(calls.run_until, first, release)
            eventually(lambda: os.path.exists(first), "it runs")
            eventually(lambda: pool._pool.core.sleeps_until not in (None, 0.0), "its time ends the thread's sleep")
            other = pool.options(timeout=0.2, grace=0.1).submit(calls.run_until, second, release)
            assert isinstance(other.exception(20), TaskTimeout)
        finally:
            calls.note(release)
        assert future.result(20) is None


def test_a_timeout_is_for_each_chunk_of_map(way):
    with PidfdPoolExecutor(2, mp_context=way) as pool:
        results = pool.options(timeout=1.0, grace=0.1).map(calls.double_or_hang, range(6), [3] * 6, chunksize=2)
        assert [next(results), next(results)] == [0, 2]
        with pytest.raises(TaskTimeout, match="double_or_hang, item 3 of map: 3, 3"):
            next(results)
        assert list(pool.map(calls.double, range(3))) == [0, 2, 4]


def results_before(error, results):
    """Return the results that an iterator yields before it raises this error."""
    found = []
    while True:
        try:
            found.append(next(results))
        except error:
            return found


def test_a_timeout_is_for_each_chunk_of_map_unordered(way):
    with PidfdPoolExecutor(2, mp_context=way) as pool:
        view = pool.options(timeout=1.0, grace=0.1)
        found = results_before(TaskTimeout, view.map_unordered(calls.double_or_hang, range(6), [2] * 6))
        assert sorted(found) == [0, 2, 6, 8, 10]
        chunks = view.map_unordered(calls.double_or_hang, range(6), [2] * 6, chunksize=2)
        assert sorted(results_before(TaskTimeout, chunks)) == [0, 2, 8, 10]


def test_a_task_that_waits_beyond_its_deadline_does_not_run(way, tmp_path):
    started, release, marker = (str(tmp_path / name) for name in ("started", "release", "marker"))
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        first = pool.submit(calls.run_until, started, release, "first")
        late = pool.options(deadline=0.1).submit(calls.note, marker)
        error = late.exception(timeout=20)
        assert isinstance(error, DeadlineExceeded)
        assert isinstance(error, TimeoutError)
        assert "within its deadline of 0.1 s" in str(error)
        assert not late.cancelled()
        assert not first.done()
        assert (late.worker, late.attempt, late.started_at) == (None, 0, None)
        calls.note(release)
        assert first.result() == "first"
    assert not os.path.exists(marker)


def test_a_deadline_is_about_the_beginning(way):
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        pool.submit(calls.double, 1).result()
        assert pool.options(deadline=1.0).submit(calls.sleep, 1.2, "done").result() == "done"


def tell_deadline():
    return time.monotonic(), pidfdpool.current_task()


def test_a_task_knows_until_when_it_is_wanted(way):
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        now, task = pool.submit(tell_deadline).result()
        assert (task.id, task.attempt, task.deadline) == (1, 1, None)
        now, task = pool.options(timeout=50).submit(tell_deadline).result()
        assert now < task.deadline <= now + 50
        now, task = pool.options(timeout=50, deadline=10).submit(tell_deadline).result()
        assert now + 20 < task.deadline <= now + 50
        now, task = pool.options(deadline=10).submit(tell_deadline).result()
        assert now < task.deadline <= now + 10


@pytest.mark.usefixtures("sure_of_deaths")
def test_a_task_that_gives_heartbeats_lives_and_a_silent_one_does_not(way):
    with PidfdPoolExecutor(2, mp_context=way, heartbeat_timeout=1.0, grace=1.0) as pool:
        alive = pool.submit(calls.beat, 2.5, "alive")
        silent = pool.submit(calls.hang_in_native_code)
        error = silent.exception(timeout=20)
        assert isinstance(error, HeartbeatLost)
        assert not isinstance(error, TimeoutError)
        assert "no heartbeat for longer than 1 s" in str(error)
        assert "in hang_in_native_code" in error.stack
        assert error.death.cause is Cause.HEARTBEAT
        assert alive.result(timeout=20) == "alive"


def test_heartbeats_come_from_any_thread_and_those_of_an_earlier_task_do_not_count(way):
    with PidfdPoolExecutor(1, mp_context=way, heartbeat_timeout=1.0, grace=0.1) as pool:
        pid = pool.submit(calls.beat_in_a_thread, 1.5).result(timeout=20)
        assert isinstance(pool.submit(calls.hang_in_sleep).exception(timeout=20), HeartbeatLost)
        assert pool.submit(os.getpid).result() != pid


def test_a_current_task_is_a_tuple_with_names_that_travels(way):
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        task = pool.submit(pidfdpool.current_task).result()
    assert task == (1, 1, None)
    assert type(task) is pidfdpool.CurrentTask
    assert repr(task._replace(attempt=2)) == "CurrentTask(id=1, attempt=2, deadline=None)"
    assert "1 for the first run" in pidfdpool.CurrentTask.__doc__


def test_outside_of_a_worker_there_is_nobody_to_tell():
    assert pidfdpool.heartbeat() is None
    assert pidfdpool.unhealthy("not at all") is None
    assert pidfdpool.current_task() is None


def ask_in_a_forked_process():
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        with contextlib.suppress(BaseException):
            pidfdpool.heartbeat()
            pidfdpool.unhealthy("a copy of a worker")
            os.write(write, repr(pidfdpool.current_task()).encode())
        os._exit(0)
    os.close(write)
    os.waitpid(pid, 0)
    return os.read(read, 100), os.getpid()


def test_a_process_that_a_task_forked_speaks_for_nobody(way):
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        told, pid = pool.submit(ask_in_a_forked_process).result()
        assert told == b"None"
        assert pool.submit(os.getpid).result() == pid
