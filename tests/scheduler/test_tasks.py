"""What becomes of one task, decided alone: no worker rules, no template."""

from __future__ import annotations

import pytest

from pidfdpool.deaths import Cause
from pidfdpool.errors import TaskTimeout
from pidfdpool.scheduler import actions as do
from pidfdpool.scheduler import events as ev
from pidfdpool.scheduler.states import Phase, State
from pidfdpool.scheduler.tasks import SLICE
from pidfdpool.scheduler.timers import Timer
from tests.scheduler.parts import Parts


def test_a_task_that_is_accepted_waits_and_its_deadline_with_it():
    parts = Parts(deadline=5.0)
    parts.tasks().on_submitted(ev.Submitted(1), 1.0)
    assert (list(parts.queue), list(parts.state.tasks), parts.actions()) == ([1], [1], [])
    assert parts.timers.pop_due(6.0) == (Timer.DEADLINE, 1)


@pytest.mark.parametrize(("broken", "reason"), [(None, "the pool is shut down"), ("no good", "no good")])
def test_a_task_that_comes_too_late_fails(broken, reason):
    parts = Parts()
    parts.state.phase, parts.state.broken = Phase.CLOSING, broken
    parts.tasks().on_submitted(ev.Submitted(1), 1.0)
    assert (parts.actions(), parts.state.tasks) == ([do.FailBroken(1, reason)], {})


def test_a_queued_task_is_cancelled_and_one_that_is_ahead_is_asked_back_first():
    parts = Parts()
    parts.worker(State.BUSY, 1, ahead=(2, 3))
    parts.add_task(4, queued=True)
    tasks = parts.tasks()
    tasks.on_cancelled(ev.Cancelled(4), 1.0)
    tasks.on_cancelled(ev.Cancelled(3), 1.0)
    tasks.on_cancelled(ev.Cancelled(1), 1.0)
    assert parts.actions() == [do.Cancel(4), do.TakeBack(0, 1, 1)]
    tasks.requeue_ahead(parts.workforce.slots[0], 2)
    assert (parts.actions(), list(parts.queue)) == ([do.Cancel(3)], [2])


def test_to_cancel_all_fails_those_between_two_attempts():
    parts = Parts()
    parts.worker(State.BUSY, 1, ahead=(2,))
    parts.add_task(3, queued=True)
    parts.add_task(4).begun = True
    parts.state.delayed.add(4, 0)
    tasks = parts.tasks()
    tasks.cancel_unbegun()
    assert parts.actions() == [do.TakeBack(0, 1, 1)]
    tasks.cancel_in_slices(1.0)
    assert parts.actions() == [do.Cancel(3), do.Fail(4, Cause.SHUTDOWN)]
    assert list(parts.state.tasks) == [1, 2]


def test_many_tasks_are_cancelled_in_slices_one_at_each_tick():
    parts = Parts()
    for number in range(2 * SLICE + 1):
        parts.add_task(number, queued=True)
    tasks = parts.tasks()
    tasks.cancel_unbegun()
    tasks.cancel_in_slices(5.0)
    assert (parts.actions(), parts.timers.pop_due(5.0)) == ([], None)
    assert parts.timers.pop_due(5.001) == (Timer.CANCEL, 0)
    tasks.on_cancel_due(0, 6.0)
    assert parts.actions() == [do.Cancel(number) for number in range(SLICE)]
    tasks.cancel_in_slices(6.0)
    assert parts.timers.pop_due(6.001) == (Timer.CANCEL, 0)
    tasks.on_cancel_due(0, 7.0)
    tasks.cancel_in_slices(7.0)
    assert len(parts.actions()) == SLICE + 1
    assert (parts.state.tasks, parts.timers.next()) == ({}, None)


def test_a_task_that_is_to_be_cancelled_can_be_cancelled_or_killed_before_its_turn_comes():
    parts = Parts()
    for number in (1, 2):
        parts.add_task(number, queued=True)
    tasks = parts.tasks()
    tasks.cancel_unbegun()
    tasks.on_cancelled(ev.Cancelled(2), 1.0)
    parts.limits().on_task_kill_requested(ev.TaskKillRequested(1), 1.0)
    assert parts.actions() == [do.Cancel(2), do.Fail(1, Cause.KILL)]
    assert not parts.state.to_cancel


def test_a_task_that_is_to_be_cancelled_is_not_tried_again_when_its_pause_is_over():
    parts = Parts(retries=1, retry_backoff=5.0)
    parts.add_task(1).begun = True
    tasks = parts.tasks()
    tasks.retry(1, 1.0)
    tasks.cancel_unbegun()
    tasks.on_retry_due(1, 6.0)
    assert (list(parts.queue), list(parts.state.to_cancel)) == ([], [1])


def test_what_is_taken_back_after_all_was_to_be_cancelled_comes_before_the_rest_of_that():
    parts = Parts()
    slot = parts.worker(State.BUSY, 1, ahead=(2, 3))
    parts.add_task(4, queued=True)
    tasks = parts.tasks()
    tasks.cancel_unbegun()
    tasks.requeue_ahead(slot, 2)
    assert list(parts.state.to_cancel) == [2, 3, 4]


def test_a_task_is_tried_again_though_others_are_being_cancelled():
    parts = Parts(retries=1, retry_backoff=0.0)
    parts.worker(State.BUSY, 1)
    tasks = parts.tasks()
    tasks.cancel_unbegun()
    tasks.retry(1, 1.0)
    assert (list(parts.queue), list(parts.state.to_cancel)) == ([1], [])


def test_an_attempt_has_the_timers_and_the_deadline_of_its_policy():
    parts = Parts(timeout=5.0, heartbeat_timeout=2.0)
    slot = parts.worker()
    parts.add_task(1)
    parts.tasks().start_and_send(1, slot, 1.0)
    assert parts.actions() == [do.Send(0, 1, 1, attempt=1, deadline=6.0)]
    assert [parts.timers.pop_due(9.0), parts.timers.pop_due(9.0)] == [(Timer.HEARTBEAT, 1), (Timer.TIMEOUT, 1)]
    assert (slot.task, parts.state.running) == (1, {1: 0})


def test_the_next_task_ahead_begins():
    parts = Parts()
    slot = parts.worker(State.BUSY, None, ahead=(2, 3))
    parts.tasks().start_next_ahead(slot, 4.0)
    assert (slot.task, list(slot.ahead), slot.busy_since) == (2, [3], 4.0)
    assert (parts.state.running, parts.state.prefetched) == ({2: 0}, {3: 0})


def test_a_task_that_was_never_read_is_first_again_and_has_its_attempt_back():
    parts = Parts()
    slot = parts.worker(State.BUSY, 1)
    parts.add_task(2, queued=True)
    parts.tasks().requeue(slot, 1.0)
    assert (list(parts.queue), parts.state.tasks[1].attempt, slot.task) == ([1, 2], 0, None)


def test_one_whose_deadline_has_passed_meanwhile_expires():
    parts = Parts(deadline=5.0)
    slot = parts.worker(State.BUSY, 1)
    parts.tasks().requeue(slot, 5.0)
    assert parts.actions() == [do.Expire(1)]


def test_of_a_pool_that_is_killed_nothing_is_queued_again():
    parts = Parts()
    slot = parts.worker(State.BUSY, 1)
    parts.state.killing = True
    parts.tasks().requeue(slot, 1.0)
    assert (list(parts.queue), slot.task) == ([], 1)


def test_a_deadline_concerns_only_tasks_that_wait():
    parts = Parts(deadline=5.0)
    parts.worker(State.BUSY, 1)
    parts.add_task(2, queued=True)
    tasks = parts.tasks()
    tasks.on_deadline(1, 5.0)
    tasks.on_deadline(2, 4.9)
    assert parts.actions() == []
    tasks.on_deadline(2, 5.0)
    assert parts.actions() == [do.Expire(2)]


def test_what_is_detached_from_a_worker_has_no_timers_any_more():
    parts = Parts()
    slot = parts.worker(State.BUSY, 1)
    parts.timers.set((Timer.TIMEOUT, 1), 5.0)
    tasks = parts.tasks()
    assert (tasks.detach(slot), tasks.detach(slot)) == (1, None)
    assert parts.timers.next() is None


@pytest.mark.parametrize(
    ("options", "cause", "again"),
    [
        ({"retries": 1}, Cause.CRASH, True),
        ({"retries": 0}, Cause.CRASH, False),
        ({"retries": 1}, Cause.TIMEOUT, False),
        ({"retries": 1, "retry_on": TaskTimeout}, Cause.TIMEOUT, True),
        ({"retries": 1, "poison_after": 1}, Cause.CRASH, False),
    ],
)
def test_a_lost_attempt_is_followed_by_another_if_the_policy_says_so(options, cause, again):
    parts = Parts(**options)
    parts.worker(State.BUSY, 1)
    parts.tasks().attempt_lost(1, cause, 1.0)
    assert parts.actions() == [do.Retry(1, 2, 0.1) if again else do.Fail(1, cause)]
    assert ((Timer.RETRY, 1) in parts.timers) is again


@pytest.mark.parametrize("why", ["killing", "broken", "kill_requested"])
def test_no_attempt_follows_where_nobody_wants_it(why):
    parts = Parts(retries=5)
    task = parts.add_task(1)
    tasks = parts.tasks()
    assert tasks.may_retry(task)
    setattr(task if why == "kill_requested" else parts.state, why, True)
    assert not tasks.may_retry(task)


def test_after_the_pause_a_task_waits_behind_the_others():
    parts = Parts(retries=1)
    parts.add_task(1)
    parts.state.delayed.add(1, 0)
    parts.add_task(2, queued=True)
    parts.tasks().on_retry_due(1, 2.0)
    assert list(parts.queue) == [2, 1]
