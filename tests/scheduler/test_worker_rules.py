"""What happens to one worker, decided alone: nothing brings the pool forward after an event."""

from __future__ import annotations

import pytest

from pidfdpool.deaths import Cause
from pidfdpool.pidfd import ExitStatus
from pidfdpool.scheduler import actions as do
from pidfdpool.scheduler import events as ev
from pidfdpool.scheduler.states import Phase, State, Template
from pidfdpool.scheduler.timers import Timer
from tests.scheduler.driving import KILLED
from tests.scheduler.parts import Parts


def test_a_worker_that_is_ready_is_idle_and_ages_from_then_on():
    parts = Parts(max_age=10.0, idle_timeout=5.0)
    slot = parts.worker(State.STARTING)
    parts.worker_rules().on_ready(slot, ev.Ready(0, 1), 1.0)
    assert (slot.state, slot.ready_at, parts.workforce.idle) == (State.IDLE, 1.0, [0])
    assert [parts.timers.pop_due(99.0), parts.timers.pop_due(99.0)] == [(Timer.IDLE, 1), (Timer.AGE, 1)]


def test_queued_tasks_go_to_idle_workers_as_long_as_more_may_run():
    parts = Parts(2)
    parts.worker(State.BUSY, 0)
    parts.worker()
    parts.worker()
    for number in (1, 2):
        parts.add_task(number, queued=True)
    parts.worker_rules().hand_out(1.0)
    assert (parts.actions(), list(parts.queue)) == ([do.Send(2, 3, 1)], [2])


def test_the_last_task_of_a_worker_has_it_replaced():
    parts = Parts(2, max_tasks_per_child=1)
    slot = parts.worker()
    parts.add_task(1, queued=True)
    parts.worker_rules().hand_out(1.0)
    assert (slot.retire_cause, slot.leaving, parts.workforce.active) == (Cause.TASKS, True, 0)


def test_a_finished_task_is_delivered_and_the_next_one_ahead_begins():
    parts = Parts()
    slot = parts.worker(State.BUSY, 1, ahead=(2,))
    rules = parts.worker_rules()
    rules.on_finished(slot, ev.Finished(0, 1, 1), 1.0)
    assert parts.actions() == [do.Deliver(1), do.MarkBegun(0, 1, 2)]
    rules.on_finished(slot, ev.Finished(0, 1, 2), 1.0)
    assert (parts.actions(), slot.state, slot.tasks_done) == ([do.Deliver(2)], State.IDLE, 2)


def test_the_outcome_of_another_task_is_a_violation():
    parts = Parts()
    slot = parts.worker(State.BUSY, 1)
    parts.worker_rules().on_finished(slot, ev.Finished(0, 1, 7), 1.0)
    assert (parts.actions(), slot.cause) == ([do.Signal(0, 1, 9)], Cause.BABBLE)


def test_what_was_taken_back_is_first_in_the_queue_and_the_worker_gets_nothing_until_it_has_dropped_it():
    parts = Parts()
    slot = parts.worker(State.BUSY, None, ahead=(2, 3))
    rules = parts.worker_rules()
    rules.on_taken_back(slot, ev.TakenBack(0, 1, 2), 1.0)
    assert (list(parts.queue), slot.to_drop) == ([2, 3], 2)
    rules.on_dropped(slot, ev.Dropped(0, 1, 1), 1.0)
    assert slot.state is State.BUSY
    rules.on_dropped(slot, ev.Dropped(0, 1, 1), 1.0)
    assert slot.state is State.IDLE


def test_to_drop_what_nobody_took_back_is_a_violation():
    parts = Parts()
    slot = parts.worker(State.BUSY, 1)
    parts.worker_rules().on_dropped(slot, ev.Dropped(0, 1, 1), 1.0)
    assert parts.actions() == [do.Signal(0, 1, 9)]


def test_a_death_loses_the_running_task_and_none_that_had_not_begun():
    parts = Parts()
    slot = parts.worker(State.BUSY, 1, ahead=(2, 3))
    parts.worker_rules().on_died(slot, ev.Died(0, 1, KILLED, unbegun=2), 5.0)
    report, fail = parts.actions()
    assert (report.task, report.cause, report.uptime) == (1, Cause.CRASH, 5.0)
    assert fail == do.Fail(1, Cause.CRASH)
    assert (list(parts.queue), slot.state, parts.workforce.alive) == ([2, 3], State.DEAD, 0)


def test_a_task_ahead_of_which_nothing_is_known_may_have_run_and_is_failed():
    parts = Parts()
    slot = parts.worker(State.BUSY, 1, ahead=(2, 3))
    parts.worker_rules().on_died(slot, ev.Died(0, 1, KILLED, unbegun=1), 5.0)
    assert parts.actions()[1:] == [do.Fail(1, Cause.CRASH), do.Fail(2, Cause.CRASH)]
    assert list(parts.queue) == [3]


@pytest.mark.parametrize("intensity", [0, 1])
def test_a_worker_that_died_young_delays_the_next_or_breaks_the_pool(intensity):
    parts = Parts(intensity=intensity, backoff=0.5)
    slot = parts.worker()
    parts.worker_rules().on_died(slot, ev.Died(0, 1, ExitStatus(code=3)), 0.5)
    assert parts.limiter.not_before == 1.0
    assert (parts.state.phase is Phase.CLOSING) is (intensity == 0)


def test_a_fork_that_fails_frees_the_slot_and_lets_one_go_that_waits_for_its_replacement():
    parts = Parts()
    waits = parts.worker()
    parts.commands.retire(waits, Cause.AGE, 1.0)
    unborn = parts.workforce.occupy(1.0)
    parts.worker_rules().on_spawn_failed(unborn, ev.SpawnFailed(1, 2, "no more processes"), 1.0)
    assert (unborn.state, parts.actions()) == (State.DEAD, [do.Stop(0, 1)])


def test_a_template_that_does_not_fork_is_killed_once():
    parts = Parts()
    parts.state.template = Template.UP
    rules = parts.worker_rules()
    for _ in range(2):
        rules.on_fork_overdue(parts.worker(State.STARTING), 5.0)
    assert (parts.actions(), parts.state.template) == ([do.KillTemplate()], Template.STUCK)


def test_an_idle_worker_is_ended_unless_it_is_to_be_kept():
    parts = Parts(min_workers=1)
    slots = [parts.worker(), parts.worker()]
    parts.state.level = 2
    rules = parts.worker_rules()
    for slot in slots:
        rules.on_idle_too_long(slot, 5.0)
    assert (parts.actions(), parts.state.level) == ([do.Stop(0, 1)], 1)
