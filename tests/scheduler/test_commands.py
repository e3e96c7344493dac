"""What workers and the template are told, and what is expected of them, alone."""

from __future__ import annotations

import pytest

from pidfdpool.deaths import Cause
from pidfdpool.scheduler import actions as do
from pidfdpool.scheduler.states import State, Template
from pidfdpool.scheduler.timers import Timer
from tests.scheduler.parts import Parts


def test_a_worker_that_is_told_to_stop_is_expected_to_leave_within_its_grace():
    parts = Parts(stop_grace=4.0)
    slot = parts.worker()
    parts.commands.stop(slot, 1.0, Cause.IDLE)
    assert parts.actions() == [do.Stop(0, 1)]
    assert (slot.state, slot.cause) == (State.STOPPING, Cause.IDLE)
    assert parts.timers.pop_due(5.0) == (Timer.STOP, 1)


def test_the_first_cause_counts():
    parts = Parts()
    slot = parts.worker()
    slot.cause = Cause.AGE
    parts.commands.stop(slot, 1.0, Cause.IDLE)
    parts.commands.kill_for_violation(slot)
    assert slot.cause is Cause.AGE


def test_a_worker_that_is_replaced_waits_for_that_unless_it_is_to_leave_at_once():
    parts = Parts()
    waits, leaves = parts.worker(), parts.worker()
    parts.commands.retire(waits, Cause.AGE, 1.0)
    parts.commands.retire(leaves, Cause.UNHEALTHY, 1.0, at_once=True)
    assert parts.actions() == [do.Stop(1, 2)]
    assert (parts.workforce.retiring, parts.workforce.active) == ([waits], 0)
    parts.commands.retire_first(2.0)
    assert parts.actions() == [do.Stop(0, 1)]


def test_a_busy_worker_that_is_to_leave_gives_back_what_is_ahead():
    parts = Parts()
    slot = parts.worker(State.BUSY, 1, ahead=(2, 3))
    parts.commands.retire(slot, Cause.UNHEALTHY, 1.0, at_once=True)
    assert (parts.actions(), slot.state, slot.leaving) == ([do.TakeBack(0, 1, 2)], State.BUSY, True)


@pytest.mark.parametrize("state", [State.STOPPING, State.DEAD])
def test_a_worker_that_leaves_anyway_is_not_replaced(state):
    parts = Parts()
    slot = parts.worker()
    parts.workforce.move(slot, state)
    parts.commands.retire(slot, Cause.AGE, 1.0)
    assert (slot.retire_cause, parts.workforce.retiring) == (None, [])


def test_tasks_are_asked_back_once_at_a_time_and_only_if_there_are_some():
    parts = Parts()
    full, empty = parts.worker(State.BUSY, 1, ahead=(2, 3)), parts.worker(State.BUSY, 4)
    parts.commands.recall_all()
    assert parts.actions() == [do.TakeBack(full.index, full.generation, 2)]
    parts.commands.recall_all()
    parts.commands.recall(empty)
    assert parts.actions() == []
    full.recall_pending = False
    parts.commands.recall(full, 1)
    assert parts.actions() == [do.TakeBack(full.index, full.generation, 1)]


def test_a_template_that_is_told_to_stop_is_expected_to_leave_within_the_grace():
    parts = Parts(stop_grace=4.0)
    parts.state.template = Template.UP
    parts.commands.stop_template(1.0)
    assert (parts.actions(), parts.state.template) == ([do.StopTemplate()], Template.STOPPING)
    assert parts.timers.next() == 5.0
