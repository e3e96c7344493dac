"""The rules one by one, with a clock of the test's own; and the table in the documentation."""

from __future__ import annotations

from operator import attrgetter
from pathlib import Path

import pytest

from pidfdpool.deaths import Cause
from pidfdpool.scheduler import actions as do
from pidfdpool.scheduler import events as ev
from pidfdpool.scheduler.machine import Machine
from pidfdpool.scheduler.policy import Policy
from pidfdpool.scheduler.states import RULES, Phase, State, Template, render_rules
from pidfdpool.scheduler.workers import EXIT_AFTER_CLOSE
from tests.scheduler.driving import ENDED, KILLED, started


def test_the_first_task_starts_the_template_and_then_a_worker():
    machine = Machine(Policy(max_workers=4))
    assert machine.decide(ev.Submitted(1), 0.0) == [do.StartTemplate()]
    assert machine.decide(ev.Submitted(2), 0.0) == []
    assert machine.decide(ev.TemplateUp(), 0.1) == [do.Spawn(0, 1), do.Spawn(1, 2)]
    assert machine.decide(ev.Spawned(0, 1, 77), 0.1) == []
    assert machine.decide(ev.Ready(0, 1), 0.1) == [do.Send(0, 1, 1)]


def test_an_idle_worker_gets_the_task_at_once_and_the_warmest_one_first():
    machine = started(2)
    assert machine.decide(ev.Submitted(1), 1.0) == [do.Send(1, 2, 1)]
    assert machine.decide(ev.Finished(1, 2, 1), 1.1) == [do.Deliver(1)]
    assert machine.decide(ev.Submitted(2), 1.2) == [do.Send(1, 2, 2)]


def test_a_death_fails_the_running_task_and_refills_at_once():
    machine = started(1)
    machine.decide(ev.Submitted(1), 5.0)
    actions = machine.decide(ev.Died(0, 1, KILLED), 6.0)
    report = do.ReportDeath(0, 1, 100, Cause.CRASH, KILLED, uptime=6.0, tasks_done=1, task=1, attempt=1)
    assert actions == [report, do.Fail(1, Cause.CRASH), do.Spawn(0, 2)]


def test_an_unread_task_goes_back_to_the_head_of_the_queue():
    machine = started(1)
    machine.decide(ev.Submitted(1), 5.0)
    machine.decide(ev.Submitted(2), 5.0)
    report = do.ReportDeath(0, 1, 100, Cause.CRASH, KILLED, uptime=6.0, tasks_done=1)
    assert machine.decide(ev.Died(0, 1, KILLED, unbegun=1), 6.0) == [report, do.Spawn(0, 2)]
    assert list(machine.queue) == [1, 2]


def test_a_worker_gets_its_replacement_along_with_the_last_task_of_its_share():
    machine = started(1, max_tasks_per_child=2)
    assert machine.decide(ev.Submitted(1), 1.0) == [do.Send(0, 1, 1), do.Spawn(1, 2)]
    assert machine.decide(ev.Submitted(2), 1.0) == []
    assert machine.decide(ev.Spawned(1, 2, 101), 1.0) == []
    assert machine.decide(ev.Ready(1, 2), 1.0) == [], "no more tasks run than the pool is large"
    assert machine.decide(ev.Finished(0, 1, 1), 1.0) == [do.Deliver(1), do.Stop(0, 1), do.Send(1, 2, 2)]
    assert machine.decide(ev.Died(0, 1, ENDED), 1.1) == [do.ReportDeath(0, 1, 100, Cause.TASKS, ENDED, 1.1, 2)]


@pytest.mark.parametrize("limit", ["timeout", "heartbeat_timeout", "deadline"])
def test_the_short_way_is_closed_to_the_outcome_of_a_task_with_a_clock(limit):
    """Guards: its clock went on, and hit the worker's next task."""
    machine = started(1)
    machine.decide(ev.Submitted(1, machine.policy.refined({limit: 5.0})), 1.0)
    assert not machine.take_answers(0, 1, [1], 0.1, 1.1)
    assert machine.decide(ev.Finished(0, 1, 1, seconds=0.1), 1.1) == [do.Deliver(1)]
    assert machine.deadline() is None
    machine.decide(ev.Submitted(2), 1.2)
    assert machine.take_answers(0, 1, [2], 0.1, 1.3) == 1, "without one it is open"


def test_a_worker_that_does_not_leave_is_killed_after_the_grace():
    machine = started(1, max_tasks_per_child=1, stop_grace=10.0)
    assert machine.slots[0].state is State.STOPPING
    assert machine.deadline() == 10.0
    assert machine.decide(ev.Tick(), 9.9) == []
    assert machine.decide(ev.Tick(), 10.0) == [do.Signal(0, 1, 9)]
    assert machine.deadline() is None


def test_young_deaths_are_answered_by_growing_pauses_and_then_by_giving_up():
    machine = Machine(Policy(max_workers=1, intensity=3, backoff=0.1, backoff_limit=0.3, period=60.0))
    machine.decide(ev.Submitted(1), 0.0)
    assert machine.decide(ev.TemplateUp(), 0.0) == [do.Spawn(0, 1)]
    now = 0.0
    for generation, pause in ((1, 0.1), (2, 0.2), (3, 0.3)):
        machine.decide(ev.Spawned(0, generation, 100), now)
        reported = machine.decide(ev.Died(0, generation, KILLED), now)
        assert [type(action) for action in reported] == [do.ReportDeath]
        assert machine.deadline() == pytest.approx(now + pause)
        now += pause
        assert machine.decide(ev.Tick(), now) == [do.Spawn(0, generation + 1)]
    machine.decide(ev.Spawned(0, 4, 100), now)
    actions = machine.decide(ev.Died(0, 4, KILLED), now)
    assert isinstance(actions[0], do.ReportDeath)
    assert isinstance(actions[1], do.FailBroken)
    assert "4 processes died within 60 s" in machine.broken
    assert "killed by SIGKILL" in machine.broken
    assert actions[2:] == [do.StopTemplate()]


@pytest.mark.parametrize("workers", [1, 8, 500])
def test_young_deaths_one_at_a_time_break_a_pool_of_any_size(workers):
    """Only one worker is started for one task; with growing pauses there can be few deaths within any period."""
    machine = Machine(Policy(max_workers=workers))
    machine.decide(ev.Submitted(1), 0.0)
    machine.decide(ev.TemplateUp(), 0.0)
    now = 0.0
    for generation in range(1, 8):
        machine.decide(ev.Spawned(0, generation, 100), now)
        machine.decide(ev.Died(0, generation, KILLED), now)
        now = machine.deadline()
        machine.decide(ev.Tick(), now)
        assert machine.phase is Phase.OPEN
    machine.decide(ev.Spawned(0, 8, 100), now)
    machine.decide(ev.Died(0, 8, KILLED), now)
    assert machine.phase is not Phase.OPEN
    assert now < 10.0


def test_one_blow_to_all_workers_breaks_nothing():
    machine = Machine(Policy(max_workers=500))
    for task in range(500):
        machine.decide(ev.Submitted(task), 0.0)
    machine.decide(ev.TemplateUp(), 0.0)
    for generation in range(1, 501):
        machine.decide(ev.Spawned(generation - 1, generation, 100), 0.0)
    for generation in range(1, 501):
        machine.decide(ev.Died(generation - 1, generation, KILLED), 0.01)
    assert machine.phase is Phase.OPEN


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
    assert machine.restart_limiter.streak == 0
    machine.decide(ev.Died(0, 1, KILLED), 0.5)
    assert machine.restart_limiter.streak == 0, "it had finished a task: not young"
    machine.decide(ev.Spawned(0, 3, 100), 0.5)
    machine.decide(ev.Died(0, 3, KILLED), 0.5)
    assert machine.restart_limiter.streak == 1
    machine.decide(ev.Submitted(5), 0.6)
    machine.decide(ev.Finished(1, 2, 5), 0.7)
    assert machine.restart_limiter.streak == 0


def test_a_fork_that_fails_breaks_nothing_while_others_work():
    machine = started(2, ready=1, intensity=0)
    machine.decide(ev.Submitted(1), 1.0)
    assert machine.decide(ev.Submitted(2), 1.0) == [do.Spawn(1, 2)]
    assert machine.decide(ev.SpawnFailed(1, 2, "no more processes"), 1.0) == []
    assert machine.phase is Phase.OPEN
    assert machine.deadline() == pytest.approx(1.05)


def test_a_cancelled_task_leaves_the_queue_and_a_running_one_stays():
    machine = started(1)
    machine.decide(ev.Submitted(1), 1.0)
    machine.decide(ev.Submitted(2), 1.0)
    assert machine.decide(ev.Cancelled(2), 1.0) == [do.Cancel(2)]
    assert machine.decide(ev.Cancelled(1), 1.0) == []
    assert machine.decide(ev.Cancelled(2), 1.0) == []


def test_shutdown_finishes_the_queue_then_the_workers_then_the_template():
    machine = started(1)
    machine.decide(ev.Submitted(1), 1.0)
    machine.decide(ev.Submitted(2), 1.0)
    assert machine.decide(ev.ShutdownRequested(), 1.0) == []
    assert machine.decide(ev.Finished(0, 1, 1), 1.0) == [do.Deliver(1), do.Send(0, 1, 2)]
    assert machine.decide(ev.Finished(0, 1, 2), 1.0) == [do.Deliver(2), do.Stop(0, 1)]
    report = do.ReportDeath(0, 1, 100, Cause.SHUTDOWN, ENDED, 1.0, 3)
    assert machine.decide(ev.Died(0, 1, ENDED), 1.0) == [report, do.StopTemplate()]
    assert machine.decide(ev.TemplateLost("asked"), 1.0) == [do.Close()]
    assert machine.phase is Phase.CLOSED


def test_shutdown_with_cancel_withdraws_the_queue():
    machine = started(1)
    for task in (1, 2, 3):
        machine.decide(ev.Submitted(task), 1.0)
    assert machine.decide(ev.ShutdownRequested(cancel=True), 1.0) == [do.Cancel(2), do.Cancel(3)]


def test_a_lost_template_is_started_again_after_a_pause():
    machine = started(1)
    assert machine.decide(ev.TemplateLost("killed"), 1.0) == []
    assert machine.decide(ev.Died(0, 1, KILLED), 1.0) == [do.ReportDeath(0, 1, 100, Cause.TEMPLATE, KILLED, 1.0, 1)]
    assert machine.deadline() == pytest.approx(1.05)
    assert machine.decide(ev.Tick(), 1.06) == [do.StartTemplate()]
    assert machine.template is Template.STARTING
    assert machine.decide(ev.TemplateUp(), 1.1) == [do.Spawn(0, 2)]


def test_on_crash_break_breaks_at_the_first_death():
    machine = started(2, on_crash="break")
    machine.decide(ev.Submitted(1), 1.0)
    machine.decide(ev.Submitted(2), 1.0)
    actions = machine.decide(ev.Died(1, 2, KILLED), 2.0)
    assert isinstance(actions[0], do.ReportDeath)
    assert actions[1] == do.Fail(1, Cause.CRASH)
    assert actions[2:] == [do.FailBroken(2, machine.broken), do.Signal(0, 1, 9), do.StopTemplate()]


def test_pauses_double_up_to_the_limit():
    policy = Policy(max_workers=1)
    assert [policy.pause(n) for n in (0, 1, 2, 3)] == [0.0, 0.05, 0.1, 0.2]
    assert policy.pause(10_000) == policy.backoff_limit


@pytest.mark.parametrize("state", [State.STARTING, State.IDLE, State.BUSY])
def test_a_worker_that_speaks_out_of_turn_is_killed(state):
    machine = started(1)
    if state is State.BUSY:
        machine.decide(ev.Submitted(1), 1.0)
    elif state is State.STARTING:
        machine.decide(ev.Died(0, 1, ENDED), 1.0)
    slot = machine.slots[0]
    assert slot.state is state
    nonsense = ev.Finished(0, slot.generation, 99) if state is not State.BUSY else ev.Ready(0, 1)
    assert machine.decide(nonsense, 2.0) == [do.Signal(0, slot.generation, 9)]
    [report, *_] = machine.decide(ev.Died(0, slot.generation, KILLED), 2.0)
    assert report.cause is Cause.BABBLE


@pytest.mark.parametrize("state", [State.STARTING, State.IDLE, State.BUSY, State.STOPPING])
def test_a_worker_that_writes_what_is_no_frame_is_killed_and_it_is_told_what_that_was(state):
    machine = started(1)
    if state is State.STARTING:
        machine.decide(ev.Died(0, 1, ENDED), 1.0)
    elif state is not State.IDLE:
        machine.decide(ev.Submitted(1), 1.0)
    slot = machine.slots[0]
    if state is State.STOPPING:
        machine.decide(ev.SendRefused(0, 1, 1), 1.0)
        machine.decide(ev.KillRequested(15), 1.0)
    assert slot.state is state
    assert do.Signal(0, slot.generation, 9) in machine.decide(
        ev.ProtocolViolated(0, slot.generation, "nonsense"), 2.0
    )
    assert slot.detail == "nonsense"


@pytest.mark.parametrize("state", [State.STARTING, State.IDLE, State.BUSY])
def test_a_worker_whose_channel_is_closed_is_killed_if_it_does_not_end(state):
    machine = started(1)
    if state is State.BUSY:
        machine.decide(ev.Submitted(1), 1.0)
    elif state is State.STARTING:
        machine.decide(ev.Died(0, 1, ENDED), 1.0)
    slot = machine.slots[0]
    assert slot.state is state
    assert machine.decide(ev.ChannelClosed(0, slot.generation), 2.0) == []
    assert machine.deadline() == pytest.approx(2.0 + EXIT_AFTER_CLOSE)
    assert machine.decide(ev.Tick(), 2.0 + EXIT_AFTER_CLOSE) == [do.Signal(0, slot.generation, 9)]
    actions = machine.decide(ev.Died(0, slot.generation, KILLED), 3.0)
    assert actions[0].cause is Cause.HUNG_UP
    if state is State.BUSY:
        assert actions[1] == do.Fail(1, Cause.CRASH)


def test_a_worker_that_ends_has_only_ended_though_its_channel_was_closed_before():
    machine = started(1)
    machine.decide(ev.Submitted(1), 1.0)
    machine.decide(ev.ChannelClosed(0, 1), 2.0)
    [report, *_] = machine.decide(ev.Died(0, 1, KILLED), 2.001)
    assert report.cause is Cause.CRASH


def test_more_tokens_than_a_worker_was_sent_say_nothing():
    machine = started(1)
    machine.decide(ev.Submitted(1), 1.0)
    [report, lost, *_] = machine.decide(ev.Died(0, 1, KILLED, unbegun=2), 2.0)
    assert (report.task, lost) == (1, do.Fail(1, Cause.CRASH)), "it may have run, and runs no second time"


def test_news_of_a_buried_worker_changes_nothing():
    machine = started(1)
    machine.decide(ev.Died(0, 1, KILLED), 1.0)
    for event in (ev.Ready(0, 1), ev.Finished(0, 1, 1), ev.Died(0, 1, KILLED), ev.Unhealthy(0, 1, "late")):
        assert machine.decide(event, 1.0) == []
    assert machine.slots[0].generation == 2


def test_every_rule_names_a_method_and_no_two_rules_overlap():
    machine, seen = Machine(Policy(1)), set()
    for rule in RULES:
        assert callable(attrgetter(rule.handler)(machine))
        for state in rule.states:
            assert (rule.event, state) not in seen
            seen.add((rule.event, state))


def test_the_documentation_shows_the_table_as_it_is():
    page = Path(__file__).parents[2] / "docs" / "architecture.md"
    assert render_rules() in page.read_text()
