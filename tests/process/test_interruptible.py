"""Waits that miss neither a signal nor a notification, and leave nothing behind."""

from __future__ import annotations

import functools
import queue
import signal
import sys
import threading
import time

import pytest

from pidfdpool.process import interruptible
from pidfdpool.process.interruptible import FIRST_WAITS, WaitSteps
from tests.conditions import eventually
from tests.interrupting import places


@pytest.fixture
def waiting():
    """Give a condition, what ends the wait for it in another thread, and what that wait has returned."""
    condition, done, returned = interruptible.Condition(), [], []
    thread = threading.Thread(target=lambda: returned.append(interruptible.wait(lambda: bool(done), condition)))
    thread.start()
    eventually(lambda: condition._waiters, "it waits")
    yield condition, done, returned
    done.append(True)
    with condition:
        condition.notify_all()
    thread.join(10)
    assert not thread.is_alive()


def test_who_is_notified_for_nothing_waits_on_and_is_notified_again(waiting):
    condition, done, returned = waiting
    for _ in range(3):
        with condition:
            condition.notify_all()
        eventually(lambda: condition._waiters, "it waits again", seconds=5)
    assert returned == []
    done.append(True)
    with condition:
        condition.notify_all()
    eventually(lambda: returned == [True], "it has returned", seconds=5)
    assert not condition._waiters


def test_what_is_done_and_notified_just_after_it_was_looked_for_is_seen():
    condition, done, returned = interruptible.Condition(), [], []

    def look():
        if done:
            return True
        done.append(True)  # by another thread, which notifies those that wait already
        with condition:
            condition.notify_all()
        return False

    thread = threading.Thread(target=lambda: returned.append(interruptible.wait(look, condition)), daemon=True)
    thread.start()
    thread.join(10)
    assert returned == [True]


def test_a_wait_that_is_over_leaves_nothing_among_the_waiters():
    condition = interruptible.Condition()
    assert not interruptible.wait(lambda: False, condition, 0.001)
    assert interruptible.wait(lambda: True, condition)
    with pytest.raises(ZeroDivisionError):
        interruptible.wait(lambda: 1 / 0, condition)
    assert not condition._waiters


def test_what_is_done_already_is_not_waited_for_even_without_any_time():
    assert interruptible.wait(lambda: True, interruptible.Condition(), 0)
    assert not interruptible.wait(lambda: False, interruptible.Condition(), 0)


def test_the_first_waits_of_the_thread_that_handles_signals_are_short():
    steps = WaitSteps(None)
    assert [steps.next() for _ in range(len(FIRST_WAITS) + 2)] == [*FIRST_WAITS, None, None]
    steps = WaitSteps(None, False)
    assert steps.next() is None


def test_no_wait_is_longer_than_the_time_that_is_left(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(interruptible.time, "monotonic", lambda: now[0])
    steps = WaitSteps(0.04, True)
    assert steps.next() == FIRST_WAITS[0]
    assert steps.next() == pytest.approx(0.04)
    now[0] += 1
    assert steps.next() < 0


def test_a_lock_is_acquired_whoever_holds_it_for_how_long():
    lock = threading.Lock()
    lock.acquire()
    timer = threading.Timer(0.1, lock.release)  # longer than the first of the short waits
    timer.start()
    assert interruptible.acquire(lock)
    assert not lock.acquire(blocking=False)
    timer.join()


def test_an_item_is_waited_for_as_long_as_was_said():
    items = queue.SimpleQueue()
    began = time.monotonic()
    with pytest.raises(queue.Empty):
        interruptible.get(items, 0.1)
    assert time.monotonic() - began >= 0.1
    items.put("item")
    assert interruptible.get(items) == "item"
    items.put("another")
    assert interruptible.get(items, 0) == "another"


def test_an_exception_in_the_block_leaves_the_condition_free():
    condition = interruptible.Condition()
    with pytest.raises(LookupError), condition:
        raise LookupError
    assert condition.acquire(blocking=False)
    condition.release()


# The events that the standard library makes keep their lock if a handler raises in `__enter__` or `__exit__` of their
# condition, which are methods of Python's. Whoever sets the event later would wait for it for ever.
@pytest.mark.parametrize("call", ["set", "clear", "wait"])
def test_an_event_is_free_wherever_a_handler_raises(call):
    event = interruptible.Event()
    do = functools.partial(event.wait, 0.001) if call == "wait" else getattr(event, call)
    for place in places(lambda: do):
        assert event._cond.acquire(blocking=False), place
        event._cond.release()
        assert not event._cond._waiters, place
        event.clear()


def test_a_waiter_of_the_standard_library_gets_an_event_of_ours():
    from concurrent.futures import _base

    waiter = _base._AsCompletedWaiter()
    waiters = interruptible.Waiters()
    waiters.append(waiter)
    assert type(waiter.event) is interruptible.Event
    assert waiters == [waiter]
    event = waiter.event
    waiters.append(waiter)
    assert waiter.event is event, "somebody may wait for it already"


# ---- which handlers there are ------------------------------------------------------------------------------------


@pytest.fixture
def handlers(monkeypatch):
    """Return a dictionary of what handles which signal, in the place of the real handlers."""
    found = {signal.SIGINT: signal.default_int_handler}
    default = interruptible.native.SIG_DFL
    monkeypatch.setattr(interruptible, "_handler_of", lambda number: found.get(number, default))
    monkeypatch.setattr(interruptible.native, "is_told_to_be_interactive", False)
    monkeypatch.delattr(sys, "ps1", raising=False)
    return found


def function(*_):
    pass


@pytest.mark.parametrize(
    ("number", "handler", "called"),
    [
        (signal.SIGINT, signal.default_int_handler, False),
        (signal.SIGINT, interruptible.native.SIG_IGN, False),
        (signal.SIGINT, function, True),
        (signal.SIGTERM, function, True),
        (signal.SIGUSR1, interruptible.native.SIG_IGN, False),
        (signal.SIGUSR1, signal.default_int_handler, False),
        (signal.SIGUSR1, None, False),
        (signal.SIGALRM, function, True),
        (signal.SIGALRM, signal.default_int_handler, True),
    ],
)
def test_a_handler_is_called_that_is_a_function_of_the_hosts_or_a_timers(handlers, number, handler, called):
    assert not interruptible.handlers_are_called()
    handlers[number] = handler
    assert interruptible.handlers_are_called() is called


def test_handlers_may_raise_at_a_prompt_and_where_there_are_timers_and_only_in_the_thread_that_runs_them(
    handlers, monkeypatch
):
    may, here = interruptible.handlers_may_raise, interruptible.handlers_may_raise_here
    handlers[signal.SIGTERM] = function
    assert not may()
    handlers[signal.SIGALRM] = function
    assert may()
    assert here()
    seen = []
    thread = threading.Thread(target=lambda: seen.append((may(), here())))
    thread.start()
    thread.join()
    assert seen == [(True, False)]
    del handlers[signal.SIGALRM]
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    assert may()
    monkeypatch.delattr(sys, "ps1")
    assert not may()
    monkeypatch.setattr(interruptible.native, "is_told_to_be_interactive", True)
    assert may()


def test_only_the_thread_that_runs_handlers_takes_an_exit_for_one(handlers):
    class Exit(BaseException):
        pass

    asked = interruptible.is_exit_request
    assert [asked(error) for error in (KeyboardInterrupt(), SystemExit(), Exit(), ValueError())] == [True] * 3 + [
        False
    ]
    seen = []
    thread = threading.Thread(target=lambda: seen.append(asked(KeyboardInterrupt())))
    thread.start()
    thread.join()
    assert seen == [False]


def test_other_threads_have_no_short_waits():
    steps = []
    thread = threading.Thread(target=lambda: steps.extend([WaitSteps(None).next(), WaitSteps(None, True).next()]))
    thread.start()
    thread.join()
    assert steps == [None, FIRST_WAITS[0]]
    assert WaitSteps(None, False).next() is None
    assert 0 < WaitSteps(5.0, False).next() <= 5.0
    assert WaitSteps(-1.0).next() <= 0


def test_an_item_that_is_there_is_got_without_any_time_and_else_there_is_none():
    items = queue.SimpleQueue()
    for timeout in (0, -1.0, 0.01):
        items.put(timeout)
        assert interruptible.get(items, timeout) == timeout
        with pytest.raises(queue.Empty):
            interruptible.get(items, timeout)
