"""How a future is resolved: what is told, logged and done half when something fails. Without a pool."""

from __future__ import annotations

import concurrent.futures
import contextlib
import gc
import logging
import threading
import weakref
from types import SimpleNamespace

import pytest

from pidfdpool.executor import futures
from pidfdpool.process import interruptible
from tests.executor.future_pool import Waiter, attached

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


def test_a_cancelled_future_of_which_its_owner_tells_at_this_moment_just_does_not_begin():
    """Guards: the base class raises for what was told of already, and the pool thread would get that."""

    class Held(interruptible.Condition):
        def __enter__(self):
            future._state = futures._NOTIFIED  # by the thread that held the lock until now
            return super().__enter__()

    future = attached()
    assert future._mark_cancelled()
    future.__dict__["_own_condition"] = Held()
    assert future._begin() is False
    assert future.cancelled()


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
