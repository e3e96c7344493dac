"""What a task may take, decided alone: of whom what is asked, and which end follows from the answer."""

from __future__ import annotations

import pytest

from pidfdpool.deaths import Cause
from pidfdpool.errors import TaskTimeout
from pidfdpool.scheduler import actions as do
from pidfdpool.scheduler import events as ev
from pidfdpool.scheduler.limits import GIVE_UP_AFTER
from pidfdpool.scheduler.policy import STACK_TIME
from pidfdpool.scheduler.states import State
from pidfdpool.scheduler.timers import Timer
from tests.scheduler.parts import Parts


def busy(calls: int = 0, **policy):
    parts = Parts(**policy)
    slot = parts.worker(State.BUSY, 1)
    parts.state.tasks[1].calls = calls
    return parts, slot, parts.limits()


def gentle(cause=Cause.TIMEOUT):
    return cause, [do.Signal(0, 1, 15)]


# ---- time ------------------------------------------------------------------------------------------------------


def test_of_a_chunk_it_is_asked_when_the_call_under_way_began():
    parts, slot, limits = busy(calls=9, timeout=3.0)
    limits.on_timeout(slot, 10.0)
    assert (parts.actions(), slot.cause) == ([do.CheckCall(0, 1, 1, 7.0)], None)


@pytest.mark.parametrize("why", ["one task", "no timeout any more", "over"])
def test_what_is_no_chunk_with_a_limit_is_ended_at_once(why):
    parts, slot, limits = busy(calls=0 if why == "one task" else 9, timeout=None if "more" in why else 3.0)
    if why == "over":
        del parts.state.running[1]
    limits.on_timeout(slot, 10.0)
    assert (slot.cause, parts.actions()) == gentle()


@pytest.mark.parametrize(
    ("at", "due"), [(None, 5.0), (1.0, 5.0), (4.0, 7.0), (6.999, 9.999), (7.0, 10.0), (7.001, 10.001)]
)
@pytest.mark.parametrize("limit", ["timeout", "heartbeat_timeout"])
def test_a_call_or_a_heartbeat_has_its_whole_time_from_its_beginning_or_that_of_the_task(limit, at, due):
    parts, slot, limits = busy(calls=9, **{limit: 3.0})
    slot.busy_since = 2.0
    if limit == "timeout":
        limits.on_call_started(slot, ev.CallStarted(0, 1, at), 10.0)
        cause, timer = Cause.TIMEOUT, Timer.TIMEOUT
    else:
        limits.on_last_heartbeat(slot, ev.LastHeartbeat(0, 1, at), 10.0)
        cause, timer = Cause.HEARTBEAT, Timer.HEARTBEAT
    if due <= 10.0:
        assert (slot.cause, parts.actions()) == gentle(cause)
    else:
        assert (slot.cause, parts.actions()) == (None, [])
        assert parts.timers.next() == pytest.approx(due)
        assert parts.timers.pop_due(99.0) == (timer, 1)


def test_a_call_or_a_heartbeat_of_the_task_before_is_none_of_this_one():
    parts, slot, limits = busy(calls=9, timeout=3.0, heartbeat_timeout=4.0)
    slot.busy_since = 8.0
    limits.on_call_started(slot, ev.CallStarted(0, 1, 1.0), 10.0)
    limits.on_last_heartbeat(slot, ev.LastHeartbeat(0, 1, 1.0), 10.0)
    assert (parts.actions(), slot.cause) == ([], None)
    assert [parts.timers.pop_due(11.0), parts.timers.pop_due(12.0)] == [(Timer.TIMEOUT, 1), (Timer.HEARTBEAT, 1)]


@pytest.mark.parametrize("why", ["no task", "gone", "no limit"])
def test_an_answer_about_a_task_that_is_not_limited_any_more_changes_nothing(why):
    parts, slot, limits = busy(**({} if why == "no limit" else {"timeout": 3.0, "heartbeat_timeout": 3.0}))
    if why == "no task":
        slot.task = None
    elif why == "gone":
        del parts.state.tasks[1]
    limits.on_call_started(slot, ev.CallStarted(0, 1, 1.0), 99.0)
    limits.on_last_heartbeat(slot, ev.LastHeartbeat(0, 1, 1.0), 99.0)
    assert (parts.actions(), slot.cause, parts.timers.next()) == ([], None, None)


@pytest.mark.parametrize(
    ("calls", "timeout", "asked"),
    [(0, 3.0, do.CheckHeartbeat(0, 1, None, 7.0)), (9, 3.0, do.CheckHeartbeat(0, 1, 1, 7.0)),
     (0, None, do.CheckHeartbeat(0, 1, None, 0.0)), (9, None, do.CheckHeartbeat(0, 1, 1, 0.0))],
)  # fmt: skip
def test_the_last_heartbeat_is_asked_for_and_of_a_chunk_also_when_a_call_began(calls, timeout, asked):
    parts, slot, limits = busy(calls=calls, heartbeat_timeout=timeout)
    limits.on_heartbeat_due(slot, 10.0)
    assert parts.actions() == [asked]


# ---- memory ----------------------------------------------------------------------------------------------------


def test_the_memory_of_all_busy_workers_and_of_no_others_is_measured_in_turn():
    parts = Parts(4, hard_memory_per_child=1000, memory_interval=0.5)
    parts.worker(State.BUSY, 1)
    parts.worker()
    parts.worker(State.BUSY, 2)
    parts.worker(State.STARTING)
    limits = parts.limits()
    limits.on_memory_due(0, 1.0)
    assert parts.actions() == [do.CheckMemory(0, 1), do.CheckMemory(2, 3)]
    assert parts.timers.pop_due(1.5) == (Timer.MEMORY, 0)
    for slot in parts.workforce.slots:
        parts.workforce.move(slot, State.IDLE)
    limits.on_memory_due(0, 1.5)
    assert (parts.actions(), parts.timers.next()) == ([], None), "nothing is measured while nothing runs"


def test_memory_that_is_not_limited_is_not_measured():
    parts, slot, limits = busy()
    limits.watch_memory(1.0)
    limits.on_memory_measured(slot, ev.MemoryMeasured(0, 1, 1 << 60), 1.0)
    assert (parts.timers.next(), parts.actions(), slot.cause) == (None, [], None)


# ---- the caller's word -----------------------------------------------------------------------------------------


def test_a_task_is_killed_in_the_worker_that_has_it():
    parts = Parts()
    parts.worker(State.BUSY, 1)
    second = parts.worker(State.BUSY, 2, ahead=(3,))
    limits = parts.limits()
    limits.on_task_kill_requested(ev.TaskKillRequested(3), 1.0)
    assert parts.actions() == [do.TakeBack(1, 2, 1)]
    assert (second.kill_requested_for, parts.state.tasks[3].kill_requested) == (3, True)
    limits.on_task_kill_requested(ev.TaskKillRequested(1), 1.0)
    assert parts.actions() == [do.Signal(0, 1, 9)]
    assert parts.state.tasks[1].kill_requested


def test_a_task_that_came_back_from_ahead_is_failed_there_and_its_worker_left_alone():
    parts = Parts()
    slot = parts.worker(State.BUSY, 1, ahead=(2,))
    limits = parts.limits()
    limits.on_task_kill_requested(ev.TaskKillRequested(2), 1.0)
    parts.actions()
    limits._tasks.requeue_ahead(slot, 1)
    limits.kill_if_alone(slot, 1.0)
    assert parts.actions() == [do.Fail(2, Cause.KILL)]
    assert (list(parts.queue), slot.cause, slot.kill_requested_for) == ([], None, None)


@pytest.mark.parametrize("why", ["another runs", "over", "some are ahead", "nobody asked"])
def test_nothing_is_killed_but_the_task_that_was_meant(why):
    parts, slot, limits = busy()
    slot.kill_requested_for = None if why == "nobody asked" else 1
    if why == "another runs":
        slot.task = 7
    elif why == "over":
        del parts.state.running[1]
    elif why == "some are ahead":
        slot.ahead.append(2)
    elif why == "nobody asked":
        slot.task = None
    limits.kill_if_alone(slot, 1.0)
    assert (parts.actions(), slot.cause, slot.kill_requested_for) == ([], None, None)


# ---- the end of the worker -------------------------------------------------------------------------------------


@pytest.mark.parametrize("cause", [Cause.TIMEOUT, Cause.HEARTBEAT, Cause.MEMORY, Cause.KILL])
def test_a_worker_is_ended_gently_for_its_time_and_at_once_otherwise(cause):
    parts, slot, limits = busy(grace=4.0)
    parts.timers.set((Timer.TIMEOUT, 1), 9.0)
    parts.timers.set((Timer.HEARTBEAT, 1), 9.0)
    limits._terminate(slot, cause, 1.0)
    assert (slot.cause, slot.end_expected, slot.retire_cause, slot.leaving) == (cause, True, cause, True)
    assert parts.workforce.active == 0
    gently = cause in (Cause.TIMEOUT, Cause.HEARTBEAT)
    assert parts.actions() == [do.Signal(0, 1, 15 if gently else 9)]
    left = [parts.timers.pop_due(99.0) for _ in range(3)]
    assert left == ([(Timer.STACK, 1), (Timer.KILL, 1), None] if gently else [(Timer.GIVE_UP, 1), None, None])


@pytest.mark.parametrize(("grace", "asked"), [(2 * STACK_TIME, True), (2 * STACK_TIME - 0.001, False)])
def test_the_stack_is_asked_for_once_more_where_the_grace_is_long_enough(grace, asked):
    parts, slot, limits = busy(grace=grace)
    limits.on_timeout(slot, 1.0)
    assert ((Timer.STACK, 1) in parts.timers) == asked
    if asked:
        assert parts.timers.next() == pytest.approx(1.0 + grace - STACK_TIME)
        limits.on_stack_due(slot, 2.0)
        assert parts.actions()[-1] == do.DumpStack(0, 1)


@pytest.mark.parametrize("task", [None, 1])
def test_a_worker_whose_task_is_forgotten_is_killed_at_once(task):
    """There is no policy that would say how long it may take to end."""
    parts, slot, limits = busy()
    slot.task = task
    parts.state.tasks.clear()
    parts.state.running.clear()
    limits.on_timeout(slot, 1.0)
    assert (parts.actions(), slot.cause) == ([do.Signal(0, 1, 9)], Cause.TIMEOUT)


@pytest.mark.parametrize("state", [State.IDLE, State.STOPPING])
@pytest.mark.parametrize("cause", [Cause.TIMEOUT, Cause.MEMORY])
def test_only_a_busy_worker_is_ended_for_its_task(state, cause):
    parts, slot, limits = busy()
    parts.workforce.move(slot, state)
    limits._terminate(slot, cause, 1.0)
    assert (parts.actions(), slot.cause, slot.leaving) == ([], None, False)


def test_the_first_cause_stays_but_for_the_callers_word():
    _, slot, limits = busy()
    for cause, told in ((Cause.TIMEOUT, Cause.TIMEOUT), (Cause.MEMORY, Cause.TIMEOUT), (Cause.KILL, Cause.KILL)):
        limits._terminate(slot, cause, 1.0)
        assert slot.cause is told
    limits._terminate(slot, Cause.MEMORY, 1.0)
    assert slot.cause is Cause.KILL


def test_another_reason_to_kill_a_worker_gives_it_no_more_time():
    parts, slot, limits = busy()
    for now in (1.0, 1.1):
        limits.kill(slot, now)
    assert parts.timers.next() == 1.0 + GIVE_UP_AFTER
    assert parts.actions() == [do.Signal(0, 1, 9)] * 2


@pytest.mark.parametrize("calls", [0, 5])
def test_a_worker_that_is_given_up_is_not_counted_and_of_its_chunk_is_read_what_there_is(calls):
    parts, slot, limits = busy(calls=calls, retries=1, retry_on=TaskTimeout)
    slot.cause = Cause.TIMEOUT
    limits.on_give_up(slot, 1.0)
    read = [do.ReadPublished(0, 1, 1)] if calls else []
    assert parts.actions() == [*read, do.Retry(1, 2, 0.1)]
    assert (slot.state, slot.task, parts.workforce.active) == (State.STOPPING, None, 0)
    limits.on_give_up(slot, 2.0)
    assert parts.actions() == []
