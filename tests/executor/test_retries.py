"""Tasks that are tried again."""

from __future__ import annotations

import os
import threading
import time

import pytest

from pidfdpool import PidfdPoolExecutor, WorkerCrashed
from pidfdpool.deaths import Cause
from pidfdpool.errors import PoisonTask, TaskKilled, TaskTimeout
from tests import calls
from tests.conditions import eventually


def count(path):
    return open(path).read().count("\n") if os.path.exists(path) else 0


def test_a_crash_is_followed_by_another_attempt(way, tmp_path):
    path = str(tmp_path / "attempts")
    with PidfdPoolExecutor(1, mp_context=way, retries=2, retry_backoff=0.01) as pool:
        future = pool.submit(calls.fail_until, path, 3, "crash")
        assert future.result(timeout=20) == 3, "current_task().attempt"
        assert future.attempt == 3
        assert len(set(open(path))) == 3, "each in a worker of its own"
        stats = pool.stats()
        assert (stats.retries, stats.finished, stats.failed, stats.crashes) == (2, 1, 0, 2)


def test_without_retries_there_is_one_attempt(way, tmp_path):
    path = str(tmp_path / "attempts")
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        error = pool.submit(calls.fail_until, path, 2, "crash").exception(timeout=20)
        assert type(error) is WorkerCrashed
    assert count(path) == 1


def test_an_exception_is_an_outcome_unless_it_was_named(way, tmp_path):
    first, second, third = (str(tmp_path / name) for name in ("first", "second", "third"))
    with PidfdPoolExecutor(1, mp_context=way, retries=3, retry_backoff=0.0) as pool:
        view = pool.options(retry_on=(ValueError,))
        with pytest.raises(ValueError, match="attempt 1"):
            pool.submit(calls.fail_until, first, 2, "ValueError").result(timeout=20)
        assert view.submit(calls.fail_until, second, 3, "ValueError").result(timeout=20) == 3
        with pytest.raises(KeyError):
            view.submit(calls.fail_until, third, 3, "KeyError").result(timeout=20)
        assert len(set(open(second))) == 1, "an exception costs no worker"
    assert [count(path) for path in (first, second, third)] == [1, 3, 1]


def test_the_last_exception_is_the_one_that_counts(way, tmp_path):
    path = str(tmp_path / "attempts")
    with PidfdPoolExecutor(1, mp_context=way, retries=2, retry_on=ValueError, retry_backoff=0.0) as pool:
        with pytest.raises(ValueError, match="attempt 3"):
            pool.submit(calls.fail_until, path, 9, "ValueError").result(timeout=20)
    assert count(path) == 3


def test_a_crash_is_not_tried_again_where_only_exceptions_are(way, tmp_path):
    path = str(tmp_path / "attempts")
    with PidfdPoolExecutor(1, mp_context=way, retries=2, retry_on=ValueError) as pool:
        assert type(pool.submit(calls.fail_until, path, 2, "crash").exception(timeout=20)) is WorkerCrashed
    assert count(path) == 1


def test_a_timeout_is_tried_again_where_it_was_named(way, tmp_path):
    named, unnamed = str(tmp_path / "named"), str(tmp_path / "unnamed")
    with PidfdPoolExecutor(2, mp_context=way, timeout=1.0, grace=0.1, retries=1, retry_backoff=0.0) as pool:
        again = pool.options(retry_on=TaskTimeout).submit(calls.fail_until, named, 2, "hang")
        never = pool.submit(calls.fail_until, unnamed, 2, "hang")
        assert again.result(timeout=20) == 2
        assert isinstance(never.exception(timeout=20), TaskTimeout)
    assert (count(named), count(unnamed)) == (2, 1)


def test_the_attempts_before_are_in_the_history_of_the_error(way):
    with PidfdPoolExecutor(1, mp_context=way, retries=2, retry_backoff=0.0) as pool:
        error = pool.submit(calls.die).exception(timeout=20)
    assert type(error) is PoisonTask
    assert error.attempt == 3
    assert [death.attempt for death in error.deaths] == [1, 2, 3]
    assert {death.task_id for death in error.deaths} == {1}
    assert all(death.cause is Cause.CRASH for death in error.deaths)
    assert len({death.pid for death in error.deaths}) == 3
    assert error.death == error.deaths[-1]
    assert "3 deaths" in str(error)


def test_a_task_that_kills_50_workers_costs_1000_others_nothing(way):
    with PidfdPoolExecutor(2, mp_context=way) as pool:
        poison = pool.options(retries=49, retry_backoff=0.0)
        good = [pool.submit(calls.double, number) for number in range(500)]
        bad = poison.submit(calls.die)
        good += [pool.submit(calls.double, number) for number in range(500, 1000)]
        error = bad.exception(timeout=50)
        assert [future.result(timeout=20) for future in good] == [2 * number for number in range(1000)]
        assert isinstance(error, PoisonTask)
        assert [death.attempt for death in error.deaths] == list(range(1, 51))
        assert "45 earlier ones" in str(error)
        assert pool.submit(calls.double, 2).result() == 4


def test_poison_after_ends_it_whatever_is_left(way, tmp_path):
    path = str(tmp_path / "attempts")
    with PidfdPoolExecutor(1, mp_context=way, retries=100, retry_backoff=0.0, poison_after=2) as pool:
        error = pool.submit(calls.fail_until, path, 99, "crash").exception(timeout=20)
        assert isinstance(error, PoisonTask)
        assert len(error.deaths) == 2
    assert count(path) == 2


def test_the_pause_before_an_attempt_grows(way, tmp_path):
    path = str(tmp_path / "attempts")
    with PidfdPoolExecutor(1, mp_context=way, retries=2, retry_on=ValueError, retry_backoff=0.1) as pool:
        pool.submit(calls.double, 1).result()
        began = time.monotonic()
        assert pool.submit(calls.fail_until, path, 3, "ValueError").result(timeout=20) == 3
        assert time.monotonic() - began >= 0.3


def test_a_task_that_waits_for_its_next_attempt_holds_no_worker_up(way, tmp_path):
    path = str(tmp_path / "attempts")
    with PidfdPoolExecutor(1, mp_context=way, retries=1, retry_on=ValueError, retry_backoff=30) as pool:
        future = pool.submit(calls.fail_until, path, 9, "ValueError")
        eventually(lambda: pool.stats().delayed == 1, "the first attempt failed")
        assert pool.submit(calls.double, 2).result() == 4
        assert future.running()
        assert not future.cancel(), "it has begun"
        assert future.kill()
        error = future.exception(timeout=20)
        assert isinstance(error, TaskKilled)
        assert (error.death, error.attempt) == (None, 1)
    assert count(path) == 1


def test_a_killed_task_is_not_tried_again(way, tmp_path):
    started = str(tmp_path / "started")
    with PidfdPoolExecutor(1, mp_context=way, retries=5, retry_backoff=0.0, retry_on=BaseException) as pool:
        future = pool.submit(calls.run_until, started, started + ".never")
        eventually(lambda: os.path.exists(started), "it runs")
        assert future.kill()
        assert isinstance(future.exception(timeout=20), TaskKilled)
        assert pool.stats().retries == 0


def test_a_task_that_is_killed_within_its_grace_is_not_tried_again(way, tmp_path):
    """It has timed out already, and would be tried again for that."""
    path = str(tmp_path / "attempts")

    def ignore():
        calls.append(path, os.getpid())
        calls.hang_and_ignore_sigterm()

    rules = {"timeout": 0.5, "grace": 0.4, "retries": 3, "retry_on": TaskTimeout, "retry_backoff": 0.0}
    with PidfdPoolExecutor(1, mp_context=way, **rules) as pool:
        pool.submit(calls.double, 2).result()
        future = pool.submit(ignore)
        eventually(lambda: count(path), "it runs")
        eventually(lambda: pool.workers() and pool.workers()[0].retiring, "SIGTERM was sent")
        assert future.kill()
        assert isinstance(future.exception(timeout=20), TaskKilled)
        assert pool.stats().retries == 0
    assert count(path) == 1


def test_shutdown_waits_for_the_attempts_that_are_left(way, tmp_path):
    path = str(tmp_path / "attempts")
    with PidfdPoolExecutor(1, mp_context=way, retries=3, retry_backoff=0.1) as pool:
        future = pool.submit(calls.fail_until, path, 3, "crash")
    assert future.result(timeout=0) == 3


def test_shutdown_with_cancel_futures_gives_no_other_attempt(way, tmp_path):
    path = str(tmp_path / "attempts")
    with PidfdPoolExecutor(1, mp_context=way, retries=3, retry_backoff=30) as pool:
        future = pool.submit(calls.fail_until, path, 3, "crash")
        eventually(lambda: pool.stats().delayed == 1, "the first attempt failed")
        pool.shutdown(cancel_futures=True)
    error = future.exception(timeout=0)
    assert isinstance(error, TaskKilled)
    assert "was waiting for attempt 2" in str(error)


def test_kill_workers_gives_no_other_attempt(way, tmp_path):
    started = str(tmp_path / "started")
    with PidfdPoolExecutor(1, mp_context=way, retries=3, retry_backoff=0.0) as pool:
        future = pool.submit(calls.run_until, started, started + ".never")
        eventually(lambda: os.path.exists(started), "it runs")
        pool.kill_workers()
    assert type(future.exception(timeout=0)) is WorkerCrashed


def test_attempts_of_many_tasks_from_many_threads_all_come_to_an_end(way, tmp_path):
    errors = []

    def submit(number):
        try:
            path = str(tmp_path / str(number))
            futures = [pool.submit(calls.fail_until, f"{path}-{index}", 2, "ValueError") for index in range(20)]
            assert [future.result(timeout=30) for future in futures] == [2] * 20
        except BaseException as error:
            errors.append(error)

    with PidfdPoolExecutor(2, mp_context=way, retries=1, retry_on=ValueError, retry_backoff=0.001) as pool:
        threads = [threading.Thread(target=submit, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not errors
