"""Waits that miss neither a signal nor a notification, and leave nothing behind."""

from __future__ import annotations

import queue
import threading
import time

import pytest

from pidfdpool.process import interruptible
from pidfdpool.process.interruptible import FIRST_WAITS, WaitSteps
from tests.conditions import eventually


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
