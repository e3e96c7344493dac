"""A worker that lacks what its next task needs of the script: it leaves, and nothing that it held is lost."""

from __future__ import annotations

import pytest

from pidfdpool.deaths import Cause
from pidfdpool.scheduler import actions as do
from pidfdpool.scheduler import events as ev
from pidfdpool.scheduler.states import State
from tests.scheduler.driving import ENDED, KILL, KILLED, begun, get_ready, only, started


def with_three():
    """Return a machine whose one worker has task 1, and tasks 2 and 3 ahead; task 4 waits."""
    machine = started(1)
    machine.decide(ev.Submitted(1), 1.0)
    slot = machine.slots[0]
    for task in (2, 3, 4):
        machine.decide(ev.Submitted(task), 1.0)
    slot.ahead.extend(machine.queue.pop() for _ in range(2))
    machine.prefetched.update(dict.fromkeys(slot.ahead, slot.index))
    return machine


def test_its_task_is_the_first_of_the_queue_again_and_a_new_worker_is_asked_for():
    machine = begun()
    machine.decide(ev.Submitted(2), 1.0)
    assert machine.decide(ev.Outdated(0, 1), 2.0) == [do.Spawn(1, 2)]
    assert machine.slots[0].state is State.STOPPING
    assert list(machine.queue) == [1, 2]
    assert only(get_ready(machine, 1, 2, 3.0), do.Send) == [do.Send(1, 2, 1)], "and this is its first attempt"


def test_all_that_it_held_comes_back_in_order():
    """Guards: what was ahead came back when the worker had died, and so before the task that it was behind."""
    machine = with_three()
    machine.decide(ev.Outdated(0, 1), 2.0)
    assert list(machine.queue) == [1, 2, 3, 4]
    assert not machine.prefetched
    machine.decide(ev.Died(0, 1, ENDED, unbegun=3), 2.1)
    assert list(machine.queue) == [1, 2, 3, 4]


def test_its_death_is_ordinary():
    machine = begun()
    machine.decide(ev.Outdated(0, 1), 2.0)
    (report,) = only(machine.decide(ev.Died(0, 1, ENDED, unbegun=1), 2.1), do.ReportDeath)
    assert (report.cause, report.task, report.cause.ordinary) == (Cause.SCRIPT, None, True)


def test_a_young_one_is_no_young_death():
    machine = started(1, intensity=1)
    for generation in range(1, 20):
        machine.decide(ev.Submitted(generation), 0.0)
        slot = next(slot for slot in machine.slots if slot.generation == generation)
        machine.decide(ev.Outdated(slot.index, generation), 0.0)
        machine.decide(ev.Died(slot.index, generation, ENDED, unbegun=1), 0.0)
        slot = next(slot for slot in machine.slots if slot.generation == generation + 1)
        get_ready(machine, slot.index, generation + 1, 0.0)
    assert not machine.broken


def test_one_that_does_not_leave_is_killed_after_the_grace():
    machine = begun(stop_grace=10.0)
    machine.decide(ev.Outdated(0, 1), 2.0)
    assert do.Signal(0, 1, KILL) in machine.decide(ev.Tick(), 12.0)


@pytest.mark.parametrize("limit", ["timeout", "heartbeat_timeout"])
def test_no_clock_of_its_task_goes_on(limit):
    machine = begun(**{limit: 5.0})
    machine.decide(ev.Outdated(0, 1), 2.0)
    get_ready(machine, 1, 2, 6.0)
    assert not only(machine.decide(ev.Tick(), 7.5), do.Signal), "its time begins when it is sent anew"


def test_a_task_that_was_to_be_killed_is_not_sent_again():
    """Guards: the worker had said so before it was killed, and the task went to another one."""
    machine = begun()
    assert do.Signal(0, 1, KILL) in machine.decide(ev.TaskKillRequested(1), 1.5)
    machine.decide(ev.Outdated(0, 1), 2.0)
    assert list(machine.queue) == []
    assert do.Fail(1, Cause.KILL) in machine.decide(ev.Died(0, 1, KILLED, unbegun=1), 2.1)


def test_an_attempt_that_has_run_out_of_time_is_over():
    machine = begun(timeout=5.0)
    machine.decide(ev.Tick(), 6.0)
    machine.decide(ev.Outdated(0, 1), 6.1)
    assert do.Fail(1, Cause.TIMEOUT) in machine.decide(ev.Died(0, 1, ENDED, unbegun=1), 6.2)


def test_an_idle_one_leaves_as_well():
    """Its task was taken back in the meantime."""
    machine = started(1)
    machine.decide(ev.Outdated(0, 1), 1.0)
    assert machine.slots[0].state is State.STOPPING
    assert machine.decide(ev.Died(0, 1, ENDED), 1.1)[0].cause is Cause.SCRIPT
    machine.decide(ev.Submitted(1), 2.0)
    assert not machine.broken
