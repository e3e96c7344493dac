"""A future by itself: what it shows, logs and keeps, and what is done half when something fails. Without a pool."""

from __future__ import annotations

import concurrent.futures
import copy
import pickle
import re
import threading
from concurrent.futures import CancelledError

import pytest

from pidfdpool.executor import futures, lifecycle
from pidfdpool.executor.futures import Future, WorkerName
from tests.conditions import eventually
from tests.executor.future_pool import Pool, Waiter, attached

# ---- what it shows ------------------------------------------------------------------------------------------------


def shown(future):
    return re.sub(" at 0x[0-9a-f]+", "", repr(future))


def test_it_shows_its_state_its_task_its_outcome_and_its_worker():
    assert shown(Future()) == "<Future state=pending>"
    future = attached()
    assert shown(future) == "<Future state=pending, task 7 (tests.calls.double)>"
    future._begin()
    future._note_attempt((2, 1, 4711), 3, 100.5)
    worker = "attempt 3 in worker 2 (pid 4711)"
    assert shown(future) == f"<Future state=running, task 7 (tests.calls.double), {worker}>"
    future._resolve(5, None)
    assert shown(future) == f"<Future state=finished returned int, task 7, {worker}>"
    future = attached(running=True)
    future._resolve(None, LookupError())
    assert shown(future) == f"<Future state=finished raised LookupError, task 7, {worker}>"
    future = attached()
    future._mark_cancelled()
    assert shown(future) == "<Future state=cancelled, task 7 (tests.calls.double)>"
    future._resolve_cancelled()
    assert shown(future) == "<Future state=cancelled, task 7>"
    other = attached()
    other._pool.core.tasks.clear()
    assert shown(other) == "<Future state=pending, task 7>"


def test_it_names_the_worker_and_the_attempt():
    future = Future()
    assert (future.worker, future.attempt, future.started_at) == (None, 0, None)
    future._note_attempt((2, 1, None), 3, 100.5)
    assert type(future.worker) is WorkerName
    assert (future.worker.slot, future.worker.generation, future.worker.pid) == (2, 1, None)
    assert (future.attempt, future.started_at) == (3, 100.5)


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_copy_is_refused(how):
    told = "cannot copy or pickle 'Future' object: it belongs to the process that submitted the task, and only there"
    with pytest.raises(TypeError, match=told):
        how(Future())


# ---- results ------------------------------------------------------------------------------------------------------


def test_what_it_has_is_returned_or_raised_without_a_wait():
    future = attached()
    future._pool.leadership.wait = None
    future._resolve("value", None)
    assert (future.result(), future.result(0), future.exception(), future.exception(0)) == (
        "value",
        "value",
        None,
        None,
    )
    error, future = LookupError("mine"), attached()
    future._resolve(None, error)
    assert future.exception() is future.exception(0) is error
    with pytest.raises(LookupError, match="mine"):
        future.result()
    future = attached()
    future._resolve_cancelled()
    for ask in (future.result, future.exception):
        with pytest.raises(CancelledError):
            ask()
    with pytest.raises(concurrent.futures.TimeoutError):
        Future().exception(0)


class Odd(Exception):
    """An error that asks to be left alone."""

    def __bool__(self):
        raise AssertionError("its truth is asked for")


def test_the_truth_of_an_error_is_not_asked_for():
    future = attached()
    future._resolve(None, Odd())
    with pytest.raises(Odd):
        future.result()


@pytest.mark.parametrize("ask", ["result", "exception"])
@pytest.mark.parametrize("timeout", [None, 5.0])
def test_a_wait_leads_and_takes_what_it_has_read(ask, timeout):
    led = []

    def lead(future, seconds):
        led.append(seconds)
        future._resolve("value", None)

    future = attached()
    future._pool.leadership.wait = lead
    assert getattr(future, ask)(timeout) == ("value" if ask == "result" else None)
    assert led == [timeout]
    assert ask == "exception" or future._own_condition is futures._NO_WAITERS, "nothing to wait for was made"


@pytest.mark.parametrize("ask", ["result", "exception"])
def test_when_its_time_is_over_nobody_waits_any_longer(ask):
    future, waited = Future(), []
    future._condition.wait = waited.append
    with pytest.raises(concurrent.futures.TimeoutError):
        getattr(future, ask)(0)
    assert waited == [0]


# ---- cancelling ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["cancel", "kill"])
def test_a_fork_that_python_has_not_noticed_is_noticed_by_who_ends_a_task(action, monkeypatch):
    noticed = []
    monkeypatch.setattr(lifecycle, "detect_fork", lambda: noticed.append(1))
    getattr(attached(), action)()
    assert noticed == [1]


def test_what_the_pool_itself_has_told_of_is_not_told_again():
    pool = Pool()

    def cancel(_number, future):
        future._resolve_cancelled()
        return True

    pool.cancel = cancel
    future, waiter = attached(pool), Waiter()
    notified = []
    future._condition.notify_all = lambda: notified.append(1)
    future._resolve_cancelled()
    once = len(notified)
    notified.clear()
    future = attached(pool)
    future._condition.notify_all = lambda: notified.append(1)
    future._waiters.append(waiter)
    assert future.cancel()
    assert len(notified) == once
    assert waiter.told == ["cancelled"]


def test_without_a_pool_it_is_as_any_future():
    assert Future().cancel()
    assert Future().kill(), "it waits, so it is cancelled"
    running = Future()
    running._begin()
    assert not running.cancel()
    assert not running.kill(), "nobody can kill it"
    assert running.running()
    done = Future()
    done._resolve(1, None)
    assert not done.cancel()
    assert not done.kill()
    cancelled = Future()
    assert cancelled.cancel()
    assert cancelled.cancel(), "it is cancelled"
    assert not cancelled.kill()


def test_with_cancel_kills_a_task_that_has_not_begun_is_cancelled_and_one_that_is_done_is_not_killed():
    pool = Pool(cancels=True)
    assert attached(pool, cancel_kills=True).cancel()
    assert pool.asked == [("cancel", 7)]
    pool = Pool()
    future = attached(pool, cancel_kills=True)
    assert not future.cancel(), "the pool knows better: it is about to begin"
    assert pool.asked == [("cancel", 7), "observed"]
    future = attached(pool := Pool(), cancel_kills=True, running=True)
    future._resolve(1, None)
    assert not future.cancel()
    assert future.result(0) == 1
    assert pool.asked == []
    alone = Future()
    alone._cancel_kills = True
    alone._begin()
    assert alone.cancel(), "there is nobody to be asked"


def test_threads_that_wait_are_woken_by_a_cancellation_that_kills():
    future, seen = attached(cancel_kills=True, running=True), []

    def wait():
        try:
            future.result(20)
        except CancelledError:
            seen.append(1)

    thread = threading.Thread(target=wait)
    thread.start()
    eventually(lambda: future._own_condition is not None and future._own_condition._waiters, "it waits", seconds=8)
    waiter = Waiter()
    future._waiters.append(waiter)
    assert future.cancel()
    thread.join(8)
    assert seen == [1]
    assert waiter.told == ["cancelled"]
