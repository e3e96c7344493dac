"""The ways of one task, decided alone: how it comes in, where it waits, and what is left of it afterwards."""

from __future__ import annotations

import pytest

from pidfdpool.deaths import Cause
from pidfdpool.scheduler import actions as do
from pidfdpool.scheduler import events as ev
from pidfdpool.scheduler.states import Phase, State
from pidfdpool.scheduler.tasks import SLICE
from pidfdpool.scheduler.timers import Timer
from tests.scheduler.parts import Parts

# ---- coming in -------------------------------------------------------------------------------------------------


def test_a_task_brings_its_policy_its_size_and_the_moment_from_which_it_waits():
    parts = Parts()
    policy = parts.policy.refined({"deadline": 5.0, "priority": 3})
    tasks = parts.tasks()
    tasks.on_submitted(ev.Submitted(1, policy, heavy=True, calls=7, since=1.0), 4.0)
    task = parts.state.tasks[1]
    assert (task.policy, task.heavy, task.calls, task.start_by) == (policy, True, 7, 6.0)
    assert (task.attempt, task.deaths, task.begun, task.kill_requested) == (0, 0, False, False)
    assert parts.queue.priority_of == {1: 3}
    assert parts.timers.next() == 6.0
    tasks.on_submitted(ev.Submitted(2, policy, since=0.0), 4.0)
    assert parts.state.tasks[2].start_by == 5.0, "the beginning of the clock is a moment, too"


def test_a_task_without_a_deadline_waits_for_no_moment():
    parts = Parts()
    parts.tasks().on_submitted(ev.Submitted(1), 1.0)
    assert (parts.state.tasks[1].start_by, parts.timers.next()) == (None, None)


@pytest.mark.parametrize(
    ("phase", "follows", "accepted"),
    [
        (Phase.OPEN, False, True),
        (Phase.OPEN, True, True),
        (Phase.DRAINING, True, True),
        (Phase.DRAINING, False, False),
        (Phase.CLOSING, True, False),
        (Phase.CLOSED, True, False),
    ],
)
def test_a_pool_that_drains_accepts_only_what_follows_from_accepted_tasks(phase, follows, accepted):
    parts = Parts()
    parts.state.phase = phase
    parts.tasks().on_submitted(ev.Submitted(1, follows=follows), 1.0)
    assert list(parts.state.tasks) == list(parts.queue) == ([1] if accepted else [])
    assert parts.actions() == ([] if accepted else [do.FailBroken(1, "the pool is shut down")])


@pytest.mark.parametrize("why", ["cancelling", "killing"])
@pytest.mark.parametrize("attempts", [0, 2])
def test_what_follows_while_all_is_cancelled_is_cancelled_or_fails_if_it_had_begun(why, attempts):
    parts = Parts()
    parts.state.phase = Phase.DRAINING
    tasks = parts.tasks()
    setattr(tasks if why == "cancelling" else parts.state, why, True)
    tasks.on_submitted(ev.Submitted(1, follows=True, attempts=attempts), 1.0)
    assert parts.actions() == [do.Fail(1, Cause.SHUTDOWN) if attempts else do.Cancel(1)]
    assert not parts.state.tasks
    assert not parts.queue
    assert parts.timers.next() is None


def test_a_task_that_had_attempts_as_a_part_of_another_goes_on_with_the_next():
    parts = Parts(retries=5, retry_backoff=1.0, poison_after=4)
    tasks = parts.tasks()
    tasks.on_submitted(ev.Submitted(1, attempts=2, deaths=3), 10.0)
    task = parts.state.tasks[1]
    assert (task.attempt, task.deaths, task.begun) == (2, 3, True)
    assert parts.actions() == [do.Retry(1, 3, 2.0)]
    assert (list(parts.queue), list(parts.state.delayed), parts.timers.next()) == ([], [1], 12.0)
    tasks.on_retry_due(1, 12.0)
    assert list(parts.queue) == [1]
    parts.state.running[1] = 0
    parts.queue.pop()
    tasks.attempt_lost(1, Cause.CRASH, 13.0)
    assert parts.actions() == [do.Fail(1, Cause.CRASH)], "a fourth worker has died of it"


@pytest.mark.parametrize(("priority", "asked"), [(0, False), (1, True)])
def test_a_task_that_is_more_urgent_than_what_is_ahead_has_that_taken_back(priority, asked):
    parts = Parts()
    parts.worker(State.BUSY, 1, ahead=(2, 3))
    tasks = parts.tasks()
    tasks.on_submitted(ev.Submitted(4, parts.policy.refined({"priority": priority})), 1.0)
    assert parts.actions() == ([do.TakeBack(0, 1, 2)] if asked else [])
    parts.workforce.slots[0].recall_pending = False
    parts.add_task(5, priority=priority)
    parts.state.delayed.add(5, priority)
    tasks.on_retry_due(5, 2.0)
    assert parts.actions() == ([do.TakeBack(0, 1, 2)] if asked else []), "so does one that is tried again"
    assert parts.queue.priority_of[5] == priority


# ---- cancelling ------------------------------------------------------------------------------------------------


def test_to_cancel_what_runs_or_is_over_does_nothing():
    parts = Parts()
    parts.worker(State.BUSY, 1)
    tasks = parts.tasks()
    tasks.on_cancelled(ev.Cancelled(1), 1.0)
    tasks.on_cancelled(ev.Cancelled(99), 1.0)
    assert (parts.actions(), list(parts.state.tasks), tasks.cancelled_ahead) == ([], [1], set())


def test_a_task_that_is_cancelled_leaves_no_timer():
    parts = Parts(deadline=5.0)
    tasks = parts.tasks()
    tasks.on_submitted(ev.Submitted(1), 1.0)
    tasks.on_submitted(ev.Submitted(2), 2.0)
    tasks.on_cancelled(ev.Cancelled(1), 3.0)
    assert (list(parts.state.tasks), list(parts.queue), parts.timers.next()) == ([2], [2], 7.0)


@pytest.mark.parametrize("count", [1, SLICE])
def test_a_slice_is_cancelled_at_once_and_without_a_timer(count):
    parts = Parts()
    for number in range(count):
        parts.add_task(number, queued=True)
    tasks = parts.tasks()
    tasks.cancel_unbegun()
    tasks.cancel_in_slices(1.0)
    assert parts.actions() == [do.Cancel(number) for number in range(count)]
    assert (parts.timers.next(), len(parts.state.to_cancel), parts.state.tasks) == (None, 0, {})
    tasks.cancel_in_slices(1.0)
    assert parts.actions() == []


def test_more_than_a_slice_waits_for_the_next_tick_which_other_decisions_do_not_put_off():
    parts = Parts()
    for number in range(SLICE + 1):
        parts.add_task(number, queued=True)
    tasks = parts.tasks()
    tasks.cancel_unbegun()
    for now in (1.0, 2.0, 3.0):
        tasks.cancel_in_slices(now)
    assert parts.actions() == []
    assert 1.0 < parts.timers.next() < 1.001


def test_tasks_that_come_back_while_all_is_cancelled_wait_for_that_and_not_for_a_worker():
    parts = Parts()
    slot = parts.worker(State.BUSY, 1, ahead=(2, 3, 4))
    tasks = parts.tasks()
    tasks.on_cancelled(ev.Cancelled(3), 1.0)
    parts.actions()
    tasks.cancel_unbegun()
    tasks.requeue_ahead(slot, 2)
    assert parts.actions() == [do.Cancel(3)]
    assert (list(parts.queue), list(parts.state.to_cancel), list(slot.ahead)) == ([], [4], [2])
    assert (list(parts.state.prefetched), tasks.cancelled_ahead) == ([2], set())
    assert list(parts.state.tasks) == [1, 2, 4], "the pool would not close before all of them are gone"
    tasks.requeue_ahead(slot, 99)
    assert list(parts.state.to_cancel) == [2, 4]
    assert not parts.state.prefetched


# ---- attempts --------------------------------------------------------------------------------------------------


def test_an_attempt_that_begins_is_noted_with_the_task_and_the_worker():
    parts = Parts()
    slot = parts.worker(State.BUSY)
    slot.rebalanced = 2
    task = parts.add_task(1)
    assert parts.tasks().start(1, slot, 4.0) is task
    assert (task.attempt, task.begun) == (1, True)
    assert (slot.task, slot.busy_since, slot.rebalanced) == (1, 4.0, 0)
    assert parts.state.running == {1: 0}


def test_without_a_limit_an_attempt_is_told_until_when_it_should_have_begun_and_no_timer_runs():
    parts = Parts()
    slot = parts.worker(State.BUSY)
    parts.add_task(1, now=1.0, deadline=5.0)
    parts.tasks().start_and_send(1, slot, 2.0)
    assert parts.actions() == [do.Send(0, 1, 1, attempt=1, deadline=6.0)]
    assert parts.timers.next() is None


@pytest.mark.parametrize("deadline", [2.5, 90.0])
def test_an_attempt_with_a_timeout_is_told_the_end_of_that_whenever_it_should_have_begun(deadline):
    parts = Parts()
    slot = parts.worker(State.BUSY)
    parts.add_task(1, deadline=deadline, timeout=9.0)
    parts.tasks().start_and_send(1, slot, 2.0)
    assert parts.actions() == [do.Send(0, 1, 1, attempt=1, deadline=11.0)]
    assert parts.timers.pop_due(11.0) == (Timer.TIMEOUT, 1)


@pytest.mark.parametrize(("calls", "allowed"), [(0, 0), (50, 7)])
def test_of_a_chunk_no_more_calls_are_allowed_than_the_worker_has_left(calls, allowed):
    parts = Parts(max_tasks_per_child=10)
    slot = parts.worker(State.BUSY)
    slot.tasks_done = 3
    parts.add_task(1).calls = calls
    parts.tasks().start_and_send(1, slot, 2.0)
    assert parts.actions() == [do.Send(0, 1, 1, attempt=1, allowed=allowed)]


def test_of_a_chunk_all_calls_are_allowed_where_workers_are_not_limited():
    parts = Parts()
    parts.add_task(1).calls = 50
    parts.tasks().start_and_send(1, parts.worker(State.BUSY), 2.0)
    assert parts.actions() == [do.Send(0, 1, 1, attempt=1)]


def test_a_deadline_is_over_for_a_task_that_had_an_attempt():
    parts = Parts(deadline=5.0)
    task, tasks = parts.add_task(1), parts.tasks()
    assert [tasks.is_too_late(task, now) for now in (4.9, 5.0, 6.0)] == [False, True, True]
    task.attempt = 1
    assert not tasks.is_too_late(task, 6.0)
    assert not tasks.is_too_late(Parts().add_task(1), 1e9)


@pytest.mark.parametrize("where", ["queue", "to_cancel", "delayed", "nowhere"])
def test_a_task_that_is_forgotten_is_nowhere_and_waited_for_by_nobody(where):
    parts = Parts(deadline=5.0, retries=1)
    parts.add_task(1).attempt = 1
    parts.add_task(2)
    if where != "nowhere":
        waiting = parts.queue if where == "queue" else getattr(parts.state, where)
        waiting.add(1, 0)
        waiting.add(2, 0)
    for timer in (Timer.DEADLINE, Timer.RETRY):
        for number in (1, 2):
            parts.timers.set((timer, number), 5.0)
    parts.tasks().forget(1)
    for waiting in (parts.queue, parts.state.to_cancel, parts.state.delayed):
        assert 1 not in waiting
    assert list(parts.state.tasks) == [2]
    assert [key in parts.timers for key in ((Timer.DEADLINE, 1), (Timer.RETRY, 1))] == [False, False]
    assert (Timer.DEADLINE, 2) in parts.timers


def test_a_task_that_never_ran_there_keeps_its_other_attempts():
    parts = Parts(deadline=5.0, retries=3)
    slot = parts.worker(State.BUSY, 1)
    parts.state.tasks[1].attempt = 2
    parts.tasks().requeue(slot, 9.0)
    assert (parts.state.tasks[1].attempt, list(parts.queue), slot.task) == (1, [1], None)
    assert (parts.state.running, parts.actions()) == ({}, [])
    parts.tasks().requeue(slot, 9.0)
    assert list(parts.queue) == [1]


def test_every_lost_worker_and_every_further_attempt_is_counted():
    parts = Parts(retries=2, retry_backoff=0.0, poison_after=3)
    parts.worker(State.BUSY, 1)
    tasks = parts.tasks()
    task = parts.state.tasks[1]
    for attempt in (1, 2):
        tasks.attempt_lost(1, Cause.CRASH, 1.0)
        assert parts.actions() == [do.Retry(1, attempt + 1, 0.0)]
        assert (task.deaths, parts.state.retries, list(parts.queue)) == (attempt, attempt, [1])
        assert parts.timers.next() is None
        parts.queue.pop()
        task.attempt += 1
    tasks.attempt_lost(1, Cause.CRASH, 1.0)
    assert (parts.actions(), parts.state.tasks, parts.state.retries) == ([do.Fail(1, Cause.CRASH)], {}, 2)


@pytest.mark.parametrize(("attempt", "more"), [(1, True), (2, True), (3, False)])
def test_as_many_attempts_follow_as_the_policy_grants(attempt, more):
    parts = Parts(retries=2)
    task = parts.add_task(1)
    task.attempt = attempt
    assert parts.tasks().may_retry(task) == more


def test_a_timer_of_a_task_that_no_longer_waits_for_its_next_attempt_does_nothing():
    parts = Parts()
    parts.add_task(1, queued=True)
    parts.tasks().on_retry_due(1, 1.0)
    parts.tasks().on_retry_due(99, 1.0)
    assert (list(parts.queue), parts.actions()) == ([1], [])


def test_the_task_that_is_detached_no_longer_runs():
    parts = Parts()
    slot, other = parts.worker(State.BUSY, 1), parts.worker(State.BUSY, 2)
    tasks = parts.tasks()
    assert tasks.detach(slot) == 1
    assert (slot.task, other.task, parts.state.running) == (None, 2, {2: 1})
    del parts.state.running[2]
    parts.timers.set((Timer.TIMEOUT, other.generation), 5.0)
    assert tasks.detach(other) is None, "its outcome does not matter any more"
    assert other.task is None
