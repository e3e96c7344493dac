"""Workers that end because of their task, decided alone."""

from __future__ import annotations

import pytest

from pidfdpool.deaths import Cause
from pidfdpool.scheduler import actions as do
from pidfdpool.scheduler import events as ev
from pidfdpool.scheduler.limits import BY_TASK, GIVE_UP_AFTER, cause_for_task
from pidfdpool.scheduler.states import State
from pidfdpool.scheduler.timers import Timer
from tests.scheduler.parts import Parts


def test_a_timeout_sends_sigterm_and_sigkill_after_the_grace():
    parts = Parts(grace=1.0)
    slot = parts.worker(State.BUSY, 1)
    limits = parts.limits()
    limits.on_timeout(slot, 5.0)
    assert (parts.actions(), slot.cause, slot.leaving) == ([do.Signal(0, 1, 15)], Cause.TIMEOUT, True)
    assert parts.timers.pop_due(6.0) == (Timer.STACK, 1)
    assert parts.timers.pop_due(6.0) == (Timer.KILL, 1)
    limits.kill(slot, 6.0)
    assert (parts.actions(), parts.timers.next()) == ([do.Signal(0, 1, 9)], 6.0 + GIVE_UP_AFTER)


def test_a_worker_that_ends_for_another_reason_is_not_terminated_gently():
    parts = Parts()
    slot = parts.worker(State.BUSY, 1)
    slot.cause = Cause.BABBLE
    parts.limits().on_timeout(slot, 5.0)
    assert (parts.actions(), slot.cause) == ([], Cause.BABBLE)


@pytest.mark.parametrize(("at", "signalled"), [(None, True), (1.0, True), (4.5, False)])
def test_a_heartbeat_is_lost_or_the_next_one_is_waited_for(at, signalled):
    parts = Parts(heartbeat_timeout=3.0)
    slot = parts.worker(State.BUSY, 1)
    slot.busy_since = 2.0
    parts.limits().on_last_heartbeat(slot, ev.LastHeartbeat(0, 1, at), 5.0)
    assert parts.actions() == ([do.Signal(0, 1, 15)] if signalled else [])
    assert ((Timer.HEARTBEAT, 1) in parts.timers) is not signalled


def test_memory_is_measured_while_workers_are_busy():
    parts = Parts(hard_memory_per_child=1000, memory_interval=0.5)
    slot = parts.worker(State.BUSY, 1)
    limits = parts.limits()
    limits.watch_memory(1.0)
    limits.watch_memory(1.4)
    assert parts.timers.pop_due(1.5) == (Timer.MEMORY, 0)
    limits.on_memory_due(0, 1.5)
    assert (parts.actions(), parts.timers.next()) == ([do.CheckMemory(0, 1)], 2.0)
    limits.on_memory_measured(slot, ev.MemoryMeasured(0, 1, 1000), 1.5)
    assert parts.actions() == []
    limits.on_memory_measured(slot, ev.MemoryMeasured(0, 1, 1001), 1.5)
    assert (parts.actions(), slot.cause) == ([do.Signal(0, 1, 9)], Cause.MEMORY)


def test_a_kill_waits_until_nothing_else_can_be_hit():
    parts = Parts()
    slot = parts.worker(State.BUSY, 1, ahead=(2,))
    limits = parts.limits()
    limits.on_task_kill_requested(ev.TaskKillRequested(1), 1.0)
    assert parts.actions() == [do.TakeBack(0, 1, 1)]
    slot.ahead.clear()  # it was taken back
    limits.kill_if_alone(slot, 1.0)
    assert (parts.actions(), slot.cause) == ([do.Signal(0, 1, 9)], Cause.KILL)


def test_a_kill_of_a_task_whose_follower_has_begun_comes_too_late():
    parts = Parts()
    slot = parts.worker(State.BUSY, 1, ahead=(2,))
    limits = parts.limits()
    limits.request_kill(1, slot, 1.0)
    parts.actions()
    limits.kill_if_alone(slot, 1.0)
    assert (parts.actions(), slot.cause) == ([], None)


def test_a_task_that_waits_is_failed_without_a_signal():
    parts = Parts()
    parts.add_task(1, queued=True)
    limits = parts.limits()
    limits.on_task_kill_requested(ev.TaskKillRequested(1), 1.0)
    limits.on_task_kill_requested(ev.TaskKillRequested(99), 1.0)
    assert (parts.actions(), list(parts.queue)) == ([do.Fail(1, Cause.KILL)], [])


def test_the_callers_word_comes_before_a_timeout():
    parts = Parts()
    slot = parts.worker(State.BUSY, 1)
    limits = parts.limits()
    limits.on_timeout(slot, 5.0)
    limits.request_kill(1, slot, 5.1)
    assert slot.cause is Cause.KILL


def test_a_task_whose_worker_does_not_end_is_told():
    parts = Parts()
    slot = parts.worker(State.BUSY, 1)
    slot.cause = Cause.MEMORY
    parts.limits().on_give_up(slot, 5.0)
    assert (parts.actions(), slot.state) == ([do.Fail(1, Cause.MEMORY)], State.STOPPING)


def test_what_a_task_has_no_part_in_is_a_crash_to_it():
    assert {cause for cause in Cause if cause_for_task(cause) is cause} == {*BY_TASK, Cause.CRASH}
    assert cause_for_task(None) is Cause.CRASH
