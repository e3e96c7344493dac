"""The rules one by one, with a clock of the test's own; and the table in the documentation."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pidfdpool import events as ev
from pidfdpool.machine import Machine
from pidfdpool.pidfd import ExitStatus
from pidfdpool.policy import Policy
from pidfdpool.rules import RULES, Phase, State, Template, render_rules

KILLED = ExitStatus(signal=9)
ENDED = ExitStatus(code=0)


def started(workers: int = 1, ready: int | None = None, **policy) -> Machine:
    """Return a machine with a template and idle workers in its first slots."""
    machine = Machine(Policy(max_workers=workers, **policy))
    ready = workers if ready is None else ready
    for task in range(1, ready + 1):
        machine.decide(ev.Submitted(-task), 0.0)
    machine.decide(ev.TemplateUp(), 0.0)
    for slot in machine.slots[:ready]:
        machine.decide(ev.Spawned(slot.index, slot.generation, 100 + slot.index), 0.0)
        machine.decide(ev.Ready(slot.index, slot.generation), 0.0)
    for slot in machine.slots[:ready]:
        machine.decide(ev.Finished(slot.index, slot.generation, slot.task), 0.0)
    return machine


def test_the_first_task_starts_the_template_and_then_a_worker():
    machine = Machine(Policy(max_workers=4))
    assert machine.decide(ev.Submitted(1), 0.0) == [ev.StartTemplate()]
    assert machine.decide(ev.Submitted(2), 0.0) == []
    assert machine.decide(ev.TemplateUp(), 0.1) == [ev.Spawn(0, 1), ev.Spawn(1, 2)]
    assert machine.decide(ev.Spawned(0, 1, 77), 0.1) == []
    assert machine.decide(ev.Ready(0, 1), 0.1) == [ev.Send(0, 1, 1)]


def test_an_idle_worker_gets_the_task_at_once_and_the_warmest_one_first():
    machine = started(2)
    assert machine.decide(ev.Submitted(1), 1.0) == [ev.Send(1, 2, 1)]
    assert machine.decide(ev.Finished(1, 2, 1), 1.1) == [ev.Deliver(1)]
    assert machine.decide(ev.Submitted(2), 1.2) == [ev.Send(1, 2, 2)]


def test_a_death_fails_the_running_task_and_refills_at_once():
    machine = started(1)
    machine.decide(ev.Submitted(1), 5.0)
    actions = machine.decide(ev.Died(0, 1, KILLED), 6.0)
    assert actions == [ev.FailCrashed(1, 0, 1, 100, KILLED, 6.0, 1), ev.Spawn(0, 2)]


def test_an_unread_task_goes_back_to_the_head_of_the_queue():
    machine = started(1)
    machine.decide(ev.Submitted(1), 5.0)
    machine.decide(ev.Submitted(2), 5.0)
    assert machine.decide(ev.Died(0, 1, KILLED, unread=True), 6.0) == [ev.Spawn(0, 2)]
    assert list(machine.queue) == [1, 2]


def test_a_worker_that_has_done_its_share_is_stopped_and_replaced():
    machine = started(1, max_tasks_per_child=2)
    machine.decide(ev.Submitted(1), 1.0)
    assert machine.decide(ev.Finished(0, 1, 1), 1.0) == [ev.Deliver(1), ev.Stop(0, 1)]
    assert machine.decide(ev.Died(0, 1, ENDED), 1.1) == [ev.Spawn(0, 2)]


def test_a_worker_that_does_not_leave_is_killed_after_the_grace():
    machine = started(1, max_tasks_per_child=1, stop_grace=10.0)
    assert machine.slots[0].state is State.STOPPING
    assert machine.deadline() == 10.0
    assert machine.decide(ev.Tick(), 9.9) == []
    assert machine.decide(ev.Tick(), 10.0) == [ev.Signal(0, 1, 9)]
    assert machine.deadline() is None


def test_young_deaths_are_answered_by_growing_pauses_and_then_by_giving_up():
    machine = Machine(Policy(max_workers=1, intensity=3, backoff=0.1, backoff_limit=0.3, period=60.0))
    machine.decide(ev.Submitted(1), 0.0)
    assert machine.decide(ev.TemplateUp(), 0.0) == [ev.Spawn(0, 1)]
    now = 0.0
    for generation, pause in ((1, 0.1), (2, 0.2), (3, 0.3)):
        machine.decide(ev.Spawned(0, generation, 100), now)
        assert machine.decide(ev.Died(0, generation, KILLED), now) == []
        assert machine.deadline() == pytest.approx(now + pause)
        now += pause
        assert machine.decide(ev.Tick(), now) == [ev.Spawn(0, generation + 1)]
    machine.decide(ev.Spawned(0, 4, 100), now)
    actions = machine.decide(ev.Died(0, 4, KILLED), now)
    assert isinstance(actions[0], ev.FailBroken)
    assert "4 processes died within 60 s" in machine.broken
    assert "killed by SIGKILL" in machine.broken
    assert actions[1:] == [ev.StopTemplate()]


def test_young_deaths_that_are_far_apart_break_nothing():
    machine = Machine(Policy(max_workers=1, intensity=1, period=10.0))
    machine.decide(ev.Submitted(1), 0.0)
    machine.decide(ev.TemplateUp(), 0.0)
    for generation in range(1, 20):
        now = generation * 100.0
        machine.decide(ev.Spawned(0, generation, 100), now)
        machine.decide(ev.Died(0, generation, KILLED), now)
        machine.decide(ev.Tick(), now + 50)
    assert machine.phase is Phase.OPEN


def test_a_finished_task_forgives_young_deaths():
    machine = started(2)
    assert machine._streak == 0
    machine.decide(ev.Died(0, 1, KILLED), 0.5)
    assert machine._streak == 0, "it had finished a task: not young"
    machine.decide(ev.Spawned(0, 3, 100), 0.5)
    machine.decide(ev.Died(0, 3, KILLED), 0.5)
    assert machine._streak == 1
    machine.decide(ev.Submitted(5), 0.6)
    machine.decide(ev.Finished(1, 2, 5), 0.7)
    assert machine._streak == 0


def test_a_fork_that_fails_breaks_nothing_while_others_work():
    machine = started(2, ready=1, intensity=0)
    machine.decide(ev.Submitted(1), 1.0)
    assert machine.decide(ev.Submitted(2), 1.0) == [ev.Spawn(1, 2)]
    assert machine.decide(ev.SpawnFailed(1, 2, "no more processes"), 1.0) == []
    assert machine.phase is Phase.OPEN
    assert machine.deadline() == pytest.approx(1.05)


def test_a_cancelled_task_leaves_the_queue_and_a_running_one_stays():
    machine = started(1)
    machine.decide(ev.Submitted(1), 1.0)
    machine.decide(ev.Submitted(2), 1.0)
    assert machine.decide(ev.Cancelled(2), 1.0) == [ev.Withdraw(2)]
    assert machine.decide(ev.Cancelled(1), 1.0) == []
    assert machine.decide(ev.Cancelled(2), 1.0) == []


def test_shutdown_finishes_the_queue_then_the_workers_then_the_template():
    machine = started(1)
    machine.decide(ev.Submitted(1), 1.0)
    machine.decide(ev.Submitted(2), 1.0)
    assert machine.decide(ev.ShutdownAsked(), 1.0) == []
    assert machine.decide(ev.Finished(0, 1, 1), 1.0) == [ev.Deliver(1), ev.Send(0, 1, 2)]
    assert machine.decide(ev.Finished(0, 1, 2), 1.0) == [ev.Deliver(2), ev.Stop(0, 1)]
    assert machine.decide(ev.Died(0, 1, ENDED), 1.0) == [ev.StopTemplate()]
    assert machine.decide(ev.TemplateLost("asked"), 1.0) == [ev.Close()]
    assert machine.phase is Phase.CLOSED


def test_shutdown_with_cancel_withdraws_the_queue():
    machine = started(1)
    for task in (1, 2, 3):
        machine.decide(ev.Submitted(task), 1.0)
    assert machine.decide(ev.ShutdownAsked(cancel=True), 1.0) == [ev.Withdraw(2), ev.Withdraw(3)]


def test_a_lost_template_is_started_again_after_a_pause():
    machine = started(1)
    assert machine.decide(ev.TemplateLost("killed"), 1.0) == []
    assert machine.decide(ev.Died(0, 1, KILLED), 1.0) == []
    assert machine.deadline() == pytest.approx(1.05)
    assert machine.decide(ev.Tick(), 1.06) == [ev.StartTemplate()]
    assert machine.template is Template.STARTING
    assert machine.decide(ev.TemplateUp(), 1.1) == [ev.Spawn(0, 2)]


def test_on_crash_break_breaks_at_the_first_death():
    machine = started(2, on_crash="break")
    machine.decide(ev.Submitted(1), 1.0)
    machine.decide(ev.Submitted(2), 1.0)
    actions = machine.decide(ev.Died(1, 2, KILLED), 2.0)
    assert isinstance(actions[0], ev.FailCrashed)
    assert actions[1:] == [ev.FailBroken(2, machine.broken), ev.Signal(0, 1, 9), ev.StopTemplate()]


def test_the_defaults_are_those_that_are_documented():
    policy = Policy(max_workers=4)
    text = Policy.__doc__
    assert policy.max_tasks_per_child is None
    assert policy.on_crash == "isolate"
    assert f"within {policy.young_age:g} s of being ready" in text
    assert policy.young_deaths_allowed == 5 + 2 * 4
    assert "5 plus twice max_workers" in text
    assert f"see intensity; {policy.period:g} s" in text
    assert f"in a row, {policy.backoff:g} s" in text
    assert f"longest such pause, {policy.backoff_limit:g} s" in text
    assert re.search(rf"has\s+{policy.stop_grace:g} s to leave", text)


def test_pauses_double_up_to_the_limit():
    policy = Policy(max_workers=1)
    assert [policy.pause(n) for n in (0, 1, 2, 3)] == [0.0, 0.05, 0.1, 0.2]
    assert policy.pause(10_000) == policy.backoff_limit


def test_every_rule_names_a_method_and_no_two_rules_overlap():
    seen = set()
    for rule in RULES:
        assert callable(getattr(Machine, rule.method))
        for state in rule.states:
            assert (rule.event, state) not in seen
            seen.add((rule.event, state))


def test_the_documentation_shows_the_table_as_it_is():
    page = Path(__file__).parents[2] / "docs" / "design.md"
    assert render_rules() in page.read_text()
