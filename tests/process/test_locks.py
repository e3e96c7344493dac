"""Locks: of which kind they are, and that no signal handler leaves one held."""

from __future__ import annotations

import _thread
import signal
import sys
import threading

import pytest

from pidfdpool.process import interruptible, locks, native

KINDS = (locks.reentrant, locks.plain, native.reentrant_lock, native.lock)
REENTRANT = (locks.reentrant, native.reentrant_lock)


class Raised(BaseException):
    """What the handler raises."""


def enter_again_and_again(lock):
    for _ in range(100_000):
        with lock:
            pass


def is_free(lock):
    """Return whether another thread can have it."""
    had = []

    def take():
        if lock.acquire(blocking=False):
            lock.release()
            had.append(True)

    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    return bool(had)


@pytest.mark.parametrize("make", [*KINDS, interruptible.Condition, lambda: interruptible.Condition(locks.plain())])
def test_a_handler_that_raises_leaves_no_lock_held(make):
    """Guards: Python 3.14 lets a handler run when a lock is acquired, and the block not yet protected."""

    def handle(*_):
        raise Raised

    raised, before = 0, signal.signal(signal.SIGALRM, handle)
    try:
        for _ in range(300):
            lock = make()
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.0003)
                enter_again_and_again(lock)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except Raised:
                raised += 1
            assert is_free(lock)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert raised > 200


@pytest.fixture(params=["as here", "as in Python 3.14"])
def python(request, monkeypatch):
    if request.param == "as in Python 3.14":
        monkeypatch.setattr(locks, "_MAY_ENTER_HALF", True)


@pytest.mark.usefixtures("python")
@pytest.mark.parametrize("make", KINDS)
def test_a_lock_is_held_within_its_block(make):
    lock = make()
    assert is_free(lock)
    with lock as entered:
        assert entered is True
        assert not is_free(lock)
    assert is_free(lock)
    with pytest.raises(ValueError, match="of the block"), lock:
        raise ValueError("of the block")
    assert is_free(lock)


@pytest.mark.usefixtures("python")
@pytest.mark.parametrize("make", REENTRANT)
def test_a_reentrant_lock_may_be_entered_again(make):
    lock = make()
    with lock:
        with lock:
            assert lock._is_owned()
        assert not is_free(lock)
    assert not lock._is_owned()


@pytest.mark.usefixtures("python")
@pytest.mark.parametrize("make", [locks.plain, native.lock])
def test_a_plain_lock_is_held_once(make):
    lock = make()
    with lock:
        assert lock.locked()
        assert not lock.acquire(timeout=0)
    assert not lock.locked()
    assert not hasattr(lock, "_is_owned")


@pytest.mark.usefixtures("python")
@pytest.mark.parametrize("make", KINDS)
def test_a_condition_waits_with_each_of_them(make):
    condition, told = interruptible.Condition(make()), []

    def wait():
        with condition:
            told.append("waits")
            condition.notify_all()
            condition.wait_for(lambda: "go on" in told, timeout=30)
            told.append("went on")

    thread = threading.Thread(target=wait)
    thread.start()
    with condition:
        assert condition.wait_for(lambda: told, timeout=30)
        told.append("go on")
        condition.notify_all()
    thread.join(30)
    assert told == ["waits", "go on", "went on"]


@pytest.mark.usefixtures("python")
def test_locks_of_greenlets_are_those_that_the_host_has_put_there(monkeypatch):
    class OfGreenlets:
        pass

    monkeypatch.setattr(threading, "RLock", OfGreenlets)
    monkeypatch.setattr(threading, "Lock", OfGreenlets)
    assert {type(locks.reentrant()), type(locks.plain())} == {OfGreenlets}
    monkeypatch.delitem(sys.modules, "threading")
    assert locks.reentrant()._is_owned() is False
    assert locks.plain().locked() is False


def test_where_no_lock_is_entered_half_they_are_the_standards(monkeypatch):
    monkeypatch.setattr(locks, "_MAY_ENTER_HALF", False)
    assert [type(make()) for make in KINDS] == [type(_thread.RLock()), type(_thread.allocate_lock())] * 2
