"""Waiters that are told of a future once, also if a handler interrupts that, and waits that begin with short ones."""

from __future__ import annotations

import itertools
import threading
import time
from types import SimpleNamespace

import pytest

from pidfdpool.process import interruptible
from pidfdpool.process.interruptible import FIRST_WAITS, Waiters


class Waiter:
    """Notes of which futures it is told, and may be interrupted `before` or `after` it has noted."""

    def __init__(self, interrupted=None):
        self.told, self.finished_futures, self.interrupted = [], [], interrupted
        self.event = SimpleNamespace(set=lambda: self.told.append("woken"))

    def _tell(self, how, future):
        at, self.interrupted = self.interrupted, None
        if at == "before":
            raise KeyboardInterrupt
        self.finished_futures.append(future)
        if at == "after":
            raise KeyboardInterrupt
        self.told.append((how, future))

    def add_result(self, future):
        self._tell("result", future)

    def add_exception(self, future):
        self._tell("exception", future)


def waiters_of(*each):
    waiters = Waiters()
    for one in each:
        list.append(waiters, one)
    return waiters


@pytest.mark.parametrize("how", ["result", "exception"])
def test_each_waiter_is_told_in_the_way_that_is_asked_for(how):
    waiters = waiters_of(Waiter(), Waiter())
    waiters.told = []
    waiters.tell("future", f"add_{how}")
    assert [one.told for one in waiters] == [[(how, "future")]] * 2
    assert waiters.told == list(waiters)


def test_where_nobody_has_begun_to_tell_nobody_is_told():
    """Somebody else has told them already."""
    waiters = waiters_of(Waiter())
    waiters.tell("future", "add_result", again=True)
    assert waiters.told is None
    assert waiters[0].told == []


@pytest.mark.parametrize("at", ["before", "after"])
def test_whoever_was_interrupted_goes_on_where_it_was_and_tells_nobody_twice(at):
    waiters = waiters_of(Waiter(), Waiter(interrupted=at), Waiter())
    waiters.told = []
    with pytest.raises(KeyboardInterrupt):
        waiters.tell("future", "add_result")
    waiters.tell("future", "add_result", again=True)
    known = [("result", "future")]
    assert [one.told for one in waiters] == [known, known if at == "before" else ["woken"], known]
    assert [one.finished_futures for one in waiters] == [["future"]] * 3
    waiters.tell("future", "add_result", again=True)
    assert [len(one.told) for one in waiters] == [1, 1, 1]


def test_who_is_told_for_the_first_time_is_told_also_of_a_future_that_it_knows():
    """`as_completed` may have the same future twice."""
    one = Waiter()
    one.finished_futures.append("future")
    waiters = waiters_of(one)
    waiters.told = []
    waiters.tell("future", "add_result")
    assert one.told == [("result", "future")]


def test_futures_are_told_apart_by_what_they_are_and_not_by_what_they_equal():
    class Equal:
        __hash__ = None

        def __eq__(self, _other):
            return True

    one = Waiter()
    one.finished_futures.append(Equal())
    waiters = waiters_of(one)
    waiters.told = []
    future = Equal()
    waiters.tell(future, "add_result", again=True)
    assert one.told == [("result", future)]
    assert one.finished_futures[-1] is future


def test_a_waiter_that_is_none_of_the_standards_keeps_the_event_that_it_has():
    waiters = Waiters()
    own = threading.Event()
    own.__class__ = type("Own", (threading.Event,), {})
    for one in (SimpleNamespace(event=own), SimpleNamespace(event=None), object()):
        waiters.append(one)
        assert waiters[-1] is one
    assert waiters[0].event is own
    assert waiters[1].event is None


def test_where_events_have_no_condition_none_is_replaced(monkeypatch):
    monkeypatch.setattr(interruptible, "_HAS_CONDITION", False)
    waiters = Waiters()
    waiters.append(SimpleNamespace(event=threading.Event()))
    assert type(waiters[0].event) is threading.Event


# ---- events and waits --------------------------------------------------------------------------------------------


def test_an_event_is_waited_for_until_it_is_set_or_the_time_is_over():
    event = interruptible.Event()
    assert event.wait(0) is False
    assert event.wait(0.01) is False
    threading.Timer(0.02, event.set).start()
    assert event.wait() is True
    assert event.wait(0) is True


def test_the_first_waits_grow_and_are_over_in_two_seconds():
    """Nobody presses Ctrl-C twice within a hundredth of a second; and an idle thread does not wake."""
    assert list(FIRST_WAITS) == sorted(FIRST_WAITS)
    assert 0.001 <= FIRST_WAITS[0] <= 0.02
    assert sum(FIRST_WAITS) <= 2
    assert all(later <= 10 * earlier for earlier, later in itertools.pairwise(FIRST_WAITS))


class Lock:
    """One that is free at the attempt of this number."""

    def __init__(self, free_at):
        self.free_at, self.timeouts = free_at, []

    def acquire(self, timeout):
        self.timeouts.append(timeout)
        return len(self.timeouts) >= self.free_at


def test_a_lock_is_waited_for_in_short_steps_and_then_for_as_long_as_it_takes():
    lock = Lock(len(FIRST_WAITS) + 1)
    assert interruptible.acquire(lock) is True
    assert lock.timeouts == [*FIRST_WAITS, -1]


class Queue:
    """One in which an item is found at the look of this number."""

    def __init__(self, found_at):
        self.found_at, self.timeouts = found_at, []

    def get(self, timeout):
        self.timeouts.append(timeout)
        if len(self.timeouts) < self.found_at:
            raise interruptible.Empty
        return "item"


def test_an_item_is_waited_for_in_short_steps_and_then_for_as_long_as_it_takes():
    queue = Queue(len(FIRST_WAITS) + 1)
    assert interruptible.get(queue) == "item"
    assert queue.timeouts == [*FIRST_WAITS, None]


def test_when_the_time_for_an_item_is_over_a_last_look_is_made_without_waiting(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(interruptible, "time", SimpleNamespace(monotonic=lambda: now[0]))
    queue = Queue(10)
    waited = queue.get

    def get(timeout):
        now[0] += timeout
        return waited(timeout)

    queue.get = get
    with pytest.raises(interruptible.Empty):
        interruptible.get(queue, 0.04)
    assert queue.timeouts == pytest.approx([0.01, 0.03, 0.0])


def test_the_waits_of_one_wait_sum_up_to_its_time(monkeypatch):
    now, slept = [100.0], []
    monkeypatch.setattr(interruptible, "time", SimpleNamespace(monotonic=lambda: now[0]))

    class Sleeper:
        def acquire(self, timeout=None):
            if timeout is not None:
                slept.append(timeout)
                now[0] += timeout
            return timeout is None

    monkeypatch.setattr(interruptible.threading, "Lock", Sleeper)
    condition = SimpleNamespace(_waiters=[])
    assert interruptible.wait(lambda: False, condition, 0.5) is False
    assert slept == pytest.approx([0.01, 0.05, 0.25, 0.19])
    slept.clear()
    looks = iter([False] * 6 + [True])
    assert interruptible.wait(lambda: next(looks), condition) is True
    assert slept == [*FIRST_WAITS, -1, -1]
    assert condition._waiters == []


def test_who_is_notified_while_it_looks_and_finds_it_done_has_waited():
    """The notification has taken it off the list already."""
    condition = interruptible.Condition()

    def look():
        with condition:
            condition.notify_all()
        return True

    assert interruptible.wait(look, condition) is True
    assert not condition._waiters


def test_a_very_long_wait_consists_of_waits_that_a_lock_can_count():
    steps = interruptible.WaitSteps(1e12, False)
    assert steps.next() == interruptible.native.LONGEST_WAIT
    assert interruptible.native.LONGEST_WAIT * 1000 < 2**31, "in milliseconds, as poll counts"
    assert interruptible.native.LONGEST_WAIT <= threading.TIMEOUT_MAX
    assert time.monotonic() + 1e11 < steps._deadline
