"""A future by itself: what it shows, logs and keeps, and what is done half when something fails. Without a pool."""

from __future__ import annotations

import concurrent.futures
import contextlib
import copy
import gc
import logging
import pickle
import re
import threading
import weakref
from concurrent.futures import CancelledError
from types import SimpleNamespace

import pytest

from pidfdpool.executor import futures, lifecycle
from pidfdpool.executor.futures import Future, WorkerName
from tests.conditions import eventually


class Pool:
    """Takes notes of what a future asks of its pool."""

    def __init__(self, *, cancels=False):
        self.cancels, self.asked = cancels, []
        self.core = SimpleNamespace(tasks={7: SimpleNamespace(label="tests.calls.double")})
        self.leadership = SimpleNamespace(wait=lambda future, timeout: None)

    def cancel(self, number, future):
        self.asked.append(("cancel", number))
        if self.cancels:
            future._mark_cancelled()
        return self.cancels

    def kill_task(self, number):
        self.asked.append(("kill", number))

    def note_observer(self):
        self.asked.append("observed")


def attached(pool=None, *, cancel_kills=False, running=False):
    future = Future()
    future._attach(Pool() if pool is None else pool, 7, cancel_kills)
    if running:
        future._begin()
        future._note_attempt((2, 1, 4711), 3, 100.5)
    return future


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


class Waiter:
    """What `wait` and `as_completed` add to a future."""

    def __init__(self):
        self.told, self.finished_futures, self.event = [], [], threading.Event()

    def add_result(self, _future):
        self.told.append("result")

    def add_exception(self, _future):
        self.told.append("exception")

    def add_cancelled(self, _future):
        self.told.append("cancelled")


# ---- resolving ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("resolve", "told"),
    [
        (lambda future: future._resolve(1, None), "result"),
        (lambda future: future._resolve(None, LookupError()), "exception"),
        (lambda future: future._resolve_cancelled(), "cancelled"),
    ],
)
@pytest.mark.parametrize("kills", [False, True])
@pytest.mark.parametrize("interrupted", [False, True])
def test_who_waits_among_others_is_told_once_how_it_has_ended(resolve, told, kills, interrupted):
    """With FIRST_EXCEPTION it matters how."""
    future, waiter = attached(cancel_kills=kills), Waiter()
    condition = future._condition
    future._waiters.append(waiter)
    if interrupted and told != "cancelled":
        notify, interrupts = condition.notify_all, [KeyboardInterrupt]

        def interrupt():
            if interrupts:
                raise interrupts.pop()
            notify()

        condition.notify_all = interrupt
        with pytest.raises(KeyboardInterrupt):
            resolve(future)
        if kills:
            return  # the base class has told nobody, and is not asked again
    resolve(future)
    resolve(future)
    assert waiter.told == [told]


def test_a_future_that_its_owner_has_resolved_is_told_of_in_the_log(caplog):
    caplog.set_level(logging.DEBUG, "pidfdpool")
    future = attached(running=True)
    future.set_result("its owner's")
    future._resolve("the pool's", None)
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("DEBUG", "a future was resolved by its owner before its task ended")
    ]
    caplog.clear()
    attached(cancel_kills=True)._resolve(1, None)
    attached()._resolve(1, None)
    assert caplog.records == []


@pytest.mark.parametrize(
    ("end", "told"),
    [
        (lambda future: future._resolve(1, None), "resolving a future failed"),
        (lambda future: future._resolve_cancelled(), "cancelling a future failed"),
    ],
)
def test_what_fails_in_the_midst_is_logged_and_concerns_no_other_task(end, told, caplog):
    future = attached(cancel_kills=True)

    def fail():
        raise LookupError("a broken condition")

    future._condition.notify_all = fail
    end(future)
    ((record),) = caplog.records
    assert (record.levelname, record.message) == ("ERROR", told)
    assert isinstance(record.exc_info[1], LookupError)
    future._condition.notify_all = raise_interrupt
    other = attached(cancel_kills=True)
    other._condition.notify_all = raise_interrupt
    with pytest.raises(KeyboardInterrupt):
        end(other)


def raise_interrupt():
    raise KeyboardInterrupt


def test_what_a_callback_raises_is_logged_with_the_future(caplog):
    future = attached()
    future.add_done_callback(lambda _: 1 / 0)
    future._resolve(1, None)
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert record.message.startswith("exception calling callback for <Future at ")
    assert isinstance(record.exc_info[1], ZeroDivisionError)


def test_all_callbacks_are_called_before_what_one_of_them_asks_for():
    future, called = attached(), []
    for callback in (raise_interrupt_at, called.append):
        future.add_done_callback(callback)
    with pytest.raises(KeyboardInterrupt):
        future._resolve(1, None)
    assert called == [future]


def raise_interrupt_at(_future):
    raise KeyboardInterrupt


def test_a_future_whose_callback_was_interrupted_is_gone_when_it_is_dropped():
    gc.disable()
    try:
        future = attached()
        future.add_done_callback(raise_interrupt_at)
        with contextlib.suppress(KeyboardInterrupt):
            future._resolve(1, None)
        gone = weakref.ref(future)
        del future
        assert gone() is None
    finally:
        gc.enable()


def test_it_is_observed_by_a_callback_and_by_who_waits_among_others():
    future = attached()
    assert (future._is_observed(), future._has_callbacks()) == (False, False)
    future._condition  # noqa: B018  made at its first access
    assert (future._is_observed(), future._has_callbacks()) == (True, False)
    future = attached()
    future.add_done_callback(print)
    assert (future._is_observed(), future._has_callbacks()) == (True, True)
    future._done_callbacks.clear()
    assert (future._is_observed(), future._has_callbacks()) == (True, False)


def test_who_asks_for_the_lock_of_a_future_that_is_about_to_be_resolved_waits_for_its_state():
    """Guards: `wait` would count it as one that is still to come, and nobody would tell it."""
    future, found = attached(), []
    future.__dict__["_own_condition"] = futures._NO_WAITERS  # by the thread that resolves, and is interrupted there
    thread = threading.Thread(target=lambda: found.append((future._condition, future._state)))
    thread.start()
    thread.join(0.02)
    assert found == []
    future._result, future._state = 1, futures._FINISHED
    thread.join(8)
    ((condition, state),) = found
    assert state == futures._FINISHED
    assert future._condition is condition
    with condition:
        assert future.result(0) == 1


def test_who_asks_for_the_lock_of_a_future_that_is_about_to_be_cancelled_completes_that():
    future = attached()
    future._state = futures._CANCELLED
    future.__dict__["_own_condition"] = futures._NO_WAITERS
    with future._condition:
        assert future._state == futures._NOTIFIED
    assert concurrent.futures.wait([future], 0).done == {future}


# ---- forks --------------------------------------------------------------------------------------------------------


def test_in_a_forked_child_a_future_that_was_cancelled_is_cancelled_and_nobody_leads():
    for condition in (False, True):
        future, woken = attached(), []
        if condition:
            future._condition  # noqa: B018  made at its first access
        future._leader = SimpleNamespace(wake_leader=lambda woken=woken: woken.append(1))
        future._mark_cancelled()
        future._fail_in_forked_child(LookupError())
        assert future.cancelled()
        assert woken == []


def test_in_a_forked_child_greenlets_that_wait_in_the_thread_that_has_forked_are_told():
    future, waiter = attached(), Waiter()
    condition = future._condition
    future._waiters.append(waiter)
    future._fail_in_forked_child(LookupError())
    assert waiter.told == ["exception"]
    assert future._condition is condition


def test_in_a_forked_child_a_future_that_was_about_to_be_resolved_fails():
    future = attached()
    future.__dict__["_own_condition"] = futures._NO_WAITERS
    future._fail_in_forked_child(error := LookupError())
    assert future.exception(0) is error
    with future._condition:
        assert future.done()
