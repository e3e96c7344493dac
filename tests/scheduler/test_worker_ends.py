"""What a worker gives back, why it leaves, and what is told of its death; decided alone."""

from __future__ import annotations

import pytest

from pidfdpool.deaths import Cause
from pidfdpool.pidfd import ExitStatus
from pidfdpool.scheduler import actions as do
from pidfdpool.scheduler import events as ev
from pidfdpool.scheduler.states import Phase, State
from pidfdpool.scheduler.timers import Timer
from tests.scheduler.driving import KILLED
from tests.scheduler.parts import Parts

# ---- what is taken back ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "why", "asked"),
    [
        (1, "leaving", True),
        (1, "cancelling", True),
        (1, None, False),
        (0, "leaving", False),
        (0, "cancelling", False),
    ],
)
def test_a_worker_that_is_to_have_nothing_ahead_is_asked_for_the_rest(count, why, asked):
    """Unless it gave back nothing: what is left has begun."""
    parts = Parts()
    slot = parts.worker(State.BUSY, 1, ahead=(2, 3))
    slot.recall_pending = True
    rules = parts.worker_rules()
    slot.leaving = why == "leaving"
    rules._tasks.cancelling = why == "cancelling"
    rules.on_taken_back(slot, ev.TakenBack(0, 1, count), 1.0)
    assert (slot.to_drop, slot.recall_pending, len(slot.ahead)) == (count, asked, 2 - count)
    assert parts.actions() == ([do.TakeBack(0, 1, 1)] if asked else [])


def test_what_did_not_come_back_has_begun_and_is_not_cancelled_any_more():
    parts = Parts()
    slot = parts.worker(State.BUSY, 1, ahead=(2, 3, 4))
    rules = parts.worker_rules()
    for number in (2, 4):
        rules._tasks.on_cancelled(ev.Cancelled(number), 1.0)
    rules.on_taken_back(slot, ev.TakenBack(0, 1, 1), 1.0)
    assert [action for action in parts.actions() if isinstance(action, do.Cancel)] == [do.Cancel(4)]
    assert rules._tasks.cancelled_ahead == set()


def test_what_was_taken_back_is_added_to_what_is_still_to_be_dropped():
    parts = Parts()
    slot = parts.worker(State.BUSY, 1, ahead=(2,))
    slot.to_drop = 2
    parts.worker_rules().on_taken_back(slot, ev.TakenBack(0, 1, 1), 1.0)
    assert slot.to_drop == 3


def test_what_begins_in_one_worker_leaves_what_is_to_be_cancelled_in_another():
    parts = Parts()
    slot, other = parts.worker(State.BUSY, 1, ahead=(2,)), parts.worker(State.BUSY, 5, ahead=(6,))
    rules = parts.worker_rules()
    for number in (2, 6):
        rules._tasks.on_cancelled(ev.Cancelled(number), 1.0)
    rules.on_taken_back(slot, ev.TakenBack(0, 1, 0), 1.0)
    assert rules._tasks.cancelled_ahead == {6}
    rules.on_taken_back(other, ev.TakenBack(1, 2, 1), 1.0)
    assert do.Cancel(6) in parts.actions()


def test_a_kill_that_waited_for_what_was_ahead_follows_then():
    parts = Parts()
    slot = parts.worker(State.BUSY, 1, ahead=(2,))
    rules = parts.worker_rules()
    rules._limits.request_kill(1, slot, 1.0)
    rules.on_taken_back(slot, ev.TakenBack(0, 1, 1), 1.0)
    assert parts.actions() == [do.TakeBack(0, 1, 1), do.Signal(0, 1, 9)]
    assert (slot.cause, list(parts.queue)) == (Cause.KILL, [2])


@pytest.mark.parametrize("known", ["", "it wrote text"])
def test_the_first_detail_of_a_violation_is_kept(known):
    parts = Parts()
    slot = parts.worker(State.BUSY, 1)
    rules = parts.worker_rules()
    slot.detail = known
    rules.on_dropped(slot, ev.Dropped(0, 1, 1), 1.0)
    assert slot.detail == (known or "it passed over tasks that nobody had taken back")
    rules.on_protocol_violated(slot, ev.ProtocolViolated(0, 1, "something else"), 1.0)
    assert slot.detail != "something else"
    assert (slot.cause, parts.actions()) == (Cause.BABBLE, [do.Signal(0, 1, 9)] * 2)


def test_a_violation_is_said_in_its_own_words():
    parts = Parts()
    slot = parts.worker()
    parts.worker_rules().on_protocol_violated(slot, ev.ProtocolViolated(0, 1, "it wrote text"), 1.0)
    assert (slot.detail, slot.cause) == ("it wrote text", Cause.BABBLE)


# ---- leaving ---------------------------------------------------------------------------------------------------


def test_a_worker_that_asks_for_it_leaves_at_once_and_one_that_is_too_old_when_it_is_replaced():
    parts = Parts()
    ill, old = parts.worker(), parts.worker()
    rules = parts.worker_rules()
    rules.on_unhealthy(ill, ev.Unhealthy(0, 1, "no disk"), 1.0)
    rules.on_too_old(old, 1.0)
    assert (ill.detail, ill.retire_cause, ill.state) == ("no disk", Cause.UNHEALTHY, State.STOPPING)
    assert (old.retire_cause, old.state, parts.workforce.retiring) == (Cause.AGE, State.IDLE, [old])
    assert parts.actions() == [do.Stop(0, 1)]


@pytest.mark.parametrize("why", ["busy", "replaced", "few"])
def test_a_worker_that_somebody_needs_is_not_ended_for_idleness(why):
    parts = Parts(min_workers=1)
    slot = parts.worker(State.BUSY if why == "busy" else State.IDLE)
    parts.state.level = 1 if why == "few" else 2
    if why == "replaced":
        parts.workforce.uncount(slot)
    parts.worker_rules().on_idle_too_long(slot, 5.0)
    assert (parts.actions(), parts.state.level) == ([], 1 if why == "few" else 2)


def test_a_worker_whose_channel_is_closed_has_a_moment_to_end():
    parts = Parts()
    slot = parts.worker()
    rules = parts.worker_rules()
    rules.on_channel_closed(slot, ev.ChannelClosed(0, 1), 1.0)
    assert (parts.actions(), parts.timers.pop_due(1.2)) == ([], (Timer.EXIT, 1))
    rules.on_exit_overdue(slot, 1.2)
    assert (parts.actions(), slot.cause) == ([do.Signal(0, 1, 9)], Cause.HUNG_UP)
    slot.cause = Cause.IDLE
    rules.on_exit_overdue(slot, 1.2)
    rules.on_stop_overdue(slot, 1.2)
    assert (parts.actions(), slot.cause) == ([do.Signal(0, 1, 9)] * 2, Cause.IDLE)
    assert parts.state.phase is Phase.OPEN


# ---- death -----------------------------------------------------------------------------------------------------


def died(parts, slot, unbegun=0, now=50.0, status=KILLED):
    parts.worker_rules().on_died(slot, ev.Died(slot.index, slot.generation, status, unbegun), now)
    return parts.actions()


def test_a_death_is_reported_with_all_that_is_known():
    parts = Parts(2, retries=2, retry_backoff=0.0)
    parts.worker()
    slot = parts.worker(State.BUSY, 7)
    slot.requested_at, slot.tasks_done, slot.detail = 20.0, 3, "it wrote text"
    parts.state.tasks[7].attempt = 2
    report, retry = died(parts, slot)
    assert report == do.ReportDeath(1, 2, 101, Cause.CRASH, KILLED, 30.0, 3, 7, 2, "it wrote text")
    assert retry == do.Retry(7, 3, 0.0)
    assert (slot.state, slot.pid, slot.task, list(slot.ahead)) == (State.DEAD, None, None, [])
    assert (parts.state.deaths, parts.state.running, list(parts.queue)) == (1, {}, [7])


def test_a_death_without_a_task_is_reported_without_one():
    parts = Parts()
    [report] = died(parts, parts.worker())
    assert (report.task, report.attempt, report.cause, report.detail) == (None, 0, Cause.CRASH, "")


@pytest.mark.parametrize(
    ("cause", "expected", "told", "of_task"),
    [
        (None, False, Cause.CRASH, Cause.CRASH),
        (None, True, Cause.TEMPLATE, Cause.CRASH),
        (Cause.TIMEOUT, True, Cause.TIMEOUT, Cause.TIMEOUT),
        (Cause.BABBLE, False, Cause.BABBLE, Cause.CRASH),
    ],
)
def test_the_cause_of_a_death_is_what_the_pool_did_or_else_a_crash(cause, expected, told, of_task):
    parts = Parts()
    slot = parts.worker(State.BUSY, 1)
    slot.cause, slot.end_expected = cause, expected
    report, outcome = died(parts, slot)
    assert report.cause is told
    assert outcome == do.Fail(1, of_task)


@pytest.mark.parametrize(("unbegun", "queued"), [(0, []), (1, [3]), (2, [2, 3]), (3, [1, 2, 3]), (4, [2, 3])])
def test_what_had_not_begun_goes_back_and_more_than_was_sent_is_not_believed(unbegun, queued):
    """A task that puts tokens down itself has begun."""
    parts = Parts()
    slot = parts.worker(State.BUSY, 1, ahead=(2, 3))
    lost = [action.task for action in died(parts, slot, unbegun) if isinstance(action, do.Fail)]
    assert (list(parts.queue), lost) == (queued, [number for number in (1, 2, 3) if number not in queued])
    assert list(parts.state.tasks) == queued
    assert parts.state.prefetched == {}


def test_a_task_for_which_its_worker_was_killed_is_lost_though_it_had_not_begun():
    parts = Parts()
    slot = parts.worker(State.BUSY, 1)
    slot.cause = Cause.KILL
    report, outcome = died(parts, slot, unbegun=1)
    assert (report.task, outcome) == (1, do.Fail(1, Cause.KILL))


def test_a_task_ahead_that_may_have_run_has_had_an_attempt():
    parts = Parts(retries=1, retry_backoff=0.0)
    slot = parts.worker(State.BUSY, 1, ahead=(2,))
    assert died(parts, slot)[1:] == [do.Retry(1, 2, 0.0), do.Retry(2, 2, 0.0)]
    assert parts.state.tasks[2].attempt == 1


@pytest.mark.parametrize(
    ("ready_at", "done", "task", "cause", "young"),
    [
        (None, 0, None, None, True),
        (45.1, 0, None, None, True),
        (45.0, 0, None, None, False),
        (49.0, 1, None, None, False),
        (49.0, 0, 1, None, False),
        (49.0, 0, None, Cause.START, True),
        (49.0, 0, None, Cause.BABBLE, True),
        (49.0, 0, None, Cause.HUNG_UP, True),
        (49.0, 0, None, Cause.RESIZE, False),
        (49.0, 0, None, Cause.IDLE, False),
    ],
)
def test_a_worker_died_young_if_it_did_nothing_and_was_not_asked_to_leave(ready_at, done, task, cause, young):
    parts = Parts(young_age=5.0)
    slot = parts.worker(State.IDLE if task is None else State.BUSY, task)
    slot.ready_at, slot.tasks_done, slot.cause = ready_at, done, cause
    died(parts, slot)
    assert parts.limiter.streak == int(young)


@pytest.mark.parametrize(("cause", "why"), [(Cause.START, ", because " + Cause.START.value), (None, "")])
def test_a_pool_that_breaks_for_young_deaths_names_the_last(cause, why):
    parts = Parts(intensity=0)
    slot = parts.worker()
    slot.cause = cause
    died(parts, slot, now=0.5)
    assert parts.state.broken.endswith(f"the last: worker 0 (pid 100) ended: {KILLED}{why}")


@pytest.mark.parametrize(
    ("task", "expected", "cause", "breaks"),
    [
        (1, False, None, True),
        (None, False, None, True),
        (1, True, None, True),
        (None, True, None, False),
        (1, False, Cause.TIMEOUT, False),
        (None, False, Cause.RESIZE, False),
    ],
)
def test_a_pool_that_breaks_at_every_crash_breaks_at_those_and_no_others(task, expected, cause, breaks):
    parts = Parts(on_crash="break", young_age=5.0)
    slot = parts.worker(State.IDLE if task is None else State.BUSY, task)
    slot.end_expected, slot.cause, slot.tasks_done = expected, cause, 1
    died(parts, slot, status=ExitStatus(code=3))
    if breaks:
        status = ExitStatus(code=3)
        assert parts.state.broken == (
            f"worker 0 (pid 100) ended: {status}; on_crash='break' makes every crash break the pool"
        )
    else:
        assert parts.state.broken is None


@pytest.mark.parametrize("on_crash", ["isolate", "break"])
def test_in_a_pool_that_closes_a_death_is_told_and_nothing_else_follows(on_crash):
    parts = Parts(on_crash=on_crash, intensity=0)
    slot = parts.worker()
    parts.state.phase = Phase.CLOSING
    [report] = died(parts, slot, now=0.1)
    assert report.cause is Cause.CRASH
    assert (parts.state.broken, parts.limiter.streak) == (None, 0)
