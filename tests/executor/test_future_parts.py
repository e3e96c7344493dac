"""A future by itself, as the pool tells it what has become of its task."""

from __future__ import annotations

import concurrent.futures
import threading
from concurrent.futures import CancelledError
from types import SimpleNamespace

import pytest

from pidfdpool.executor import futures
from pidfdpool.executor.futures import Future
from tests.conditions import eventually


class Pool:
    """Takes notes of what a future asks of its pool."""

    def __init__(self, cancels=False):
        self.cancels, self.asked, self.observers = cancels, [], 0
        self.leadership = SimpleNamespace(wait=lambda _future, timeout: self.asked.append(("lead", timeout)))

    def cancel(self, number, future):
        self.asked.append(("cancel", number))
        if self.cancels:
            future._mark_cancelled()
        return self.cancels

    def kill_task(self, number):
        self.asked.append(("kill", number))

    def note_observer(self):
        """Somebody looks at the future in another way than by waiting for its result."""
        self.observers += 1


@pytest.fixture
def pool():
    return Pool()


def attached(pool, *, cancel_kills=False, running=False):
    future = Future()
    future._attach(pool, 7, cancel_kills)
    if running:
        future._begin()
        future._note_attempt((0, 1, 4711), 1, 0.0)
    return future


ENDS = {
    "result": lambda future: future._resolve("value", None),
    "error": lambda future: future._resolve(None, LookupError()),
    "cancelled": lambda future: future._resolve_cancelled(),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("asked_before", [False, True], ids=["nobody asked", "somebody waits"])
def test_who_waits_and_who_leads_is_told_and_each_callback_is_called_once(pool, end, asked_before):
    future, called, woken = attached(pool), [], []
    if asked_before:
        future._condition  # noqa: B018  made at its first access
    future.add_done_callback(lambda it: called.append((1, it.done())))
    future.add_done_callback(lambda it: called.append((2, it.done())))
    future._leader = SimpleNamespace(wake_leader=lambda: woken.append(1))
    ENDS[end](future)
    assert called == [(1, True), (2, True)]
    assert woken
    ENDS[end](future)
    assert called == [(1, True), (2, True)], "it may be told again if it was interrupted"
    future.add_done_callback(lambda it: called.append(3))
    assert called[2:] == [3]
    assert concurrent.futures.wait([future], 0).done == {future}


@pytest.mark.parametrize("end", ENDS)
def test_a_leader_is_woken_though_there_is_no_callback(pool, end):
    future, woken = attached(pool), []
    future._leader = SimpleNamespace(wake_leader=lambda: woken.append(1))
    ENDS[end](future)
    assert woken


@pytest.mark.parametrize("end", ENDS)
def test_a_future_that_is_done_keeps_no_pool_alive(pool, end):
    future = attached(pool)
    ENDS[end](future)
    assert future._pool is None


@pytest.mark.parametrize("end", ENDS)
def test_threads_that_wait_are_woken_all(pool, end):
    future, seen = attached(pool), []

    def wait():
        try:
            seen.append(future.result(20))
        except (LookupError, CancelledError) as error:
            seen.append(type(error))

    threads = [threading.Thread(target=wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    eventually(lambda: future._own_condition is not None and len(future._own_condition._waiters) == 3, "all wait")
    ENDS[end](future)
    for thread in threads:
        thread.join(10)
    assert seen == [{"result": "value", "error": LookupError, "cancelled": CancelledError}[end]] * 3


def test_the_time_in_which_a_thread_has_led_is_part_of_its_timeout(pool, monkeypatch):
    now, waited = [100.0], []
    future = attached(pool)

    def lead(_future, timeout):
        now[0] += 0.75 * timeout

    pool.leadership.wait = lead
    monkeypatch.setattr(futures, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(futures.interruptible, "wait", lambda _done, _condition, timeout: waited.append(timeout))
    with pytest.raises(TimeoutError):
        future.result(4.0)
    assert waited == [1.0]


def test_without_time_nobody_leads(pool):
    with pytest.raises(TimeoutError):
        attached(pool).result(0)
    assert pool.asked == []


@pytest.mark.parametrize("ask", ["result", "exception"])
def test_whoever_waits_may_say_any_number_of_seconds_and_nothing_else(pool, ask, monkeypatch):
    waited = []
    monkeypatch.setattr(futures.interruptible, "wait", lambda _done, _condition, timeout: waited.append(timeout))
    future = attached(pool)
    for seconds in (30 * 86400.0, 10**30, float("inf"), None, -5, True):
        with pytest.raises(TimeoutError):
            getattr(future, ask)(seconds)
    month, *forever, past, one = waited
    assert month <= 30 * 86400.0
    assert forever == [None, None, None]
    assert past <= 0
    assert one <= 1
    for seconds, kind in ((float("nan"), ValueError), ("5", TypeError), (1j, TypeError)):
        with pytest.raises(kind, match="timeout must be a number of seconds, or None, not"):
            getattr(future, ask)(seconds)


# ---- cancelling ----------------------------------------------------------------------------------------------


def test_a_waiting_task_is_cancelled_by_the_pool_and_all_are_told():
    pool, called = Pool(cancels=True), []
    future = attached(pool)
    future.add_done_callback(lambda it: called.append(it.cancelled()))
    assert future.cancel()
    assert (pool.asked, called) == ([("cancel", 7)], [True])


def test_a_task_that_the_pool_does_not_cancel_is_not_cancelled(pool):
    future = attached(pool)
    assert not future.cancel()
    assert not future.cancelled()


def test_a_running_task_is_cancelled_only_where_that_kills_and_all_are_told_at_once(pool):
    called, woken = [], []
    spared = attached(pool, running=True)
    assert not spared.cancel()
    future = attached(pool, cancel_kills=True, running=True)
    future.add_done_callback(lambda it: called.append(it.cancelled()))
    future._leader = SimpleNamespace(wake_leader=lambda: woken.append(1))
    assert future.cancel()
    assert (pool.asked, called) == ([("kill", 7)], [True])
    assert woken
    future._resolve("too late", None)
    assert future.cancelled()
    assert called == [True]


def test_a_kill_cancels_what_waits_and_kills_what_runs(pool):
    assert attached(pool, running=True).kill()
    assert pool.asked == [("kill", 7)]
    done = attached(pool)
    done._resolve(1, None)
    assert not done.kill()
    waiting = attached(Pool(cancels=True))
    assert waiting.kill()
    assert waiting.cancelled()


# ---- who looks at it -----------------------------------------------------------------------------------------


LOOKS = {
    "done()": lambda future: future.done(),
    "a callback": lambda future: future.add_done_callback(print),
    "wait()": lambda future: concurrent.futures.wait([future], 0),
    "running()": lambda future: future.running(),
}


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_the_pool_is_told_of_whoever_looks_at_it_in_another_way_than_by_waiting(pool, look):
    """It has its thread read the answers then, because nobody else does."""
    future = attached(pool)
    assert not future._is_observed()
    look(future)
    assert pool.observers >= 1
    before = pool.observers
    future._resolve(1, None)
    look(future)
    assert pool.observers == before, "it is done"


# ---- whose it is besides ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kills", [False, True])
@pytest.mark.parametrize("error", [None, LookupError("of the task")])
def test_what_its_owner_has_set_or_cancelled_stays(pool, error, kills):
    called = []
    own, cancelled, running = (attached(pool, cancel_kills=kills, running=True) for _ in range(3))
    own.set_result("its owner's")
    cancelled._state = futures._CANCELLED  # by `cancel()` of the base class, before the task was begun
    for future in (own, cancelled, running):
        future.add_done_callback(called.append)
        future._resolve("the pool's", error)
    assert own.result(0) == "its owner's"
    assert cancelled.cancelled()
    assert running.exception(0) is error
    assert error is not None or running.result(0) == "the pool's"
    assert sorted(called, key=id) == sorted((own, cancelled, running), key=id)


def test_a_task_begins_only_if_its_future_waits_for_it(pool):
    waiting, cancelled, own = attached(pool), attached(pool), attached(pool)
    cancelled._state = futures._CANCELLED
    own.set_result(1)
    assert [future._is_wanted() for future in (waiting, cancelled, own)] == [True, False, False]
    assert [future._begin() for future in (waiting, cancelled, own)] == [True, False, False]
    assert waiting.running()
    assert waiting._begin(), "another attempt"
    assert cancelled._state == futures._NOTIFIED
    assert not cancelled._begin()
    assert [future._mark_cancelled() for future in (attached(pool), waiting, own)] == [True, False, False]


@pytest.mark.parametrize("kills", [False, True])
@pytest.mark.parametrize("end", [lambda future: future._resolve(1, None), lambda future: future._resolve_cancelled()])
def test_ctrl_c_in_a_callback_reaches_the_program_and_the_future_is_done(pool, end, kills):
    future = attached(pool, cancel_kills=kills)

    def interrupt(_future):
        raise KeyboardInterrupt

    future.add_done_callback(interrupt)
    with pytest.raises(KeyboardInterrupt):
        end(future)
    assert future.done()


def test_a_resolution_that_was_interrupted_is_completed_when_it_is_tried_again(pool, monkeypatch):
    future, seen = attached(pool), []
    future.add_done_callback(seen.append)
    thread = threading.Thread(target=lambda: seen.append(future.result(20)))
    thread.start()
    eventually(lambda: future._own_condition is not None and future._own_condition._waiters, "the thread waits")

    def interrupt():
        raise KeyboardInterrupt

    with monkeypatch.context() as interrupted:
        interrupted.setattr(future._condition, "notify_all", interrupt)
        with pytest.raises(KeyboardInterrupt):
            future._resolve("value", None)
    assert seen == []
    future._resolve("value", None)
    thread.join(10)
    assert sorted(seen, key=str) == [future, "value"]


def test_it_tells_of_the_last_attempt_not_of_the_first(pool):
    future = attached(pool)
    assert (future.worker, future.attempt, future.started_at) == (None, 0, None)
    future._note_attempt((0, 1, 4711), 1, 100.0)
    future._note_attempt((2, 5, 4712), 2, 200.0)
    assert (future.worker, future.attempt, future.started_at) == ((2, 5, 4712), 2, 200.0)


# ---- callbacks and forks -------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_callback_that_raises_keeps_no_other_from_being_called(pool, error, caplog):
    future, called = attached(pool), []

    def fail(_future):
        raise error

    for callback in (fail, called.append):
        future.add_done_callback(callback)
    if error is KeyboardInterrupt:  # in the main thread it concerns the program
        with pytest.raises(KeyboardInterrupt):
            future._resolve(1, None)
    else:
        future._resolve(1, None)
        assert "exception calling callback" in caplog.text
    assert called == [future]


def test_a_callback_that_is_added_while_the_future_is_resolved_is_called(pool):
    """Who resolves looks for callbacks after it has set the state, and who adds one looks at the state last."""
    future, called = attached(pool), []

    class Callbacks(list):
        def append(self, callback):
            super().append(callback)
            future._resolve(1, None)  # at this very moment, in another thread

    future.__dict__["_done_callbacks"] = Callbacks()
    future.add_done_callback(lambda _: called.append(future._has_callbacks()))
    assert len(called) == 1


@pytest.mark.parametrize("at", ["before", "between", "within"])
@pytest.mark.parametrize("failed", [False, True])
def test_who_waits_among_others_is_told_though_a_signal_handler_has_interrupted_it(pool, monkeypatch, at, failed):
    """Guards: `wait` and `as_completed` would wait for ever for a future that is done."""
    future, other = attached(pool), attached(pool)
    ready, found = [], []

    def wait(number):
        ready.append(number)
        if number == 0:
            found.append(concurrent.futures.wait([future], timeout=30).done == {future})
        else:
            iterator = concurrent.futures.as_completed([future, other], timeout=30)
            found.append([next(iterator), next(iterator)] == [future, other])

    threads = [threading.Thread(target=wait, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    eventually(lambda: len(future._waiters) == 2, "both wait")
    with monkeypatch.context() as patched:
        if at == "before":
            patched.setattr(future._condition, "notify_all", interrupt)
        else:
            waiter = future._waiters[1]
            patched.setattr(
                waiter.event if at == "within" else waiter, "set" if at == "within" else told(failed), interrupt
            )
        with pytest.raises(KeyboardInterrupt):
            future._resolve(None if failed else 1, LookupError() if failed else None)
    future._resolve(None if failed else 1, LookupError() if failed else None)
    other._resolve(2, None)
    for thread in threads:
        thread.join(30)
    assert found == [True, True]
    assert not future._waiters


def told(failed):
    return "add_exception" if failed else "add_result"


def interrupt(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize("held", [False, True])
def test_in_a_forked_child_it_fails_without_its_callbacks_and_without_waiting_for_a_copied_lock(pool, held):
    future, called = attached(pool), []
    future.add_done_callback(called.append)
    condition = future._condition
    told = []
    future._waiters.append(SimpleNamespace(add_exception=told.append))  # of another thread of the parent's
    go, done = threading.Event(), threading.Event()

    def hold():
        with condition:
            go.set()
            done.wait(20)

    thread = threading.Thread(target=hold)
    if held:
        thread.start()
        go.wait()
    else:
        future._waiters.clear()
    try:
        threading.Thread(target=future._fail_in_forked_child, args=(LookupError(),), daemon=True).start()
        eventually(future.done, "it has failed", seconds=10)
    finally:
        done.set()
        if held:
            thread.join()
    assert isinstance(future.exception(0), LookupError)
    assert (called, told) == ([], [])
