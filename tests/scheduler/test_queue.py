"""The order in which tasks wait, against a plain sorted list."""

from __future__ import annotations

import random

import pytest

from pidfdpool.scheduler.queue import TaskQueue


def drained(waiting: TaskQueue) -> list[int]:
    return [waiting.pop() for _ in range(len(waiting))]


def test_tasks_of_one_priority_come_first_come_first_served():
    waiting = TaskQueue()
    for task in (3, 1, 2):
        waiting.add(task, 0)
    assert list(waiting) == [3, 1, 2]
    assert drained(waiting) == [3, 1, 2]
    assert not waiting


def test_higher_priorities_come_first_and_negative_ones_last():
    waiting = TaskQueue()
    for task, priority in ((1, 0), (2, -7), (3, 10), (4, 0), (5, 10)):
        waiting.add(task, priority)
    assert list(waiting) == [3, 5, 1, 4, 2]
    assert drained(waiting) == [3, 5, 1, 4, 2]


def test_a_task_that_had_its_turn_goes_to_the_head_of_its_line_only():
    waiting = TaskQueue()
    waiting.add(1, 5)
    waiting.add(2, 0)
    waiting.add(3, 0, first=True)
    assert drained(waiting) == [1, 3, 2]


def test_a_task_can_be_taken_out_wherever_it_stands():
    waiting = TaskQueue()
    for task in range(6):
        waiting.add(task, task % 2)
    for task in (3, 0):
        waiting.remove(task)
        assert task not in waiting
    assert len(waiting) == 4
    assert drained(waiting) == [1, 5, 2, 4]


@pytest.mark.parametrize("own", [(), ((1, 0), (2, 5))])
def test_all_tasks_of_another_queue_come_behind_the_own_ones_of_their_priority(own):
    waiting, other = TaskQueue(), TaskQueue()
    for task, priority in own:
        waiting.add(task, priority)
    for task, priority in ((3, 0), (4, 5), (5, -1)):
        other.add(task, priority)
    waiting.take_all(other)
    other.add(6, 9)
    assert list(waiting) == ([2, 4, 1, 3, 5] if own else [4, 3, 5])
    assert 6 not in waiting
    assert drained(other) == [6]


def test_a_line_that_is_empty_is_forgotten():
    waiting = TaskQueue()
    for priority in range(1000):
        waiting.add(priority, priority)
        waiting.remove(priority)
    assert waiting.lines == {}
    assert waiting._priorities == []


def test_taking_out_a_task_that_does_not_wait_is_an_error():
    with pytest.raises(KeyError):
        TaskQueue().remove(1)


def test_clearing_takes_out_all():
    waiting = TaskQueue()
    waiting.add(1, 0)
    waiting.add(2, 9)
    waiting.clear()
    assert list(waiting) == []
    waiting.add(2, 1)
    assert list(waiting) == [2]


def test_waiting_behaves_as_a_stable_sort_does():
    draw = random.Random(7)
    waiting, plain = TaskQueue(), []
    for task in range(2000):
        if plain and draw.random() < 0.45:
            plain.sort(key=lambda pair: -pair[1])
            assert waiting.pop() == plain.pop(0)[0]
        else:
            priority = draw.randrange(-3, 4)
            waiting.add(task, priority)
            plain.append((task, priority))
    assert list(waiting) == [task for task, _ in sorted(plain, key=lambda pair: -pair[1])]


def test_the_first_tasks_are_removed_together_across_priorities():
    queue = TaskQueue()
    for task, priority in [(1, 0), (2, 5), (3, 0), (4, 5), (5, 0)]:
        queue.add(task, priority)
    queue.remove_first([2, 4, 1])
    assert list(queue) == [3, 5]
    assert list(queue.lines) == [0]
    queue.remove_first([3, 5])
    assert (len(queue), queue.lines) == (0, {})
    queue.add(6, 5)
    assert queue.pop() == 6
