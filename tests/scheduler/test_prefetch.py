"""What is sent ahead of running tasks, and what is taken back, decided alone."""

from __future__ import annotations

import pytest

from pidfdpool.scheduler import actions as do
from pidfdpool.scheduler.prefetch import MAX_AHEAD, MAX_BATCH, UNBOUNDED
from pidfdpool.scheduler.states import Phase, State
from pidfdpool.scheduler.timers import Timer
from tests.scheduler.parts import Parts

MILLISECOND = 0.001


def busy_pool(workers: int = 1, queued: int = 0, **policy) -> Parts:
    """Return a pool whose workers all run a task, and so many further tasks in the queue."""
    parts = Parts(workers, **policy)
    for number in range(workers):
        parts.worker(State.BUSY, number)
    for number in range(100, 100 + queued):
        parts.add_task(number, queued=True)
    return parts


def test_as_many_are_sent_ahead_as_fit_into_the_time():
    parts = busy_pool(queued=30, prefetch=0.01)
    parts.prefetcher(MILLISECOND).send_ahead()
    assert parts.actions() == [do.Prefetch(0, 1, tuple(range(100, 110)))]
    assert parts.state.prefetched == dict.fromkeys(range(100, 110), 0)
    assert len(parts.queue) == 20


def test_however_short_tasks_are_their_number_is_limited():
    parts = busy_pool(queued=MAX_AHEAD + 10, prefetch=100.0)
    parts.prefetcher(1e-9).send_ahead()
    assert len(parts.workforce.slots[0].ahead) == MAX_AHEAD


def test_each_worker_gets_an_even_share():
    parts = busy_pool(2, queued=7)
    parts.prefetcher(MILLISECOND).send_ahead()
    assert [len(slot.ahead) for slot in parts.workforce.slots] == [4, 3]


def test_a_worker_with_enough_work_ahead_is_sent_nothing():
    parts = Parts(1)
    parts.worker(State.BUSY, 0, ahead=tuple(range(1, 21)))
    parts.add_task(100, queued=True)
    parts.prefetcher(MILLISECOND).send_ahead()
    assert parts.actions() == []


@pytest.mark.parametrize(
    "why", ["pace", "policy", "size", "starting", "leaving", "to drop", "recall", "cause", "task"]
)
def test_nothing_is_sent_ahead_where_it_might_not_be_run_soon(why):
    parts = busy_pool(queued=5, **({"max_tasks_per_child": 9} if why == "policy" else {}))
    slot = parts.workforce.slots[0]
    if why == "size":
        parts.state.size = 2
    elif why == "starting":
        parts.worker(State.STARTING)
    elif why == "leaving":
        slot.leaving = True
    elif why == "to drop":
        slot.to_drop = 1
    elif why == "recall":
        slot.recall_pending = True
    elif why == "cause":
        slot.cause = object()
    elif why == "task":
        parts.add_task(0, timeout=5.0)
    parts.prefetcher(None if why == "pace" else MILLISECOND).send_ahead()
    assert parts.actions() == []


def test_a_task_with_a_limit_of_its_own_stays_first_in_the_queue():
    parts = busy_pool()
    parts.add_task(5, queued=True)
    parts.add_task(6, queued=True, timeout=5.0)
    parts.add_task(7, queued=True)
    parts.prefetcher(MILLISECOND).send_ahead()
    assert parts.actions() == [do.Prefetch(0, 1, (5,))]
    assert list(parts.queue) == [6, 7]


def test_of_tasks_with_large_calls_one_is_ahead():
    parts = busy_pool()
    for number in (5, 6):
        parts.add_task(number, queued=True).heavy = True
    parts.prefetcher(MILLISECOND).send_ahead()
    assert (list(parts.workforce.slots[0].ahead), list(parts.queue)) == ([5], [6])


def test_a_more_urgent_task_has_everything_taken_back():
    parts = busy_pool(queued=3)
    prefetcher = parts.prefetcher(MILLISECOND)
    prefetcher.send_ahead()
    parts.actions()
    prefetcher.make_way(0)
    assert parts.actions() == []
    prefetcher.make_way(1)
    assert parts.actions() == [do.TakeBack(0, 1, 3)]


def test_one_task_is_taken_back_with_those_behind():
    parts = Parts(1)
    parts.worker(State.BUSY, 0, ahead=(1, 2, 3))
    parts.prefetcher().recall_task(2)
    assert parts.actions() == [do.TakeBack(0, 1, 2)]


# ---- idle workers ------------------------------------------------------------------------------------------


def one_behind(ahead: int, now: float = 0.0) -> Parts:
    parts = Parts(2)
    parts.worker(State.BUSY, 0, ahead=tuple(range(1, ahead + 1)))
    parts.worker()
    parts.workforce.slots[0].busy_since = now
    return parts


def test_an_idle_worker_gets_half_of_what_is_ahead_of_the_other():
    parts = one_behind(ahead=9)
    parts.prefetcher(MILLISECOND).rebalance(0.001)
    assert parts.actions() == [do.TakeBack(0, 1, 5)]


def test_it_gets_all_if_the_running_task_takes_long():
    parts = one_behind(ahead=9)
    parts.prefetcher(MILLISECOND).rebalance(0.002)
    assert parts.actions() == [do.TakeBack(0, 1, 9)]


def test_too_little_work_is_left_where_it_is_and_looked_at_again():
    parts = one_behind(ahead=3)
    parts.prefetcher(1e-5).rebalance(0.0)
    assert parts.actions() == []
    assert parts.timers.pop_due(0.001) == (Timer.BALANCE, 0)


def test_the_rest_is_not_left_behind_a_task_that_turns_out_to_take_long():
    parts = one_behind(ahead=9)
    prefetcher = parts.prefetcher(MILLISECOND)
    prefetcher.rebalance(0.001)
    slot = parts.workforce.slots[0]
    for _ in range(5):
        slot.ahead.pop()
    slot.recall_pending = False
    parts.actions()
    prefetcher.rebalance(0.0015)
    assert parts.actions() == [], "half was taken, and the task may be over soon"
    assert parts.timers.pop_due(0.002) == (Timer.BALANCE, 0)
    prefetcher.rebalance(0.002)
    assert parts.actions() == [do.TakeBack(0, 1, 4)]


def test_a_worker_is_asked_for_all_once_for_each_task_that_it_runs():
    parts = one_behind(ahead=9)
    prefetcher = parts.prefetcher(MILLISECOND)
    prefetcher.rebalance(0.002)
    parts.workforce.slots[0].recall_pending = False
    parts.actions()
    prefetcher.rebalance(1.0)
    assert parts.actions() == [], "what did not come back has begun, or never will"


# ---- the queue ---------------------------------------------------------------------------------------------


def test_while_all_workers_have_plenty_ahead_any_number_may_wait():
    parts = Parts(1)
    parts.worker(State.BUSY, 0, ahead=tuple(range(1, 50)))
    assert parts.prefetcher(MILLISECOND).queue_limit() == UNBOUNDED


def test_while_one_is_short_half_a_millisecond_of_work_may_wait():
    parts = busy_pool()
    assert parts.prefetcher(1e-5).queue_limit() == 50
    assert parts.prefetcher(1e-9).queue_limit() == MAX_BATCH
    assert parts.prefetcher(MILLISECOND).queue_limit() == 0


@pytest.mark.parametrize("why", ["phase", "idle", "deadline", "size", "urgent"])
def test_none_may_wait_where_a_decision_may_find_a_worker(why):
    parts = busy_pool(**({"deadline": 5.0} if why == "deadline" else {"priority": 3}))
    prefetcher = parts.prefetcher(MILLISECOND)
    if why == "phase":
        parts.state.phase = Phase.DRAINING
    elif why == "idle":
        parts.worker()
    elif why == "size":
        parts.state.size = 2
    elif why == "urgent":
        parts.add_task(7, queued=True, priority=-1)
        prefetcher.send_ahead()
    assert prefetcher.queue_limit() == 0
