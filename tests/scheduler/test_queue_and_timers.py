"""The order in which tasks wait, and the moments that are waited for."""

from __future__ import annotations

import random

import pytest

from pidfdpool.scheduler.queue import Waiting
from pidfdpool.scheduler.timers import Timer, Timers


def drained(waiting: Waiting) -> list[int]:
    return [waiting.pop() for _ in range(len(waiting))]


def test_tasks_of_one_priority_come_first_come_first_served():
    waiting = Waiting()
    for task in (3, 1, 2):
        waiting.add(task, 0)
    assert list(waiting) == [3, 1, 2]
    assert drained(waiting) == [3, 1, 2]
    assert not waiting


def test_higher_priorities_come_first_and_negative_ones_last():
    waiting = Waiting()
    for task, priority in ((1, 0), (2, -7), (3, 10), (4, 0), (5, 10)):
        waiting.add(task, priority)
    assert list(waiting) == [3, 5, 1, 4, 2]
    assert drained(waiting) == [3, 5, 1, 4, 2]


def test_a_task_that_had_its_turn_goes_to_the_head_of_its_line_only():
    waiting = Waiting()
    waiting.add(1, 5)
    waiting.add(2, 0)
    waiting.add(3, 0, first=True)
    assert drained(waiting) == [1, 3, 2]


def test_a_task_can_be_taken_out_wherever_it_stands():
    waiting = Waiting()
    for task in range(6):
        waiting.add(task, task % 2)
    for task in (3, 0):
        waiting.remove(task)
        assert task not in waiting
    assert len(waiting) == 4
    assert drained(waiting) == [1, 5, 2, 4]


def test_a_line_that_is_empty_is_forgotten():
    waiting = Waiting()
    for priority in range(1000):
        waiting.add(priority, priority)
        waiting.remove(priority)
    assert waiting._lines == {}
    assert waiting._priorities == []


def test_taking_out_a_task_that_does_not_wait_is_an_error():
    with pytest.raises(KeyError):
        Waiting().remove(1)


def test_clearing_takes_out_all():
    waiting = Waiting()
    waiting.add(1, 0)
    waiting.add(2, 9)
    waiting.clear()
    assert list(waiting) == []
    waiting.add(2, 1)
    assert list(waiting) == [2]


def test_waiting_behaves_as_a_stable_sort_does():
    draw = random.Random(7)
    waiting, plain = Waiting(), []
    for task in range(2000):
        if plain and draw.random() < 0.45:
            plain.sort(key=lambda pair: -pair[1])
            assert waiting.pop() == plain.pop(0)[0]
        else:
            priority = draw.randrange(-3, 4)
            waiting.add(task, priority)
            plain.append((task, priority))
    assert list(waiting) == [task for task, _ in sorted(plain, key=lambda pair: -pair[1])]


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
