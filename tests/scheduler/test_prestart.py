"""Workers that are wanted before there are tasks."""

from __future__ import annotations

from pidfdpool.scheduler import actions as do
from pidfdpool.scheduler import events as ev
from pidfdpool.scheduler.machine import Machine
from pidfdpool.scheduler.policy import Policy
from tests.scheduler.driving import ENDED, KILLED, get_ready, only, started


def prestarted(count: int, workers: int = 4, **policy) -> Machine:
    """Return a machine whose template came up after so many workers were asked for, all of which are ready at 0.0."""
    machine = Machine(Policy(max_workers=workers, **policy))
    assert machine.decide(ev.PrestartRequested(count), 0.0) == [do.StartTemplate()]
    spawned = machine.decide(ev.TemplateUp(), 0.0)
    assert spawned == [do.Spawn(index, index + 1) for index in range(min(count, workers))]
    for action in spawned:
        assert get_ready(machine, action.slot, action.generation, 0.0) == []
    return machine


def test_as_many_start_at_once_as_were_asked_for():
    machine = prestarted(3)
    assert (machine.level, machine.restarts, machine.deadline()) == (3, 0, None)
    assert machine.decide(ev.Submitted(1), 1.0) == [do.Send(2, 3, 1)]


def test_there_are_never_more_than_the_pool_may_have():
    assert len(prestarted(9, workers=2).slots) == 2


def test_to_ask_again_or_for_fewer_changes_nothing():
    machine = prestarted(3)
    assert machine.decide(ev.PrestartRequested(3), 1.0) == []
    assert machine.decide(ev.PrestartRequested(1), 1.0) == []
    assert machine.decide(ev.PrestartRequested(4), 1.0) == [do.Spawn(3, 4)]


def test_those_that_are_there_already_count():
    machine = started(3, ready=1)
    assert machine.decide(ev.PrestartRequested(3), 1.0) == [do.Spawn(1, 2), do.Spawn(2, 3)]


def test_one_that_dies_is_replaced():
    machine = prestarted(2)
    assert only(machine.decide(ev.Died(0, 1, KILLED), 5.0), do.Spawn) == [do.Spawn(0, 3)]
    assert machine.restarts == 1


def test_they_leave_when_they_idle_too_long_and_do_not_come_back():
    machine = prestarted(2, idle_timeout=10.0)
    assert only(machine.decide(ev.Tick(), 10.0), do.Stop) == [do.Stop(0, 1), do.Stop(1, 2)]
    assert only(machine.decide(ev.Died(0, 1, ENDED), 10.0), do.Spawn) == []
    assert only(machine.decide(ev.Died(1, 2, ENDED), 10.0), do.Spawn) == []
    assert machine.level == 0


def test_a_pool_that_shrinks_in_between_starts_no_more_than_it_may_have():
    machine = Machine(Policy(max_workers=4))
    machine.decide(ev.PrestartRequested(4), 0.0)
    machine.decide(ev.ResizeRequested(2), 0.0)
    assert machine.decide(ev.TemplateUp(), 0.0) == [do.Spawn(0, 1), do.Spawn(1, 2)]
    assert machine.decide(ev.ResizeRequested(4), 1.0) == []


def test_a_template_that_is_lost_first_is_started_again_for_them():
    machine = Machine(Policy(max_workers=2))
    machine.decide(ev.PrestartRequested(2), 0.0)
    machine.decide(ev.TemplateLost("no processes"), 0.0)
    assert machine.decide(ev.Tick(), machine.deadline()) == [do.StartTemplate()]
    assert len(only(machine.decide(ev.TemplateUp(), 1.0), do.Spawn)) == 2


def test_a_pool_that_shuts_down_starts_none():
    machine = Machine(Policy(max_workers=2))
    machine.decide(ev.PrestartRequested(2), 0.0)
    machine.decide(ev.ShutdownRequested(), 0.0)
    assert only(machine.decide(ev.TemplateUp(), 0.0), do.Spawn) == []
