"""What becomes of a task before, between and after its attempts: deadline, retries, priority, shutdown."""

from __future__ import annotations

import pytest

from pidfdpool.deaths import Cause
from pidfdpool.errors import MemoryExceeded, WorkerCrashed
from pidfdpool.scheduler import actions as do
from pidfdpool.scheduler import events as ev
from pidfdpool.scheduler.machine import Machine
from pidfdpool.scheduler.states import Phase
from tests.scheduler.driving import KILL, KILLED, begun, get_ready, only, started

# ---- the deadline ------------------------------------------------------------------------------------------


def test_a_task_that_no_worker_was_given_within_its_deadline_expires_unrun():
    machine = begun(deadline=5.0)
    machine.decide(ev.Submitted(2), 2.0)
    assert machine.deadline() == 6.0, "task 1 has begun, so its timer runs in vain"
    assert machine.decide(ev.Tick(), 6.9) == []
    assert machine.decide(ev.Tick(), 7.0) == [do.Expire(2)]
    assert machine.decide(ev.Finished(0, 1, 1), 8.0) == [do.Deliver(1)]


def test_a_task_whose_deadline_has_passed_is_given_to_no_worker_though_no_tick_came():
    """The host was stopped: it reads first what workers wrote, and looks at deadlines afterwards."""
    machine = begun(deadline=5.0)
    machine.decide(ev.Submitted(2), 2.0)
    machine.decide(ev.Submitted(3), 4.0)
    assert machine.decide(ev.Finished(0, 1, 1), 8.0) == [do.Deliver(1), do.Expire(2), do.Send(0, 1, 3, 1, 9.0)]


def test_only_what_has_been_heard_of_is_judged():
    machine = begun(deadline=5.0)
    machine.decide(ev.Submitted(2), 2.0)
    assert machine.decide(ev.Tick(read_until=6.9), 8.0) == []
    assert machine.decide(ev.Tick(read_until=7.0), 8.0) == [do.Expire(2)]


def test_a_task_that_begins_in_time_is_told_its_deadline_and_may_take_longer():
    machine = started(1, deadline=5.0)
    assert machine.decide(ev.Submitted(1), 1.0) == [do.Send(0, 1, 1, 1, 6.0)]
    assert machine.decide(ev.Tick(), 100.0) == []


def test_a_task_that_comes_back_unread_after_its_deadline_expires():
    machine = begun(deadline=5.0)
    machine.decide(ev.Tick(), 6.5)
    assert do.Expire(1) in machine.decide(ev.Died(0, 1, KILLED, unbegun=1), 7.0)


def test_a_task_that_had_an_attempt_is_tried_again_after_its_deadline():
    machine = begun(deadline=5.0, retries=1, retry_backoff=0.0)
    assert only(machine.decide(ev.Died(0, 1, KILLED), 50.0), do.Retry) == [do.Retry(1, 2, 0.0)]
    assert machine.decide(ev.Tick(), 51.0) == []
    assert [send.attempt for send in get_ready(machine, 0, 2, 52.0)] == [2]


def test_a_cancelled_task_expires_no_more():
    machine = begun()
    machine.decide(ev.Submitted(2, machine.policy.refined({"deadline": 5.0})), 2.0)
    machine.decide(ev.Cancelled(2), 3.0)
    assert machine.deadline() is None


# ---- retries -----------------------------------------------------------------------------------------------


def crash(machine: Machine, now: float) -> list:
    """Have the worker that runs task 1 die; leave out the report and the spawns."""
    slot = machine.slots[machine.running[1]]
    actions = machine.decide(ev.Died(slot.index, slot.generation, KILLED), now)
    assert isinstance(actions[0], do.ReportDeath)
    return [action for action in actions[1:] if not isinstance(action, do.Spawn)]


def replace(machine: Machine, now: float) -> list:
    slot = next(slot for slot in machine.slots if slot.generation == machine.workforce._last_generation)
    return get_ready(machine, slot.index, slot.generation, now)


def test_a_crash_is_tried_again_after_pauses_that_double_and_then_it_fails():
    machine = begun(retries=2, retry_backoff=1.0)
    assert crash(machine, 10.0) == [do.Retry(1, 2, 1.0)]
    assert replace(machine, 10.1) == [], "the pause is not over"
    assert machine.deadline() == 11.0
    assert machine.decide(ev.Tick(), 11.0) == [do.Send(0, 2, 1, attempt=2)]
    assert crash(machine, 20.0) == [do.Retry(1, 3, 2.0)]
    replace(machine, 20.1)
    assert machine.decide(ev.Tick(), 22.0) == [do.Send(0, 3, 1, attempt=3)]
    assert crash(machine, 30.0) == [do.Fail(1, Cause.CRASH)]
    assert machine.retries == 2


def test_pauses_between_attempts_stop_doubling_at_their_limit():
    machine = begun(retries=9, retry_backoff=1.0, retry_backoff_limit=3.0)
    pauses = []
    for now in range(100, 500, 100):
        pauses += [action.pause for action in crash(machine, now)]
        replace(machine, now)
        machine.decide(ev.Tick(), now + 50.0)
    assert pauses == [1.0, 2.0, 3.0, 3.0]


def test_without_a_pause_a_task_goes_to_the_end_of_the_line_at_once():
    machine = begun(retries=1, retry_backoff=0.0)
    machine.decide(ev.Submitted(2), 1.0)
    assert crash(machine, 2.0) == [do.Retry(1, 2, 0.0)]
    assert list(machine.queue) == [2, 1]


def test_a_task_under_which_enough_workers_died_is_not_tried_again():
    machine = begun(retries=9, poison_after=2, retry_backoff=0.0)
    assert crash(machine, 2.0) == [do.Retry(1, 2, 0.0)]
    replace(machine, 2.0)
    assert crash(machine, 3.0) == [do.Fail(1, Cause.CRASH)]


def test_a_cause_that_retry_on_does_not_name_is_not_tried_again():
    machine = begun(retries=9, retry_on=(MemoryExceeded,), hard_memory_per_child=1000, retry_backoff=7.0)
    assert crash(machine, 2.0) == [do.Fail(1, Cause.CRASH)]
    machine = begun(retries=9, retry_on=(MemoryExceeded,), hard_memory_per_child=1000, retry_backoff=7.0)
    machine.decide(ev.MemoryMeasured(0, 1, 2000), 2.0)
    assert crash(machine, 2.1) == [do.Retry(1, 2, 7.0)]


def test_an_exception_of_the_task_is_tried_again_only_if_asked_for_and_granted():
    machine = begun(retries=1, retry_on=(ValueError,), retry_backoff=2.0)
    assert machine.decide(ev.Finished(0, 1, 1, failed=True), 2.0) == [do.Deliver(1)], "another exception"
    machine.decide(ev.Submitted(2), 3.0)
    assert machine.decide(ev.Finished(0, 1, 2, failed=True, retryable=True), 4.0) == [do.Retry(2, 2, 2.0)]
    assert machine.decide(ev.Tick(), 6.0) == [do.Send(0, 1, 2, attempt=2)]
    assert machine.decide(ev.Finished(0, 1, 2, failed=True, retryable=True), 7.0) == [do.Deliver(2)]


def test_the_loss_of_the_template_is_a_crash_to_the_task_in_its_worker():
    machine = begun(retries=1, retry_on=(WorkerCrashed,), retry_backoff=3.0)
    machine.decide(ev.TemplateLost("killed"), 2.0)
    assert crash(machine, 2.0) == [do.Retry(1, 2, 3.0)]


@pytest.mark.parametrize("refused", [False, True])
def test_a_task_that_was_never_read_has_not_used_up_an_attempt(refused):
    machine = begun(retries=0)
    if refused:
        machine.decide(ev.SendRefused(0, 1, 1), 2.0)
    actions = machine.decide(ev.Died(0, 1, KILLED, unbegun=int(not refused)), 2.0)
    assert not only(actions, do.Fail)
    assert [(send.task, send.attempt) for send in replace(machine, 2.0)] == [(1, 1)]
    assert machine.retries == 0


@pytest.mark.parametrize("own_kill", ["start", "babble"])
def test_a_task_that_was_handed_to_a_worker_on_its_way_out_and_never_read_waits_again(own_kill):
    machine = started(1, ready=0, start_timeout=3.0)
    machine.decide(ev.Submitted(1), 0.0)
    machine.decide(ev.Spawned(0, 1, 100), 0.0)
    if own_kill == "start":
        assert machine.decide(ev.Tick(), 3.0) == [do.Signal(0, 1, KILL)]
        assert only(machine.decide(ev.Ready(0, 1), 3.0), do.Send), "it got ready at the last moment"
    else:
        machine.decide(ev.Ready(0, 1), 1.0)
        machine.decide(ev.Ready(0, 1), 3.0)
    actions = machine.decide(ev.Died(0, 1, KILLED, unbegun=1), 3.1)
    assert not only(actions, do.Fail)
    assert list(machine.queue) == [1]


# ---- the order of the queue --------------------------------------------------------------------------------


def test_waiting_tasks_of_a_higher_priority_go_first_and_within_one_the_first_come():
    machine = begun()
    for task, priority in ((2, 0), (3, 5), (4, -1), (5, 5)):
        machine.decide(ev.Submitted(task, machine.policy.refined({"priority": priority})), 1.0)
    order, running = [], 1
    while running:
        sent = only(machine.decide(ev.Finished(0, 1, running), 2.0), do.Send)
        running = sent[0].task if sent else None
        order += [running] if running else []
    assert order == [3, 5, 2, 4]


def test_an_unread_task_goes_before_those_of_its_own_priority_and_after_those_of_a_higher_one():
    machine = begun()
    machine.decide(ev.Submitted(2), 1.0)
    machine.decide(ev.Submitted(3, machine.policy.refined({"priority": 1})), 1.0)
    machine.decide(ev.Died(0, 1, KILLED, unbegun=1), 2.0)
    assert list(machine.queue) == [3, 1, 2]


# ---- shutdown ----------------------------------------------------------------------------------------------


def test_a_shutdown_that_cancels_fails_a_task_between_its_attempts():
    machine = begun(retries=1, retry_backoff=30.0)
    crash(machine, 2.0)
    machine.decide(ev.Submitted(2), 2.0)
    actions = machine.decide(ev.ShutdownRequested(cancel=True), 3.0)
    assert actions[:2] == [do.Cancel(2), do.Fail(1, Cause.SHUTDOWN)]
    assert machine.phase is Phase.CLOSING


def test_a_shutdown_that_cancels_fails_a_task_whose_future_runs_though_no_worker_read_it():
    machine = begun()
    machine.decide(ev.Died(0, 1, KILLED, unbegun=1), 2.0)
    assert do.Fail(1, Cause.SHUTDOWN) in machine.decide(ev.ShutdownRequested(cancel=True), 3.0)


def test_a_shutdown_that_does_not_cancel_waits_for_further_attempts():
    machine = begun(retries=1, retry_backoff=30.0)
    crash(machine, 2.0)
    replace(machine, 2.0)
    assert machine.decide(ev.ShutdownRequested(), 3.0) == []
    assert machine.decide(ev.Tick(), 32.0) == [do.Send(0, 2, 1, attempt=2)]
    assert machine.decide(ev.Finished(0, 2, 1), 63.0) == [do.Deliver(1), do.Stop(0, 2)]


def test_a_break_ends_the_pause_between_two_attempts():
    machine = begun(retries=1, retry_backoff=30.0)
    crash(machine, 2.0)
    actions = machine.decide(ev.TemplateUnusable("its preload fails"), 3.0)
    assert only(actions, do.FailBroken) == [do.FailBroken(1, "its preload fails")]
    assert machine.decide(ev.Tick(), 100.0) == []


def test_a_break_at_a_crash_fails_a_task_that_would_be_tried_again():
    machine = begun(retries=5, on_crash="break")
    actions = crash(machine, 2.0)
    assert only(actions, do.FailBroken) == [do.FailBroken(1, machine.broken)]
    assert not only(actions, do.Fail)


def test_what_is_submitted_too_late_is_failed_and_does_not_hang():
    machine = started(1)
    machine.decide(ev.ShutdownRequested(), 1.0)
    assert machine.decide(ev.Submitted(1), 1.0) == [do.FailBroken(1, "the pool is shut down")]
