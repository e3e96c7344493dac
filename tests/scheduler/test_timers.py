"""The moments that are waited for, against a plain table."""

from __future__ import annotations

import random

import pytest

from pidfdpool.scheduler.timers import Timer, Timers


def test_timers_come_in_the_order_of_their_moments_and_not_before_them():
    timers = Timers()
    timers.set((Timer.KILL, 1), 3.0)
    timers.set((Timer.TIMEOUT, 2), 1.0)
    timers.set((Timer.STACK, 1), 2.0)
    assert timers.next() == 1.0
    assert timers.pop_due(0.9) is None
    assert timers.pop_due(2.5) == (Timer.TIMEOUT, 2)
    assert timers.pop_due(2.5) == (Timer.STACK, 1)
    assert timers.pop_due(2.5) is None
    assert timers.pop_due(3.0) == (Timer.KILL, 1)
    assert timers.next() is None


@pytest.mark.parametrize(("first", "second"), [(1.0, 2.0), (2.0, 1.0), (1.0, 1.0)])
def test_setting_a_timer_anew_moves_it_either_way_and_it_comes_once(first, second):
    timers = Timers()
    timers.set((Timer.IDLE, 1), first)
    timers.set((Timer.IDLE, 1), second)
    assert timers.next() == second
    assert timers.pop_due(9.0) == (Timer.IDLE, 1)
    assert timers.pop_due(9.0) is None


def test_a_cancelled_timer_never_comes_and_those_that_are_not_set_may_be_cancelled():
    timers = Timers()
    timers.set((Timer.AGE, 1), 1.0)
    timers.set((Timer.AGE, 2), 2.0)
    timers.cancel((Timer.AGE, 1), (Timer.AGE, 99))
    assert (Timer.AGE, 1) not in timers
    assert (Timer.AGE, 2) in timers
    assert timers.next() == 2.0
    assert timers.pop_due(9.0) == (Timer.AGE, 2)


def test_a_timer_that_is_cancelled_and_set_for_the_same_moment_comes_once():
    timers = Timers()
    for _ in range(3):
        timers.set((Timer.AGE, 1), 1.0)
        timers.cancel((Timer.AGE, 1))
    timers.set((Timer.AGE, 1), 1.0)
    assert timers.pop_due(1.0) == (Timer.AGE, 1)
    assert timers.pop_due(1.0) is None


def test_many_timers_set_and_cancelled_do_not_make_the_heap_grow():
    timers = Timers()
    timers.set((Timer.AGE, 0), 5.0)
    most = 0
    for moment in range(20_000):
        timers.set((Timer.TIMEOUT, 1), 1000.0 + moment)
        timers.cancel((Timer.TIMEOUT, 1))
        most = max(most, len(timers._heap))
    assert most <= 64 + 2 * 2 + 1
    assert timers.pop_due(1e9) == (Timer.AGE, 0)
    assert timers.pop_due(1e9) is None


def test_timers_behave_as_a_plain_table_does():
    draw = random.Random(11)
    timers, plain, now = Timers(), {}, 0.0
    for _ in range(5000):
        key = (draw.choice(list(Timer)), draw.randrange(4))
        if draw.random() < 0.6:
            at = now + draw.randrange(10)
            timers.set(key, at)
            plain[key] = at
        elif draw.random() < 0.5:
            timers.cancel(key)
            plain.pop(key, None)
        else:
            now += draw.randrange(4)
            while (key := timers.pop_due(now)) is not None:
                assert plain.pop(key) <= now
            assert all(at > now for at in plain.values())
        assert timers.next() == min(plain.values(), default=None)


def test_the_limits_of_a_task_are_cancelled_and_nothing_else_of_its_worker():
    timers = Timers()
    for timer in (Timer.TIMEOUT, Timer.HEARTBEAT, Timer.AGE):
        timers.set((timer, 1), 1.0)
    timers.set((Timer.TIMEOUT, 2), 2.0)
    timers.cancel_task_limits(1)
    assert [timers.pop_due(9.0), timers.pop_due(9.0)] == [(Timer.AGE, 1), (Timer.TIMEOUT, 2)]
    assert timers.pop_due(9.0) is None


def test_all_that_is_waited_for_of_a_worker_is_cancelled_and_nothing_of_a_task_with_its_number():
    timers = Timers()
    for timer in Timer:
        timers.set((timer, 1), 1.0)
    timers.cancel_worker(1)
    left = {timer for timer in Timer if (timer, 1) in timers}
    assert left == {Timer.DEADLINE, Timer.RETRY, Timer.MEMORY, Timer.TEMPLATE, Timer.BALANCE, Timer.CANCEL}
