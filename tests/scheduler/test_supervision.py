"""Workers that have to go because of their task (time, silence, memory, the caller's word), rule by rule."""

from __future__ import annotations

import pytest

from pidfdpool.deaths import Cause
from pidfdpool.errors import TaskTimeout, WorkerCrashed
from pidfdpool.scheduler import actions as do
from pidfdpool.scheduler import events as ev
from pidfdpool.scheduler.policy import Policy
from pidfdpool.scheduler.states import Phase, State
from tests.scheduler.driving import ENDED, KILL, KILLED, TERM, begun, get_ready, only, started

# ---- a timeout ---------------------------------------------------------------------------------------------


def timed_out(**policy):
    """Return a machine whose task 1, begun at 1.0, was told to end at 6.0."""
    machine = begun(**{"timeout": 5.0, "grace": 1.0, **policy})
    assert machine.deadline() == 6.0
    assert machine.decide(ev.Tick(), 5.9) == []
    assert machine.decide(ev.Tick(), 6.0) == [do.Signal(0, 1, TERM), do.Spawn(1, 2)]
    return machine


def test_a_task_that_runs_too_long_gets_sigterm_then_its_stack_asked_then_sigkill():
    machine = timed_out()
    assert machine.deadline() == pytest.approx(6.95)
    assert machine.decide(ev.Tick(), 6.95) == [do.DumpStack(0, 1)]
    assert machine.deadline() == 7.0
    assert machine.decide(ev.Tick(), 7.0) == [do.Signal(0, 1, KILL)]


def test_the_replacement_of_a_condemned_worker_is_started_with_its_sigterm_and_takes_no_task_beside_it():
    machine = timed_out()
    machine.decide(ev.Submitted(2), 6.0)
    assert get_ready(machine, 1, 2, 6.1) == []
    [report, fail, send] = machine.decide(ev.Died(0, 1, ENDED), 6.2)
    assert (report.cause, report.task, report.attempt) == (Cause.TIMEOUT, 1, 1)
    assert (fail, send) == (do.Fail(1, Cause.TIMEOUT), do.Send(1, 2, 2, deadline=11.2))


def test_a_worker_that_sigkill_does_not_end_is_given_up_and_its_task_told():
    machine = timed_out()
    machine.decide(ev.Tick(), 7.0)
    assert machine.deadline() == pytest.approx(7.2)
    assert machine.decide(ev.Tick(), 7.2) == [do.Fail(1, Cause.TIMEOUT)]
    assert machine.slots[0].state is State.STOPPING
    assert machine.decide(ev.Finished(0, 1, 1), 7.3) == [], "too late"
    [report] = machine.decide(ev.Died(0, 1, KILLED), 99.0)
    assert (report.cause, report.task) == (Cause.TIMEOUT, None)


def test_a_worker_that_is_given_up_holds_no_other_task_back():
    machine = timed_out()
    machine.decide(ev.Submitted(2), 6.0)
    get_ready(machine, 1, 2, 6.1)
    machine.decide(ev.Tick(), 7.0)
    assert machine.decide(ev.Tick(), 7.2) == [do.Fail(1, Cause.TIMEOUT), do.Send(1, 2, 2, deadline=12.2)]


def test_a_result_within_the_grace_is_delivered_and_the_worker_leaves():
    machine = timed_out()
    assert machine.decide(ev.Finished(0, 1, 1), 6.5) == [do.Deliver(1), do.Stop(0, 1)]
    assert machine.decide(ev.Tick(), 7.0) == [do.DumpStack(0, 1), do.Signal(0, 1, KILL)], "SIGKILL comes all the same"
    [report] = machine.decide(ev.Died(0, 1, KILLED), 7.1)
    assert (report.cause, report.task, report.tasks_done) == (Cause.TIMEOUT, None, 2)


def test_an_exception_within_the_grace_is_what_sigterm_made_of_the_task():
    machine = timed_out()
    actions = machine.decide(ev.Finished(0, 1, 1, failed=True), 6.5)
    assert actions == [do.Fail(1, Cause.TIMEOUT), do.Stop(0, 1)]


def test_an_exception_within_the_grace_is_retried_as_a_timeout_and_not_as_itself():
    machine = timed_out(retries=1, retry_on=(ValueError,))
    assert machine.decide(ev.Finished(0, 1, 1, failed=True, retryable=True), 6.5)[0] == do.Fail(1, Cause.TIMEOUT)
    machine = timed_out(retries=1, retry_on=(TaskTimeout,), retry_backoff=2.0)
    assert machine.decide(ev.Finished(0, 1, 1, failed=True), 6.5)[0] == do.Retry(1, 2, 2.0)


def test_a_task_in_time_leaves_no_timer_behind_for_the_next_one():
    machine = begun(timeout=5.0)
    machine.decide(ev.Finished(0, 1, 1), 4.0)
    assert machine.deadline() is None
    assert machine.decide(ev.Submitted(2), 5.0) == [do.Send(0, 1, 2, deadline=10.0)]
    assert machine.deadline() == 10.0


def test_a_dead_worker_leaves_no_timer_behind():
    machine = begun(timeout=5.0, heartbeat_timeout=3.0, max_age=50.0, idle_timeout=20.0)
    machine.decide(ev.Died(0, 1, KILLED), 2.0)
    assert machine.deadline() is None


def test_a_grace_that_is_too_short_for_a_second_stack_goes_without():
    machine = timed_out(grace=0.0)
    assert machine.deadline() == pytest.approx(6.05)
    assert machine.decide(ev.Tick(), 6.05) == [do.Signal(0, 1, KILL)]


def test_a_task_has_the_timeout_of_its_own_policy():
    machine = started(1)
    machine.decide(ev.Submitted(1, machine.policy.refined({"timeout": 2.0})), 1.0)
    assert machine.deadline() == 3.0


# ---- a heartbeat -------------------------------------------------------------------------------------------


def test_a_heartbeat_is_looked_for_when_it_is_due_and_again_when_the_next_is():
    machine = begun(heartbeat_timeout=10.0)
    assert machine.deadline() == 11.0
    assert machine.decide(ev.Tick(), 11.0) == [do.CheckHeartbeat(0, 1, before=1.0)]
    assert machine.decide(ev.LastHeartbeat(0, 1, 8.5), 11.0) == []
    assert machine.deadline() == 18.5
    assert machine.decide(ev.Tick(), 18.5) == [do.CheckHeartbeat(0, 1, before=8.5)]
    assert machine.decide(ev.LastHeartbeat(0, 1, 8.5), 18.5)[0] == do.Signal(0, 1, TERM)
    [report, fail, *_] = machine.decide(ev.Died(0, 1, ENDED), 18.6)
    assert (report.cause, fail) == (Cause.HEARTBEAT, do.Fail(1, Cause.HEARTBEAT))


def test_a_host_that_was_held_up_after_it_had_looked_looks_again():
    """The task may have given heartbeats meanwhile."""
    machine = begun(heartbeat_timeout=10.0)
    machine.decide(ev.Tick(), 11.0)
    assert machine.decide(ev.LastHeartbeat(0, 1, 10.5, late=False), 25.0) == []
    assert machine.decide(ev.Tick(), 25.0) == [do.CheckHeartbeat(0, 1, before=15.0)]
    assert machine.decide(ev.LastHeartbeat(0, 1, 24.9, late=False), 25.0) == []
    assert machine.deadline() == pytest.approx(34.9)


@pytest.mark.parametrize("at", [None, 0.5])
def test_a_task_without_a_heartbeat_of_its_own_counts_from_its_start(at):
    machine = begun(heartbeat_timeout=10.0)
    machine.decide(ev.Tick(), 11.0)
    assert machine.decide(ev.LastHeartbeat(0, 1, at), 11.0)[0] == do.Signal(0, 1, TERM)


def test_a_heartbeat_of_the_task_before_is_none_of_the_next_one():
    machine = begun(now=100.0, heartbeat_timeout=10.0)
    machine.decide(ev.Tick(), 110.0)
    machine.decide(ev.Finished(0, 1, 1), 110.0)
    machine.decide(ev.Submitted(2), 110.0)
    assert machine.decide(ev.LastHeartbeat(0, 1, 91.0), 110.1) == []
    assert machine.deadline() == 120.0


def test_a_heartbeat_that_is_told_when_the_task_is_over_changes_nothing():
    machine = begun(heartbeat_timeout=10.0)
    machine.decide(ev.Tick(), 11.0)
    machine.decide(ev.Finished(0, 1, 1), 11.0)
    assert machine.decide(ev.LastHeartbeat(0, 1, None), 11.0) == []
    assert machine.deadline() is None


# ---- memory ------------------------------------------------------------------------------------------------


def test_too_much_memory_while_a_task_runs_is_answered_by_sigkill():
    machine = begun(hard_memory_per_child=1000, memory_interval=0.5)
    assert machine.decide(ev.Tick(), 1.5) == [do.CheckMemory(0, 1)]
    assert machine.decide(ev.MemoryMeasured(0, 1, 1000), 1.5) == []
    assert machine.decide(ev.Tick(), 2.0) == [do.CheckMemory(0, 1)]
    assert machine.decide(ev.MemoryMeasured(0, 1, 1001), 2.0) == [do.Signal(0, 1, KILL), do.Spawn(1, 2)]
    [report, fail] = machine.decide(ev.Died(0, 1, KILLED), 2.1)
    assert (report.cause, fail) == (Cause.MEMORY, do.Fail(1, Cause.MEMORY))


def test_memory_is_not_looked_at_while_nothing_runs():
    machine = begun(hard_memory_per_child=1000, memory_interval=0.5)
    machine.decide(ev.Finished(0, 1, 1), 1.2)
    assert machine.decide(ev.Tick(), 1.5) == []
    assert machine.deadline() is None
    machine.decide(ev.Submitted(2), 2.0)
    assert machine.deadline() == 2.5


def test_a_worker_that_still_has_too_much_memory_after_sigkill_is_given_up_in_time():
    machine = begun(hard_memory_per_child=1000, memory_interval=0.1)
    machine.decide(ev.MemoryMeasured(0, 1, 2000), 2.0)
    for now in (2.1, 2.19):
        machine.decide(ev.MemoryMeasured(0, 1, 2000), now)
    assert do.Fail(1, Cause.MEMORY) in machine.decide(ev.Tick(), 2.2)


def test_a_task_that_takes_too_much_memory_within_its_grace_is_killed_at_once_and_counts_as_a_timeout():
    machine = begun(timeout=5.0, hard_memory_per_child=1000, memory_interval=100.0)
    machine.decide(ev.Tick(), 6.0)
    assert machine.decide(ev.MemoryMeasured(0, 1, 2000), 6.1) == [do.Signal(0, 1, KILL)]
    assert do.Fail(1, Cause.TIMEOUT) in machine.decide(ev.Died(0, 1, KILLED), 6.2)


def test_a_worker_that_is_given_up_for_what_its_task_has_no_part_in_is_a_crash_to_the_task():
    machine = begun(hard_memory_per_child=1000, memory_interval=100.0)
    assert machine.decide(ev.Ready(0, 1), 2.0) == [do.Signal(0, 1, KILL)], "it spoke out of turn"
    machine.decide(ev.MemoryMeasured(0, 1, 2000), 2.0)
    assert machine.decide(ev.Tick(), 2.2) == [do.Fail(1, Cause.CRASH)]


# ---- Future.kill() -----------------------------------------------------------------------------------------


def test_a_running_task_that_is_to_be_killed_gets_sigkill_and_no_other_attempt():
    machine = begun(retries=5)
    assert machine.decide(ev.TaskKillRequested(1), 2.0) == [do.Signal(0, 1, KILL), do.Spawn(1, 2)]
    [report, fail] = machine.decide(ev.Died(0, 1, KILLED), 2.1)
    assert (report.cause, fail) == (Cause.KILL, do.Fail(1, Cause.KILL))
    assert machine.decide(ev.TaskKillRequested(1), 3.0) == []


def test_a_queued_task_that_is_to_be_killed_is_failed_without_a_worker():
    machine = begun()
    machine.decide(ev.Submitted(2), 1.0)
    assert machine.decide(ev.TaskKillRequested(2), 1.0) == [do.Fail(2, Cause.KILL)]
    assert machine.decide(ev.Finished(0, 1, 1), 1.0) == [do.Deliver(1)]


def test_a_task_that_is_to_be_killed_between_its_attempts_is_not_tried_again():
    machine = begun(retries=5, retry_backoff=10.0)
    machine.decide(ev.Died(0, 1, KILLED), 2.0)
    assert machine.decide(ev.TaskKillRequested(1), 3.0) == [do.Fail(1, Cause.KILL)]
    assert machine.deadline() is None
    assert machine.decide(ev.Tick(), 100.0) == []


def test_a_result_that_was_written_before_the_kill_is_delivered():
    machine = begun()
    machine.decide(ev.TaskKillRequested(1), 2.0)
    assert machine.decide(ev.Finished(0, 1, 1), 2.0)[0] == do.Deliver(1)


@pytest.mark.parametrize("unbegun", [False, True])
def test_the_callers_word_stands_above_a_timeout_that_would_grant_another_attempt(unbegun):
    machine = timed_out(retries=5, retry_on=(TaskTimeout, WorkerCrashed))
    assert machine.decide(ev.TaskKillRequested(1), 6.1) == [do.Signal(0, 1, KILL)]
    [report, fail] = machine.decide(ev.Died(0, 1, KILLED, int(unbegun)), 6.2)
    assert (report.cause, fail) == (Cause.KILL, do.Fail(1, Cause.KILL))


def test_asking_twice_wins_the_worker_no_time():
    machine = begun()
    machine.decide(ev.TaskKillRequested(1), 2.0)
    machine.decide(ev.TaskKillRequested(1), 2.19)
    assert machine.decide(ev.Tick(), 2.2) == [do.Fail(1, Cause.KILL)]


# ---- all that is the pool's own doing ----------------------------------------------------------------------


def test_with_on_crash_break_the_pools_own_kills_break_nothing():
    for end in (ev.TaskKillRequested(1), ev.MemoryMeasured(0, 1, 9999), ev.Tick()):
        machine = begun(timeout=5.0, hard_memory_per_child=1000, on_crash="break")
        machine.decide(end, 6.0)
        assert machine.slots[0].cause in (Cause.KILL, Cause.MEMORY, Cause.TIMEOUT)
        machine.decide(ev.Died(0, 1, KILLED), 7.5)
        assert machine.phase is Phase.OPEN


def test_a_crash_leaves_its_task_no_part_in_the_death_of_another():
    machine = started(2, timeout=5.0)
    machine.decide(ev.Submitted(1), 1.0)
    machine.decide(ev.Submitted(2), 2.0)
    assert machine.decide(ev.Tick(), 6.0) == [do.Signal(1, 2, TERM), do.Spawn(2, 3)]
    actions = machine.decide(ev.Died(0, 1, KILLED), 6.1)
    assert only(actions, do.Fail) == [do.Fail(2, Cause.CRASH)]
    actions = machine.decide(ev.Died(1, 2, KILLED), 6.2)
    assert only(actions, do.Fail) == [do.Fail(1, Cause.TIMEOUT)]


def test_a_shutdown_with_sigterm_finishes_what_blocks_it_and_gives_no_other_attempt():
    machine = begun(retries=3)
    assert machine.decide(ev.KillRequested(TERM), 2.0) == [do.Signal(0, 1, TERM)]
    [report, fail, stop] = machine.decide(ev.Died(0, 1, ENDED), 2.0)
    assert (report.cause, fail, stop) == (Cause.SHUTDOWN, do.Fail(1, Cause.CRASH), do.StopTemplate())
    machine = begun(retries=3)
    machine.decide(ev.KillRequested(TERM), 2.0)
    assert machine.decide(ev.Finished(0, 1, 1), 2.0) == [do.Deliver(1), do.Stop(0, 1)]


def test_the_pools_policy_decides_about_workers_and_the_tasks_about_time():
    policy = Policy(2, timeout=5.0, grace=2.0).refined({"timeout": 1.0})
    machine = begun(grace=2.0)
    machine.decide(ev.Finished(0, 1, 1), 1.0)
    machine.decide(ev.Submitted(2, policy), 2.0)
    machine.decide(ev.Tick(), 3.0)
    assert machine.decide(ev.Tick(), 3.96) == [do.DumpStack(0, 1)]
    assert machine.decide(ev.Tick(), 4.0) == [do.Signal(0, 1, KILL)]
