"""The decisions that change nothing but one task, alone; and that they refuse wherever anything else would change."""

from __future__ import annotations

import pytest

from pidfdpool.deaths import Cause
from pidfdpool.scheduler import events as ev
from pidfdpool.scheduler.states import Phase, State
from pidfdpool.scheduler.timers import Timer
from tests.scheduler.parts import Parts


def test_a_task_only_waits_while_all_workers_are_busy():
    parts = Parts(1)
    parts.worker(State.BUSY, 0)
    fast = parts.fast_path()
    assert fast.enqueue(1, True)
    assert (list(parts.queue), parts.state.tasks[1].heavy, parts.actions()) == ([1], True, [])


def test_a_task_does_not_wait_behind_a_full_batch():
    parts = Parts(1)
    parts.worker(State.BUSY, 0)
    fast = parts.fast_path(pace=0.00025)
    assert [fast.enqueue(number) for number in (1, 2, 3)] == [True, True, False]
    assert (list(parts.queue), list(parts.state.tasks)) == ([1, 2], [0, 1, 2])


def test_tasks_that_wait_share_what_is_known_of_them_until_it_changes():
    """Guards: what befalls one task that waits would befall all that were accepted in the same way."""
    parts = Parts(1)
    slot = parts.worker(State.BUSY, 0)
    fast, rules, tasks = parts.fast_path(), parts.tasks(), parts.state.tasks
    assert all(fast.enqueue(number, heavy) for number, heavy in ((1, False), (2, False), (3, True), (4, True)))
    assert tasks[1] is tasks[2]
    assert tasks[3] is tasks[4]
    assert rules.start(1, slot, 5.0) is tasks[1]
    assert rules.own(3) is tasks[3] is rules.own(3)
    tasks[3].deaths = 7
    assert [(tasks[number].attempt, tasks[number].begun, tasks[number].deaths) for number in (1, 2, 3, 4)] == [
        (1, True, 0), (0, False, 0), (0, False, 7), (0, False, 0),
    ]  # fmt: skip
    assert [tasks[number].heavy for number in (1, 2, 3, 4)] == [False, False, True, True]
    assert {task.policy for task in tasks.values()} == {parts.policy}


def test_a_task_that_is_to_be_killed_does_not_take_along_those_that_wait():
    parts = Parts(1)
    parts.worker(State.BUSY, 0, ahead=(1,))
    fast = parts.fast_path()
    assert fast.enqueue(2)
    parts.state.tasks[1] = parts.state.tasks[2]  # as those that wait are when they are sent ahead
    assert fast.enqueue(3)
    parts.limits().on_task_kill_requested(ev.TaskKillRequested(1), 5.0)
    assert [parts.state.tasks[number].kill_requested for number in (1, 2, 3)] == [True, False, False]


def test_how_many_may_wait_is_found_out_once_after_each_decision():
    parts = Parts(1)
    parts.worker(State.BUSY, 0)
    fast = parts.fast_path()
    fast.enqueue(1)
    parts.state.phase = Phase.DRAINING
    assert fast.enqueue(2)
    fast.queue_limit = None
    assert not fast.enqueue(3)


def test_a_task_for_an_idle_worker_begins_at_once():
    parts = Parts(2)
    parts.worker()
    slot = parts.worker()
    assert parts.fast_path().hand_over(1, 4.0) is slot
    assert (slot.state, slot.task, slot.busy_since) == (State.BUSY, 1, 4.0)
    assert (parts.state.running, parts.state.tasks[1].attempt, parts.actions()) == ({1: 1}, 1, [])


@pytest.mark.parametrize(
    "why", ["no worker", "phase", "policy", "idle_timeout", "queue", "ahead", "retiring", "size"]
)
def test_a_task_is_not_handed_over_where_more_is_to_be_decided(why):
    options = {"policy": {"timeout": 5.0}, "idle_timeout": {"idle_timeout": 5.0}}.get(why, {})
    parts = Parts(2, **options)
    if why != "no worker":
        parts.worker()
    if why == "phase":
        parts.state.phase = Phase.DRAINING
    elif why == "queue":
        parts.add_task(9, queued=True)
    elif why == "ahead":
        parts.worker(State.BUSY, 8, ahead=(9,))
    elif why == "retiring":
        parts.commands.retire(parts.worker(), Cause.AGE, 1.0)
    elif why == "size":
        parts.worker(State.BUSY, 8)
        parts.state.size = 1
    assert parts.fast_path().hand_over(1, 1.0) is None
    assert 1 not in parts.state.tasks


def test_a_task_that_waits_is_cancelled_and_nothing_is_left_of_it():
    parts = Parts(1)
    parts.worker(State.BUSY, 0)
    parts.add_task(1, queued=True, deadline=5.0)
    parts.add_task(2, queued=True)
    parts.timers.set((Timer.DEADLINE, 1), 5.0)
    fast = parts.fast_path()
    assert fast.cancel(1)
    assert (list(parts.queue), list(parts.state.tasks), parts.timers.next()) == ([2], [0, 2], None)
    assert (parts.actions(), fast.cancel(1)) == ([], False)


@pytest.mark.parametrize("why", ["runs", "ahead", "delayed", "to cancel", "unknown", "the last one", "given up"])
def test_a_task_is_not_cancelled_the_short_way_where_more_is_to_be_decided(why):
    parts = Parts(1)
    parts.worker(State.BUSY, 1 if why == "runs" else 0, ahead=(1,) if why == "ahead" else ())
    for number in () if why == "the last one" else (8, 9):
        parts.add_task(number, queued=True)
    if why in ("the last one", "given up", "delayed", "to cancel"):
        parts.add_task(1)
        where = {"delayed": parts.state.delayed, "to cancel": parts.state.to_cancel}.get(why, parts.queue)
        where.add(1, 0)
    if why == "given up":
        parts.state.phase = Phase.CLOSED
    before = list(parts.state.tasks), list(parts.queue)
    assert not parts.fast_path().cancel(1)
    assert (list(parts.state.tasks), list(parts.queue)) == before


def test_a_run_of_answers_is_taken_in_one_step():
    parts = Parts(1)
    slot = parts.worker(State.BUSY, 1, ahead=(2, 3, 4))
    fast = parts.fast_path()
    assert fast.take_answers(0, 1, [1, 2, 3], 0.3, 5.0) == 3
    assert (slot.task, list(slot.ahead), slot.tasks_done, slot.busy_since) == (4, [], 3, 5.0)
    assert (parts.state.running, parts.state.prefetched, list(parts.state.tasks)) == ({4: 0}, {}, [4])
    assert fast.take_answers(0, 1, [4], 0.1, 6.0) == 1
    assert (slot.state, slot.task, parts.state.tasks) == (State.IDLE, None, {})


def test_answers_are_a_measure_of_the_pace_and_forgive_young_deaths():
    parts = Parts(1)
    parts.worker(State.BUSY, 1)
    parts.limiter.young_death("killed", 0.0)
    fast = parts.fast_path(pace=0.8)
    fast.take_answers(0, 1, [1], 0, 5.0)
    assert (fast._prefetcher.pace, parts.limiter.streak) == (pytest.approx(0.7), 0)


@pytest.mark.parametrize("why", ["generation", "cause", "none runs", "another", "policy", "leaving", "drop", "queue"])
def test_an_answer_is_not_taken_where_more_is_to_be_decided(why):
    parts = Parts(1)
    slot = parts.worker(State.BUSY, 1)
    if why == "cause":
        slot.cause = Cause.TIMEOUT
    elif why == "none runs":
        parts.tasks().detach(slot)
    elif why == "policy":
        parts.add_task(1, timeout=5.0)
    elif why == "leaving":
        slot.leaving = True
    elif why == "drop":
        slot.to_drop = 1
    elif why == "queue":
        parts.add_task(9, queued=True)
    generation, number = 2 if why == "generation" else 1, 7 if why == "another" else 1
    assert parts.fast_path().take_answers(0, generation, [number], 0.1, 5.0) == 0
    assert 1 in parts.state.tasks
    assert slot.tasks_done == 0


def test_the_first_answers_are_taken_though_the_last_is_not():
    parts = Parts(1)
    slot = parts.worker(State.BUSY, 1, ahead=(2,))
    slot.leaving = True
    assert parts.fast_path().take_answers(0, 1, [1, 2], 0.2, 5.0) == 1
    assert (slot.task, slot.state) == (2, State.BUSY)
