"""One worker's life, decided alone: its start, its work, and what it says on the way out."""

from __future__ import annotations

import pytest

from pidfdpool.deaths import Cause
from pidfdpool.scheduler import actions as do
from pidfdpool.scheduler import events as ev
from pidfdpool.scheduler.states import State, Template
from pidfdpool.scheduler.timers import Timer
from tests.scheduler.parts import Parts

# ---- the start -------------------------------------------------------------------------------------------------


def test_a_worker_that_is_forked_has_a_pid_and_is_expected_to_get_ready():
    parts = Parts(start_timeout=5.0)
    slot = parts.workforce.occupy(1.0)
    parts.timers.set((Timer.FORK, 1), 3.0)
    parts.worker_rules().on_spawned(slot, ev.Spawned(0, 1, 77), 2.0)
    assert (slot.pid, parts.state.forked_at, slot.state) == (77, 2.0, State.STARTING)
    assert parts.timers.pop_due(99.0) == (Timer.START, 1)
    assert parts.timers.next() is None


@pytest.mark.parametrize("why", ["stopping", "no limit"])
def test_no_start_is_waited_for_where_none_is_limited_or_wanted(why):
    parts = Parts(**({"start_timeout": 5.0} if why == "stopping" else {}))
    slot = parts.workforce.occupy(1.0)
    if why == "stopping":
        parts.workforce.move(slot, State.STOPPING)
    parts.worker_rules().on_spawned(slot, ev.Spawned(0, 1, 77), 2.0)
    assert (Timer.START, 1) not in parts.timers


def test_a_fork_is_a_sign_that_something_can_be_started():
    parts = Parts(period=1.0, intensity=0)
    breaker = parts.breaker()
    breaker.failed_start("no", 0.0, fatal=False)
    parts.worker_rules().on_spawned(parts.workforce.occupy(0.5), ev.Spawned(0, 1, 77), 0.5)
    parts.workforce.vacate(parts.workforce.slots[0])
    breaker.failed_start("no", 1.2, fatal=False)
    assert parts.state.broken is None


def test_a_template_that_has_forked_lately_has_so_long_from_then_on():
    parts = Parts(spawn_timeout=5.0)
    parts.state.template, parts.state.forked_at = Template.UP, 3.0
    slot = parts.workforce.occupy(0.0)
    rules = parts.worker_rules()
    rules.on_fork_overdue(slot, 7.9)
    assert (parts.actions(), parts.timers.pop_due(8.0)) == ([], (Timer.FORK, 1))
    rules.on_fork_overdue(slot, 8.0)
    assert (parts.actions(), parts.timers.next()) == ([do.KillTemplate()], None)


def test_a_start_takes_too_long_only_while_it_lasts():
    parts = Parts()
    rules = parts.worker_rules()
    rules.on_start_overdue(parts.worker(), 5.0)
    assert parts.actions() == []
    slot = parts.worker(State.STARTING)
    rules.on_start_overdue(slot, 5.0)
    assert (parts.actions(), slot.cause) == ([do.Signal(1, 2, 9)], Cause.START)
    slot.cause = Cause.RESIZE
    rules.on_start_overdue(slot, 5.0)
    assert slot.cause is Cause.RESIZE


@pytest.mark.parametrize("others", [0, 1])
def test_a_fork_that_fails_breaks_a_pool_without_workers_only(others):
    parts = Parts(intensity=0)
    for _ in range(others):
        parts.worker()
    slot = parts.workforce.occupy(1.0)
    rules = parts.worker_rules()
    rules.on_spawn_failed(slot, ev.SpawnFailed(slot.index, slot.generation, "fork: no"), 1.0)
    assert (slot.state, parts.limiter.not_before > 1.0) == (State.DEAD, True)
    assert (parts.state.broken is None) == bool(others)
    if not others:
        assert parts.state.broken.endswith("no worker could be started: fork: no")
    assert not any(isinstance(action, do.Stop) for action in parts.actions())


def test_a_worker_that_was_unhealthy_before_it_was_ready_leaves_and_died_young():
    parts = Parts(intensity=0, start_timeout=5.0, max_age=9.0)
    slot = parts.worker(State.STARTING)
    slot.leaving, slot.retire_cause, slot.detail = True, Cause.UNHEALTHY, "no disk"
    parts.timers.set((Timer.START, 1), 5.0)
    parts.worker_rules().on_ready(slot, ev.Ready(0, 1), 1.0)
    assert (slot.ready_at, slot.state, slot.cause) == (1.0, State.STOPPING, Cause.UNHEALTHY)
    assert parts.actions()[0] == do.Stop(0, 1)
    assert parts.state.broken.endswith("worker 0 (pid 100) said that it is unhealthy: no disk")
    assert [timer in parts.timers for timer in ((Timer.START, 1), (Timer.AGE, 1), (Timer.STOP, 1))] == [
        False, False, True,
    ]  # fmt: skip


@pytest.mark.parametrize("why", [None, Cause.TASKS])
def test_a_worker_that_is_to_leave_when_it_is_ready_leaves_for_that_reason(why):
    parts = Parts()
    slot = parts.worker(State.STARTING)
    slot.leaving, slot.retire_cause = True, why
    parts.worker_rules().on_ready(slot, ev.Ready(0, 1), 1.0)
    assert slot.cause is (why or Cause.UNHEALTHY)


def test_a_worker_that_is_ready_is_no_longer_expected_to_be_and_no_moment_is_waited_for_without_a_limit():
    parts = Parts()
    slot = parts.worker(State.STARTING)
    parts.timers.set((Timer.START, 1), 5.0)
    parts.worker_rules().on_ready(slot, ev.Ready(0, 1), 1.0)
    assert (slot.state, slot.ready_at, parts.timers.next()) == (State.IDLE, 1.0, None)


def test_an_initializer_that_raises_breaks_the_pool():
    parts = Parts()
    slot = parts.worker(State.STARTING)
    parts.worker_rules().on_initializer_failed(slot, ev.InitializerFailed(0, 1, "ValueError"), 1.0)
    assert (slot.cause, parts.state.broken) == (Cause.BROKEN, "the initializer raised in a worker: ValueError")


# ---- work ------------------------------------------------------------------------------------------------------


def test_a_worker_that_gets_a_task_is_no_longer_idle_for_too_long():
    parts = Parts(idle_timeout=5.0)
    slot = parts.worker()
    parts.timers.set((Timer.IDLE, 1), 5.0)
    parts.add_task(1, queued=True)
    parts.worker_rules().hand_out(1.0)
    assert (slot.state, slot.task, parts.timers.next()) == (State.BUSY, 1, None)


def test_a_task_whose_deadline_has_passed_is_passed_over_and_the_next_one_begins():
    parts = Parts(1)
    parts.worker()
    parts.add_task(1, deadline=2.0, queued=True)
    parts.add_task(2, queued=True)
    parts.worker_rules().hand_out(2.0)
    assert parts.actions() == [do.Expire(1), do.Send(0, 1, 2)]


@pytest.mark.parametrize(
    ("done", "calls", "last"), [(0, 0, False), (1, 0, False), (2, 0, True), (0, 2, False), (0, 3, True), (1, 2, True)]
)
def test_a_worker_gets_no_other_task_when_it_has_had_its_number(done, calls, last):
    parts = Parts(1, max_tasks_per_child=3)
    slot = parts.worker()
    slot.tasks_done = done
    parts.add_task(1, queued=True).calls = calls
    parts.worker_rules().hand_out(1.0)
    assert slot.leaving == last
    assert slot.retire_cause is (Cause.TASKS if last else None)


@pytest.mark.parametrize("limited", [False, True])
def test_memory_is_watched_from_the_first_task_on_where_it_is_limited(limited):
    parts = Parts(1, **({"hard_memory_per_child": 1000} if limited else {}))
    parts.worker()
    parts.add_task(1, queued=True)
    parts.worker_rules().hand_out(1.0)
    assert ((Timer.MEMORY, 0) in parts.timers) == limited


def test_an_answer_is_counted_measures_the_pace_and_forgives_young_deaths():
    parts = Parts()
    slot = parts.worker(State.BUSY, 1)
    parts.limiter.young_death("killed", 0.0)
    rules = parts.worker_rules(pace=0.8)
    rules.on_finished(slot, ev.Finished(0, 1, 1, seconds=0.0, calls=4), 1.0)
    assert (slot.tasks_done, parts.limiter.streak) == (4, 0)
    assert rules._prefetcher.pace == pytest.approx(0.7)
    assert (slot.state, slot.task, parts.state.tasks, parts.state.running) == (State.IDLE, None, {}, {})


def test_an_answer_whose_time_is_not_known_measures_nothing():
    parts = Parts()
    rules = parts.worker_rules(pace=0.8)
    rules.on_finished(parts.worker(State.BUSY, 1), ev.Finished(0, 1, 1), 1.0)
    assert rules._prefetcher.pace == 0.8


@pytest.mark.parametrize(("memory", "replaced"), [(1000, False), (1001, True)])
def test_a_worker_that_has_too_much_memory_after_a_task_is_replaced(memory, replaced):
    parts = Parts(max_memory_per_child=1000)
    slot = parts.worker(State.BUSY, 1)
    parts.worker_rules().on_finished(slot, ev.Finished(0, 1, 1, memory=memory), 1.0)
    assert slot.retire_cause is (Cause.RETIRED if replaced else None)
    assert parts.workforce.retiring == ([slot] if replaced else [])
    assert slot.state is State.IDLE


@pytest.mark.parametrize(
    ("failed", "retryable", "retries", "action"),
    [
        (False, False, 1, do.Deliver(1)),
        (True, False, 1, do.Deliver(1)),
        (True, True, 1, do.Retry(1, 2, 0.0)),
        (True, True, 0, do.Deliver(1)),
    ],
)
def test_an_outcome_is_delivered_unless_the_task_is_tried_again(failed, retryable, retries, action):
    parts = Parts(retries=retries, retry_backoff=0.0)
    slot = parts.worker(State.BUSY, 1)
    parts.worker_rules().on_finished(slot, ev.Finished(0, 1, 1, failed, retryable), 1.0)
    assert parts.actions() == [action]
    assert list(parts.queue) == list(parts.state.tasks) == ([1] if isinstance(action, do.Retry) else [])


@pytest.mark.parametrize("failed", [False, True])
@pytest.mark.parametrize("calls", [0, 5])
def test_the_outcome_of_a_task_whose_worker_is_being_ended_for_it(failed, calls):
    """What it raises is what SIGTERM made of it; but of a chunk something may be there already."""
    parts = Parts()
    slot = parts.worker(State.BUSY, 1)
    parts.state.tasks[1].calls = calls
    slot.cause = Cause.TIMEOUT
    parts.worker_rules().on_finished(slot, ev.Finished(0, 1, 1, failed), 1.0)
    published = [do.ReadPublished(0, 1, 1)] if failed and calls else []
    outcome = do.Fail(1, Cause.TIMEOUT) if failed else do.Deliver(1)
    assert parts.actions() == [*published, outcome, do.Stop(0, 1)]
    assert (slot.state, slot.tasks_done) == (State.STOPPING, 1)


def test_the_outcome_of_a_task_that_has_one_already_changes_nothing_but_the_worker():
    parts = Parts()
    slot = parts.worker(State.BUSY, 1)
    del parts.state.running[1], parts.state.tasks[1]
    parts.worker_rules().on_finished(slot, ev.Finished(0, 1, 1), 1.0)
    assert (parts.actions(), slot.state, slot.task) == ([], State.IDLE, None)


@pytest.mark.parametrize("why", [None, Cause.TASKS])
def test_a_worker_that_is_to_leave_is_told_so_after_its_task(why):
    parts = Parts()
    slot = parts.worker(State.BUSY, 1)
    slot.leaving, slot.retire_cause = True, why
    parts.worker_rules().on_finished(slot, ev.Finished(0, 1, 1), 1.0)
    assert parts.actions() == [do.Deliver(1), do.Stop(0, 1)]
    assert slot.cause is (why or Cause.UNHEALTHY)


def test_a_worker_that_has_yet_to_drop_what_was_taken_back_gets_nothing():
    parts = Parts()
    slot = parts.worker(State.BUSY, 1)
    slot.to_drop = 1
    rules = parts.worker_rules()
    rules.on_finished(slot, ev.Finished(0, 1, 1), 1.0)
    assert (parts.actions(), slot.state) == ([do.Deliver(1)], State.BUSY)
    rules.on_dropped(slot, ev.Dropped(0, 1, 1), 2.0)
    assert (slot.state, parts.workforce.idle) == (State.IDLE, [0])


def test_a_worker_that_drops_while_it_runs_a_task_goes_on_with_that():
    parts = Parts()
    slot = parts.worker(State.BUSY, 1)
    slot.to_drop = 3
    parts.worker_rules().on_dropped(slot, ev.Dropped(0, 1, 3), 2.0)
    assert (slot.state, slot.to_drop, parts.actions()) == (State.BUSY, 0, [])


def test_a_task_whose_kill_was_asked_for_while_it_was_ahead_is_killed_when_its_turn_comes():
    parts = Parts()
    slot = parts.worker(State.BUSY, 1, ahead=(2,))
    parts.state.tasks[2].kill_requested = True
    parts.worker_rules().on_finished(slot, ev.Finished(0, 1, 1), 1.0)
    assert parts.actions() == [do.Deliver(1), do.MarkBegun(0, 1, 2), do.Signal(0, 1, 9)]
    assert slot.cause is Cause.KILL


def test_after_answers_that_were_taken_the_next_task_is_marked():
    parts = Parts()
    slot = parts.worker(State.BUSY, 1)
    parts.worker_rules().on_answered(slot, ev.Answered(0, 1), 1.0)
    assert parts.actions() == [do.MarkBegun(0, 1, 1)]


@pytest.mark.parametrize(
    ("before", "expected", "cause"),
    [(None, False, "own"), (None, True, Cause.TEMPLATE), (Cause.MEMORY, False, Cause.MEMORY)],
)
@pytest.mark.parametrize("how", ["refused", "outdated"])
def test_a_worker_that_never_read_its_task_has_that_queued_and_is_expected_to_end(how, before, expected, cause):
    parts = Parts(stop_grace=4.0, timeout=3.0)
    slot = parts.worker(State.BUSY, 1)
    parts.timers.set((Timer.TIMEOUT, 1), 3.0)
    slot.cause, slot.end_expected = before, expected
    rules = parts.worker_rules()
    if how == "refused":
        rules.on_send_refused(slot, ev.SendRefused(0, 1, 1), 1.0)
        own = Cause.REFUSED
    else:
        rules.on_outdated(slot, ev.Outdated(0, 1), 1.0)
        own = Cause.SCRIPT
    assert slot.cause is (own if cause == "own" else cause)
    assert (slot.state, parts.workforce.active) == (State.STOPPING, 0)
    if how == "refused" or before is None:
        assert (list(parts.queue), slot.task, parts.state.tasks[1].attempt) == ([1], None, 0)
        assert parts.timers.pop_due(99.0) == (Timer.STOP, 1)
        assert parts.timers.next() is None


def test_tasks_ahead_of_a_worker_that_lacks_the_script_come_behind_its_own():
    parts = Parts()
    slot = parts.worker(State.BUSY, 1, ahead=(2, 3))
    parts.worker_rules().on_outdated(slot, ev.Outdated(0, 1), 1.0)
    assert (list(parts.queue), list(slot.ahead), parts.state.prefetched) == ([1, 2, 3], [], {})


@pytest.mark.parametrize("known", [False, True])
def test_a_task_that_was_cancelled_just_before_it_was_sent_is_forgotten(known):
    parts = Parts()
    slot = parts.worker(State.BUSY, 1)
    if not known:
        del parts.state.tasks[1]
    parts.worker_rules().on_send_skipped(slot, ev.SendSkipped(0, 1, 1), 1.0)
    assert (parts.state.tasks, parts.state.running, slot.task, slot.state) == ({}, {}, None, State.IDLE)
    assert parts.actions() == []
