"""The decisions about one task alone, compared with what the whole machine decides, and their bounds."""

from __future__ import annotations

import pytest

from pidfdpool.scheduler import events as ev
from pidfdpool.scheduler.machine import Machine
from pidfdpool.scheduler.policy import Policy
from pidfdpool.scheduler.states import Phase, State
from tests.scheduler.driving import started
from tests.scheduler.parts import Parts


def busy(ahead: tuple[int, ...] = (), pace: float | None = None, **policy):
    parts = Parts(1, **policy)
    slot = parts.worker(State.BUSY, 1, ahead=ahead)
    return parts, slot, parts.fast_path(pace)


def test_a_task_that_waits_has_the_pools_policy_and_its_priority():
    parts, _, fast = busy(priority=3)
    for number in (7, 8):
        assert fast.enqueue(number)
    assert list(parts.queue) == [7, 8]
    assert parts.queue.priority_of == {7: 3, 8: 3}
    task = parts.state.tasks[7]
    assert (task.policy, task.heavy, task.start_by, task.attempt) == (parts.policy, False, None, 0)
    assert (task.calls, task.deaths, task.begun, task.kill_requested) == (0, 0, False, False)
    assert list(parts.queue.lines) == [3]


@pytest.mark.parametrize("limit", [0, 1, 2])
def test_as_many_wait_as_the_limit_says(limit):
    parts, _, fast = busy()
    fast.queue_limit = limit
    assert [fast.enqueue(number) for number in (7, 8, 9)] == [limit > 0, limit > 1, False]
    assert len(parts.queue) == limit
    assert len(parts.state.tasks) == 1 + limit


def test_a_task_is_handed_to_the_worker_that_became_idle_last():
    parts = Parts(3)
    first, second, third = parts.worker(), parts.worker(), parts.worker(State.BUSY, 1)
    fast = parts.fast_path()
    fast.queue_limit = 5
    slot = fast.hand_over(7, 4.0, True)
    assert slot is second
    assert (slot.task, slot.busy_since, slot.state) == (7, 4.0, State.BUSY)
    assert (parts.workforce.idle, parts.workforce.counts[State.BUSY]) == ([0], 2)
    assert (parts.state.tasks[7].heavy, parts.state.tasks[7].begun) == (True, True)
    assert fast.queue_limit is None, "a worker is idle no more, so another number of tasks may wait"
    assert (first.state, third.task) == (State.IDLE, 1)


def test_no_more_tasks_are_handed_over_than_the_pool_is_large():
    parts = Parts(2)
    parts.worker(State.BUSY, 1)
    parts.worker()
    parts.worker()
    fast = parts.fast_path()
    assert fast.hand_over(7, 1.0) is not None
    assert not parts.state.tasks[7].heavy
    assert fast.hand_over(8, 1.0) is None
    assert 8 not in parts.state.tasks


@pytest.mark.parametrize("attempt", [0, 1])
def test_a_task_that_is_cancelled_is_gone_from_everywhere(attempt):
    parts, _, fast = busy()
    for number, priority in ((7, 3), (8, 3), (9, 0)):
        parts.add_task(number, queued=True, priority=priority).attempt = attempt
    assert [fast.cancel(number) for number in (7, 8)] == [True, True]
    assert (list(parts.queue), list(parts.state.tasks)) == ([9], [1, 9])
    assert list(parts.queue.lines) == [0], "a line that is empty is closed"
    assert fast.cancel(9) is False, "the last one"
    assert fast.cancel(7) is False
    assert parts.actions() == []


@pytest.mark.parametrize("phase", [Phase.OPEN, Phase.DRAINING, Phase.CLOSING])
def test_a_task_that_waits_can_be_cancelled_as_long_as_the_pool_lives(phase):
    parts, _, fast = busy()
    for number in (7, 8):
        parts.add_task(number, queued=True)
    parts.state.phase = phase
    assert fast.cancel(7)


# ---- answers ---------------------------------------------------------------------------------------------------


def test_an_answer_begins_the_next_task_of_that_worker():
    parts, slot, fast = busy(ahead=(2, 3))
    other = parts.worker(State.BUSY, 50, ahead=(51,))
    slot.rebalanced = 2
    fast.queue_limit = 9
    assert fast.take_answers(0, 1, [1], 0.1, 5.0) == 1
    assert (slot.task, list(slot.ahead), slot.busy_since, slot.rebalanced) == (2, [3], 5.0, 0)
    assert (slot.state, slot.tasks_done) == (State.BUSY, 1)
    task = parts.state.tasks[2]
    assert (task.attempt, task.begun) == (1, True)
    assert parts.state.running == {2: 0, 50: 1}
    assert parts.state.prefetched == {3: 0, 51: 1}
    assert (other.task, other.tasks_done, fast.queue_limit) == (50, 0, 9)


def test_the_pace_is_that_of_each_answer_and_counts_as_often_as_one_was_taken():
    parts, _, fast = busy(ahead=(2, 3), pace=0.8)
    parts.workforce.slots[0].leaving = True
    assert fast.take_answers(0, 1, [1, 2, 3], 2.4, 5.0) == 2, "after the third it is to leave"
    assert fast._prefetcher.pace == pytest.approx(0.8), "of three, 0.8 s each"
    parts, _, fast = busy(ahead=(2,), pace=0.8)
    parts.worker(State.BUSY, 50, ahead=(51,))
    assert fast.take_answers(0, 1, [1, 2], 0.0, 5.0) == 1
    assert fast._prefetcher.pace == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("answers", "taken"), [([1, 2, 3], 3), ([1, 3], 1), ([2], 0), ([1, 1], 1), ([1, 2, 9], 2), ([1, 2, 3, 4], 3)]
)
def test_answers_are_taken_in_the_order_in_which_the_worker_has_the_tasks(answers, taken):
    parts, slot, fast = busy(ahead=(2, 3, 5))
    parts.limiter.young_death("killed", 0.0)
    assert fast.take_answers(0, 1, answers, 0.1, 5.0) == taken
    assert slot.task == [1, 2, 3, 5][taken]
    assert (slot.tasks_done, parts.limiter.streak) == (taken, int(not taken))
    assert list(parts.state.tasks) == [1, 2, 3, 5][taken:]


def test_a_worker_that_has_answered_all_comes_to_rest():
    parts, slot, fast = busy(ahead=(2,))
    fast.queue_limit = 5
    assert fast.take_answers(0, 1, [1, 2], 0.1, 5.0) == 2
    assert (slot.state, slot.task, parts.workforce.idle) == (State.IDLE, None, [0])
    assert (parts.state.tasks, parts.state.running, parts.state.prefetched) == ({}, {}, {})
    assert fast.queue_limit is None, "the next task is for that worker"


def test_no_answers_are_none():
    _, slot, fast = busy()
    assert fast.take_answers(0, 1, [], 0.0, 5.0) == 0
    assert (slot.task, slot.tasks_done) == (1, 0)


@pytest.mark.parametrize("why", ["idle_timeout", "draining", "retiring", "queue", "ahead elsewhere"])
def test_the_last_answer_of_a_worker_is_decided_about_where_more_may_follow(why):
    parts, slot, fast = busy(**({"idle_timeout": 5.0} if why == "idle_timeout" else {}))
    if why == "draining":
        parts.state.phase = Phase.DRAINING
    elif why == "retiring":
        parts.workforce.retiring.append(parts.worker())
    elif why == "queue":
        parts.add_task(9, queued=True)
    elif why == "ahead elsewhere":
        parts.worker(State.BUSY, 50, ahead=(51,))
    assert fast.take_answers(0, 1, [1], 0.1, 5.0) == 0
    assert (slot.state, slot.task, slot.tasks_done) == (State.BUSY, 1, 0)
    assert 1 in parts.state.tasks
    assert 1 in parts.state.running


def test_answers_in_the_middle_are_taken_whatever_follows_for_others():
    parts, slot, fast = busy(ahead=(2,))
    parts.state.phase = Phase.DRAINING
    parts.add_task(9, queued=True)
    slot.leaving, slot.to_drop = True, 1
    assert fast.take_answers(0, 1, [1], 0.1, 5.0) == 1


# ---- beside the whole machine ----------------------------------------------------------------------------------


def facts(machine: Machine) -> list:
    return [
        [(slot.state, slot.task, list(slot.ahead), slot.tasks_done, slot.busy_since) for slot in machine.slots],
        list(machine.queue),
        {number: (task.attempt, task.begun) for number, task in machine.tasks.items()},
        machine.running,
        machine.prefetched,
        machine.workforce.idle,
        dict(machine.counts),
    ]


def test_short_and_long_ways_lead_to_the_same():
    short, long = started(2), started(2)
    for number in range(1, 8):
        if not short.enqueue(number) and short.hand_over(number, 1.0) is None:
            short.decide(ev.Submitted(number), 1.0)
        long.decide(ev.Submitted(number), 1.0)
        assert facts(short) == facts(long)
    assert short.cancel(6)
    long.decide(ev.Cancelled(6), 2.0)
    assert facts(short) == facts(long)


def test_a_decision_has_the_limit_of_the_queue_found_out_anew():
    machine = Machine(Policy(max_workers=2))
    machine.fast_path.queue_limit = 5
    machine.decide(ev.Tick(), 1.0)
    assert machine.fast_path.queue_limit is None
