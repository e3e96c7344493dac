"""How many workers there are, and when one is replaced for its own sake: size, idleness, age, memory, health."""

from __future__ import annotations

import struct

import pytest

from pidfdpool.deaths import Cause
from pidfdpool.scheduler import actions as do
from pidfdpool.scheduler import events as ev
from pidfdpool.scheduler.machine import Machine
from pidfdpool.scheduler.policy import Policy
from pidfdpool.scheduler.states import Phase, State, Template
from pidfdpool.scheduler.workforce import MAX_GENERATION
from pidfdpool.transport import framing
from tests.scheduler.driving import ENDED, KILL, KILLED, TERM, begun, get_ready, only, started


def busy(machine: Machine) -> int:
    return machine.counts[State.BUSY]


# ---- replaced, once the replacement is ready ---------------------------------------------------------------


def test_a_worker_over_its_soft_limit_of_memory_works_on_until_its_replacement_is_ready():
    machine = begun(max_memory_per_child=1000)
    actions = machine.decide(ev.Finished(0, 1, 1, memory=1001), 2.0)
    assert actions == [do.Deliver(1), do.Spawn(1, 2)]
    assert machine.decide(ev.Submitted(2), 2.0) == [do.Send(0, 1, 2)], "it works on"
    assert machine.decide(ev.Finished(0, 1, 2, memory=1001), 3.0) == [do.Deliver(2)], "one replacement is enough"
    assert get_ready(machine, 1, 2, 4.0) == [do.Stop(0, 1)]
    assert machine.decide(ev.Submitted(3), 5.0) == [do.Send(1, 2, 3)]
    [report] = machine.decide(ev.Died(0, 1, ENDED), 5.0)
    assert report.cause is Cause.RETIRED
    assert report.cause.ordinary


def test_a_worker_that_is_there_to_stay_gets_tasks_before_one_that_waits_for_its_replacement():
    machine = started(2, max_memory_per_child=1000)
    assert machine.decide(ev.Submitted(1), 1.0) == [do.Send(1, 2, 1)]
    machine.decide(ev.Finished(1, 2, 1, memory=1001), 2.0)
    assert machine.decide(ev.Submitted(2), 3.0) == [do.Send(0, 1, 2)]
    assert machine.decide(ev.Submitted(3), 3.0) == [do.Send(1, 2, 3)]


def test_a_worker_within_its_soft_limit_of_memory_stays():
    machine = begun(max_memory_per_child=1000)
    assert machine.decide(ev.Finished(0, 1, 1, memory=1000), 2.0) == [do.Deliver(1)]


def test_a_worker_that_is_replaced_while_it_is_busy_leaves_after_its_task():
    machine = begun(max_age=10.0)
    assert machine.decide(ev.Tick(), 10.0) == [do.Spawn(1, 2)]
    assert get_ready(machine, 1, 2, 11.0) == []
    assert machine.decide(ev.Submitted(2), 12.0) == [], "no more tasks run than the pool is large"
    assert machine.decide(ev.Finished(0, 1, 1), 13.0) == [do.Deliver(1), do.Stop(0, 1), do.Send(1, 2, 2)]
    assert machine.decide(ev.Died(0, 1, ENDED), 14.0)[0].cause is Cause.AGE


def test_an_old_worker_that_is_idle_is_replaced_and_the_new_one_ages_from_when_it_is_ready():
    machine = started(1, max_age=10.0)
    assert machine.deadline() == 10.0
    assert machine.decide(ev.Tick(), 10.0) == [do.Spawn(1, 2)]
    assert get_ready(machine, 1, 2, 12.5) == [do.Stop(0, 1)]
    machine.decide(ev.Died(0, 1, ENDED), 12.5)
    assert machine.deadline() == 22.5


def test_a_worker_whose_replacement_cannot_be_forked_makes_room_for_it():
    machine = started(1, max_age=10.0)
    machine.decide(ev.Tick(), 10.0)
    assert machine.decide(ev.SpawnFailed(1, 2, "no more processes"), 10.1) == [do.Stop(0, 1)]
    assert machine.phase is Phase.OPEN


# ---- unhealthy ---------------------------------------------------------------------------------------------


def test_an_idle_worker_that_is_unhealthy_leaves_at_once_and_is_replaced():
    machine = started(1)
    assert machine.decide(ev.Unhealthy(0, 1, "stale"), 1.0) == [do.Stop(0, 1), do.Spawn(1, 2)]
    [report] = machine.decide(ev.Died(0, 1, ENDED), 1.0)
    assert (report.cause, report.detail) == (Cause.UNHEALTHY, "stale")


def test_a_busy_worker_that_is_unhealthy_finishes_its_task_and_gets_no_other():
    machine = begun()
    assert machine.decide(ev.Unhealthy(0, 1, "stale"), 2.0) == [do.Spawn(1, 2)]
    assert machine.decide(ev.Submitted(2), 2.0) == []
    assert machine.decide(ev.Finished(0, 1, 1), 3.0) == [do.Deliver(1), do.Stop(0, 1)]
    assert machine.decide(ev.Unhealthy(0, 1, "still"), 3.0) == []


@pytest.mark.parametrize("gets_ready", [True, False])
def test_workers_that_are_unhealthy_before_they_are_ready_died_young_and_are_not_replaced_forever(gets_ready):
    machine = started(1, ready=0, intensity=3, backoff=1.0)
    machine.decide(ev.Submitted(1), 0.0)
    now = 0.0
    while machine.phase is Phase.OPEN and now < 1000.0:
        for slot in list(machine.workforce.by_generation.values()):
            name = slot.index, slot.generation
            machine.decide(ev.Spawned(*name, 100), now)
            machine.decide(ev.Unhealthy(*name, "born ill"), now)
            assert not gets_ready or do.Stop(*name) in machine.decide(ev.Ready(*name), now)
            machine.decide(ev.Died(*name, ENDED), now)
        now += 0.5
        machine.decide(ev.Tick(), now)
    assert "4 processes died within 30 s" in machine.broken
    assert not gets_ready or "born ill" in machine.broken
    assert machine.workforce._last_generation <= 8


# ---- starting ----------------------------------------------------------------------------------------------


def test_a_worker_that_is_not_ready_in_time_is_killed_and_died_young():
    machine = started(1, ready=0, start_timeout=3.0, backoff=0.5)
    machine.decide(ev.Submitted(1), 0.0)
    assert machine.deadline() is None, "it is not forked yet"
    machine.decide(ev.Spawned(0, 1, 100), 1.0)
    assert machine.decide(ev.Tick(), 4.0) == [do.Signal(0, 1, KILL)]
    [report] = machine.decide(ev.Died(0, 1, KILLED), 4.0)
    assert report.cause is Cause.START
    assert machine.deadline() == 4.5


def test_a_worker_that_is_ready_in_time_is_left_alone():
    machine = started(1, start_timeout=3.0)
    assert machine.deadline() is None


def test_a_worker_that_is_to_leave_before_it_is_ready_is_not_taken_for_one_that_starts_too_slowly():
    machine = started(2, ready=1, start_timeout=3.0)
    machine.decide(ev.Submitted(1), 1.0)
    machine.decide(ev.Submitted(2), 1.0)
    machine.decide(ev.Spawned(1, 2, 101), 1.0)
    assert machine.decide(ev.ResizeRequested(1), 2.0) == [do.Stop(1, 2)]
    assert machine.decide(ev.Tick(), 4.0) == []
    assert machine.decide(ev.Died(1, 2, ENDED), 5.0)[0].cause is Cause.RESIZE
    assert machine.restart_limiter.streak == 0


def test_a_template_that_does_not_fork_is_killed_but_only_once_its_preload_is_done():
    machine = started(1, ready=0, spawn_timeout=5.0)
    assert machine.decide(ev.Submitted(1), 0.0) == [do.Spawn(0, 1)]
    assert machine.deadline() is None
    machine.decide(ev.TemplateBooted(), 100.0)
    assert machine.deadline() == 105.0
    assert machine.decide(ev.Tick(), 105.0) == [do.KillTemplate()]
    assert machine.template is Template.STUCK
    assert machine.decide(ev.TemplateLost("killed"), 105.0) == []
    assert machine.decide(ev.Tick(), 105.1) == [do.StartTemplate()]
    assert machine.decide(ev.TemplateUp(), 105.2) == [do.Spawn(0, 2)]
    assert machine.deadline() is None, "another preload"


def test_a_template_that_forks_in_time_is_left_alone():
    machine = started(1, ready=0, spawn_timeout=5.0)
    machine.decide(ev.TemplateBooted(), 0.0)
    machine.decide(ev.Submitted(1), 1.0)
    assert machine.deadline() == 6.0
    machine.decide(ev.Spawned(0, 1, 100), 2.0)
    assert machine.deadline() is None


def test_a_template_that_forks_one_after_the_other_is_left_alone_though_the_last_waits_long():
    """Guards: of hundreds of workers the last were not forked in time on a busy machine, and all were killed."""
    machine = started(3, ready=0, spawn_timeout=5.0)
    machine.decide(ev.TemplateBooted(), 0.0)
    for number in (1, 2, 3):
        machine.decide(ev.Submitted(number), 0.0)
    machine.decide(ev.Spawned(0, 1, 100), 4.0)
    assert machine.decide(ev.Tick(), 5.0) == []
    machine.decide(ev.Spawned(1, 2, 101), 8.0)
    assert machine.decide(ev.Tick(), 9.0) == []
    assert machine.deadline() == 13.0
    assert machine.decide(ev.Tick(), 13.0) == [do.KillTemplate()]


def test_a_template_that_does_not_leave_is_killed():
    machine = Machine(Policy(1, stop_grace=4.0))
    machine.decide(ev.Submitted(1), 0.0)
    machine.decide(ev.TemplateUp(), 0.0)
    machine.decide(ev.SpawnFailed(0, 1, "no"), 0.0)
    assert machine.decide(ev.ShutdownRequested(cancel=True), 1.0) == [do.Cancel(1), do.StopTemplate()]
    assert machine.decide(ev.Tick(), 4.9) == []
    assert machine.decide(ev.Tick(), 5.0) == [do.KillTemplate()]
    assert machine.decide(ev.TemplateLost("killed"), 5.0) == [do.Close()]


@pytest.mark.parametrize("end", ["crash", "refused", "babble"])
@pytest.mark.parametrize("young_age", [0.0, 1.0])
def test_workers_that_end_before_any_task_was_finished_are_not_replaced_forever(end, young_age):
    machine = started(1, ready=0, intensity=3, backoff=0.0, backoff_limit=0.0, young_age=young_age)
    machine.decide(ev.Submitted(1), 0.0)
    deaths = 0
    while machine.phase is Phase.OPEN and deaths < 20:
        [slot] = machine.workforce.by_generation.values()
        name = slot.index, slot.generation
        machine.decide(ev.Spawned(*name, 100), 0.0)
        if end == "refused" and young_age:
            machine.decide(ev.Ready(*name), 0.0)
            machine.decide(ev.SendRefused(*name, 1), 0.0)
            [slot] = [slot for slot in machine.workforce.by_generation.values() if slot.generation != name[1]]
            machine.decide(ev.SpawnFailed(slot.index, slot.generation, "no"), 0.0)
        elif end == "babble":
            machine.decide(ev.Finished(*name, 7), 0.0)
        machine.decide(ev.Died(*name, KILLED), 0.0)
        deaths += 1
        machine.decide(ev.Tick(), 0.0)
    assert machine.phase is Phase.CLOSING


@pytest.mark.parametrize("size", [1, 3, 64])
@pytest.mark.parametrize("refused", ["template", "workers"])
def test_a_pool_for_which_nothing_can_be_started_breaks_after_a_while_however_large_it_is(size, refused):
    """All workers of a round fail together and the pauses grow: a large pool never had its number of young deaths."""
    machine = Machine(Policy(size))
    for task in range(size):
        machine.decide(ev.Submitted(task), 0.0)
    now = 0.0
    while machine.broken is None and now < 1000.0:
        if refused == "template":
            machine.decide(ev.TemplateLost("no more processes"), now)
        elif machine.template is Template.STARTING:
            machine.decide(ev.TemplateUp(), now)
        for generation, slot in list(machine.workforce.by_generation.items()):
            machine.decide(ev.SpawnFailed(slot.index, generation, "no more processes"), now)
        if machine.broken is None:
            now = machine.deadline()
            machine.decide(ev.Tick(), now)
    assert machine.broken.endswith("no more processes")
    assert now <= 40.0


def test_a_pool_that_could_start_nothing_for_a_while_has_that_forgotten_when_it_can():
    machine = Machine(Policy(3))
    machine.decide(ev.Submitted(1), 0.0)
    machine.decide(ev.TemplateUp(), 0.0)
    machine.decide(ev.SpawnFailed(0, 1, "no more processes"), 0.0)
    machine.decide(ev.Tick(), 20.0)
    machine.decide(ev.Spawned(0, 2, 100), 20.0)
    machine.decide(ev.Died(0, 2, KILLED), 31.0)
    machine.decide(ev.Tick(), 32.0)
    machine.decide(ev.SpawnFailed(0, 3, "no more processes"), 32.0)
    assert machine.broken is None


def test_with_on_crash_break_a_worker_that_took_no_task_any_more_breaks_the_pool():
    machine = begun(on_crash="break")
    machine.decide(ev.SendRefused(0, 1, 1), 1.0)
    machine.decide(ev.Died(0, 1, KILLED), 1.0)
    assert machine.phase is Phase.CLOSING


def test_with_on_crash_break_a_lost_template_breaks_only_if_a_task_was_lost_with_it():
    machine = started(1, on_crash="break")
    machine.decide(ev.TemplateLost("killed"), 1.0)
    machine.decide(ev.Died(0, 1, KILLED), 1.0)
    assert machine.phase is Phase.OPEN
    machine = begun(on_crash="break")
    machine.decide(ev.TemplateLost("killed"), 1.0)
    machine.decide(ev.SendRefused(0, 1, 1), 1.0)
    machine.decide(ev.Died(0, 1, KILLED), 1.0)
    assert machine.phase is Phase.OPEN


# ---- how many ----------------------------------------------------------------------------------------------


def test_min_workers_are_started_with_the_first_task_and_are_no_restarts():
    machine = Machine(Policy(4, min_workers=3))
    machine.decide(ev.Submitted(1), 0.0)
    assert len(only(machine.decide(ev.TemplateUp(), 0.0), do.Spawn)) == 3
    assert (machine.level, machine.restarts) == (3, 0)
    machine.decide(ev.Spawned(0, 1, 100), 0.0)
    machine.decide(ev.Died(0, 1, KILLED), 5.0)
    assert len(only(machine.decide(ev.Tick(), 9.0), do.Spawn)) == 1
    assert machine.restarts == 1


def test_idle_workers_are_ended_down_to_min_workers_and_no_further():
    machine = started(3, min_workers=1, idle_timeout=10.0)
    assert machine.deadline() == 10.0
    stopped = only(machine.decide(ev.Tick(), 10.0), do.Stop)
    assert len(stopped) == 2
    for stop in stopped:
        report = machine.decide(ev.Died(stop.slot, stop.generation, ENDED), 10.1)
        assert [action.cause for action in report] == [Cause.IDLE]
    assert machine.decide(ev.Tick(), 1000.0) == []
    assert machine.workforce.alive == 1


def test_an_idle_worker_that_waits_for_its_replacement_is_not_ended_for_idleness():
    machine = started(1, idle_timeout=10.0, max_age=5.0)
    machine.decide(ev.Tick(), 5.0)
    assert machine.decide(ev.Tick(), 10.0) == []
    assert machine.level == 1
    assert get_ready(machine, 1, 2, 11.0) == [do.Stop(0, 1)]


def test_a_pool_that_shrank_and_grew_again_holds_what_it_was_left_with_until_more_is_needed():
    machine = started(3)
    machine.decide(ev.ResizeRequested(1), 1.0)
    assert machine.decide(ev.ResizeRequested(3), 2.0) == []
    assert machine.level == 1


def test_a_worker_that_is_ended_for_idleness_comes_back_when_it_is_needed():
    machine = started(1, idle_timeout=10.0)
    machine.decide(ev.Tick(), 10.0)
    assert machine.decide(ev.Died(0, 1, ENDED), 10.1)[1:] == []
    assert machine.workforce.alive == machine.restarts == 0
    assert machine.decide(ev.Submitted(1), 20.0) == [do.Spawn(0, 2)]
    assert machine.restarts == 0


def test_a_worker_that_works_is_not_idle():
    machine = started(1, idle_timeout=10.0)
    machine.decide(ev.Submitted(1), 9.0)
    assert machine.decide(ev.Tick(), 100.0) == []
    machine.decide(ev.Finished(0, 1, 1), 100.0)
    assert machine.deadline() == 110.0


def test_a_pool_that_grows_starts_workers_for_what_waits():
    machine = begun()
    machine.decide(ev.Submitted(2), 1.0)
    machine.decide(ev.Submitted(3), 1.0)
    assert machine.decide(ev.ResizeRequested(2), 2.0) == [do.Spawn(1, 2)]
    assert machine.decide(ev.ResizeRequested(9), 2.0) == [do.Spawn(2, 3)]


def test_a_pool_that_shrinks_lets_the_idle_go_first_then_the_starting_then_those_that_run_longest():
    machine = started(4, ready=3)
    for task, now in ((1, 1.0), (2, 2.0)):
        machine.decide(ev.Submitted(task), now)
    idle = next(slot for slot in machine.slots if slot.state is State.IDLE)
    assert machine.decide(ev.ResizeRequested(2), 3.0) == [do.Stop(idle.index, idle.generation)]
    assert machine.decide(ev.ResizeRequested(1), 4.0) == []
    first = machine.slots[machine.running[1]]
    assert machine.decide(ev.Finished(first.index, first.generation, 1), 5.0) == [
        do.Deliver(1),
        do.Stop(first.index, first.generation),
    ]
    assert machine.decide(ev.Died(first.index, first.generation, ENDED), 5.0)[0].cause is Cause.RESIZE
    assert busy(machine) == 1


def test_a_pool_that_shrank_runs_no_more_tasks_than_it_is_large():
    machine = started(2)
    for task, now in ((1, 1.0), (2, 1.5), (3, 1.5)):
        machine.decide(ev.Submitted(task), now)
    machine.decide(ev.ResizeRequested(1), 2.0)
    leaver = machine.slots[machine.running[1]]
    actions = machine.decide(ev.Finished(leaver.index, leaver.generation, 1), 3.0)
    assert actions == [do.Deliver(1), do.Stop(leaver.index, leaver.generation)]
    other = machine.slots[machine.running[2]]
    assert do.Send(other.index, other.generation, 3) in machine.decide(
        ev.Finished(other.index, other.generation, 2), 4.0
    )


def test_there_are_never_more_than_twice_as_many_workers_as_the_pool_is_large():
    machine = started(2, timeout=5.0, stop_grace=100.0)
    for task in range(1, 9):
        machine.decide(ev.Submitted(task), 1.0)
    most = 0
    for step in range(200):
        now = 2.0 + step
        machine.decide(ev.Tick(), now)
        for slot in [slot for slot in machine.slots if slot.state is State.STARTING]:
            machine.decide(ev.Spawned(slot.index, slot.generation, 100), now)
            machine.decide(ev.Ready(slot.index, slot.generation), now)
        most = max(most, machine.workforce.alive)
        assert busy(machine) <= 2
    assert most == 4, "no worker ever ended, so no more were started"
    assert machine.slots[0].cause is Cause.TIMEOUT


def test_slots_are_used_again_before_new_ones_are_made():
    machine = started(2)
    for generation in range(3, 20):
        slot = machine.slots[1]
        machine.decide(ev.Submitted(generation), 0.0)
        machine.decide(ev.Died(1, slot.generation, KILLED), 5.0)
        get_ready(machine, 1, machine.slots[1].generation, 5.0)
        for other in machine.slots:
            if other.task is not None:
                machine.decide(ev.Finished(other.index, other.generation, other.task), 5.0)
    assert len(machine.slots) == 2


def test_a_shutdown_stops_workers_that_start_and_kills_those_that_stay():
    machine = started(1, ready=0, stop_grace=4.0)
    machine.decide(ev.Submitted(1), 0.0)
    machine.decide(ev.Spawned(0, 1, 100), 0.0)
    assert machine.decide(ev.ShutdownRequested(cancel=True), 1.0) == [do.Cancel(1), do.Stop(0, 1)]
    assert machine.decide(ev.Tick(), 5.0) == [do.Signal(0, 1, KILL)]
    assert machine.decide(ev.KillRequested(TERM), 5.0) == [do.Signal(0, 1, TERM)]


# ---- for years ---------------------------------------------------------------------------------------------


def test_generations_begin_anew_and_pass_over_those_that_live():
    machine = started(2)  # generations 1 and 2
    machine.workforce._last_generation = MAX_GENERATION - 1
    seen = []
    for task in range(1, 4):
        machine.decide(ev.Submitted(task), 1.0)
        machine.decide(ev.Died(1, machine.slots[1].generation, KILLED), 60.0 * task)
        machine.decide(ev.Tick(), 60.0 * task + 30)
        seen.append(machine.slots[1].generation)
        get_ready(machine, 1, seen[-1], 60.0 * task + 30)
    assert seen == [MAX_GENERATION, 2, 3], "1 is that of a living worker"
    assert machine.broken is None
    assert machine.decide(ev.Died(1, MAX_GENERATION, KILLED), 300.0) == [], "late news of one that is buried"
    framing.encode(framing.SPAWN, 0, MAX_GENERATION)
    with pytest.raises(struct.error):
        framing.encode(framing.SPAWN, 0, MAX_GENERATION + 1)
