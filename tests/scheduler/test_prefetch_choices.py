"""Which tasks go ahead of which worker, and from whom they come back: the choices and their bounds, alone."""

from __future__ import annotations

import pytest

from pidfdpool.scheduler import actions as do
from pidfdpool.scheduler.prefetch import MAX_AHEAD, UNBOUNDED
from pidfdpool.scheduler.states import Phase, State
from pidfdpool.scheduler.timers import Timer
from tests.scheduler.parts import Parts

MILLISECOND = 0.001


def busy(*ahead: int, queued: int = 0, **policy) -> Parts:
    """Return a pool with a busy worker for each number, which has so many tasks ahead, and so many in the queue."""
    parts = Parts(len(ahead), **policy)
    for index, count in enumerate(ahead):
        first = 1000 * (index + 1)
        parts.worker(State.BUSY, first, ahead=tuple(range(first + 1, first + 1 + count)))
    for number in range(1, queued + 1):
        parts.add_task(number, queued=True)
    return parts


def sent(parts: Parts) -> dict[int, int]:
    return {action.slot: len(action.tasks) for action in parts.actions() if isinstance(action, do.Prefetch)}


# ---- the pace --------------------------------------------------------------------------------------------------


def test_the_pace_is_an_average_that_moves_by_an_eighth_with_each_task():
    prefetcher = Parts().prefetcher()
    prefetcher.note_pace(0.5)
    assert prefetcher.pace == 0.5, "the first one is all that is known"
    prefetcher.note_pace(1.3)
    assert prefetcher.pace == pytest.approx(0.6)
    at_once, one_by_one = Parts().prefetcher(1.0), Parts().prefetcher(1.0)
    at_once.note_pace(0.0, 5)
    for _ in range(5):
        one_by_one.note_pace(0.0)
    assert at_once.pace == pytest.approx(one_by_one.pace)


def test_tasks_that_take_no_time_are_sent_ahead_in_a_number_that_is_limited():
    parts = busy(0, queued=MAX_AHEAD + 1)
    parts.prefetcher(0.0).send_ahead()
    assert sent(parts) == {0: MAX_AHEAD}


# ---- sending ahead ---------------------------------------------------------------------------------------------


def test_the_queue_is_shared_evenly_and_who_has_least_comes_first():
    parts = busy(3, 0, 1, queued=7, prefetch=1.0)
    parts.prefetcher(MILLISECOND).send_ahead()
    assert [(action.slot, action.tasks) for action in parts.actions()] == [(1, (1, 2, 3)), (2, (4, 5)), (0, (6, 7))]


def test_no_worker_has_more_ahead_than_fits_into_the_time():
    parts = busy(0, 5, queued=50, prefetch=0.02)
    parts.prefetcher(MILLISECOND).send_ahead()
    assert sent(parts) == {0: 20, 1: 15}
    assert [len(slot.ahead) for slot in parts.workforce.slots] == [20, 20]


@pytest.mark.parametrize(("ahead", "more"), [(9, True), (10, False)])
def test_a_worker_with_ten_milliseconds_of_work_ahead_is_sent_nothing(ahead, more):
    parts = busy(ahead, queued=3, prefetch=1.0)
    parts.prefetcher(MILLISECOND).send_ahead()
    assert bool(sent(parts)) == more


@pytest.mark.parametrize(("pace", "count"), [(0.02, 1), (0.3, 1), (1.0, 0), (2.0, 0)])
def test_of_long_tasks_one_is_ahead_if_it_fits_into_the_time(pace, count):
    parts = busy(0, queued=3, prefetch=0.5 if pace > 0.02 else 0.03)
    parts.prefetcher(pace).send_ahead()
    assert sum(sent(parts).values()) == count


@pytest.mark.parametrize("why", ["begun", "limited", "heavy"])
def test_a_task_that_has_to_wait_for_a_free_worker_lets_none_pass(why):
    parts = busy(0, queued=3)
    if why == "begun":
        parts.state.tasks[2].begun = True
    elif why == "limited":
        parts.state.tasks[2].policy = parts.policy.refined({"timeout": 5.0})
    else:
        parts.state.tasks[2].heavy = True
    parts.prefetcher(MILLISECOND).send_ahead()
    assert sent(parts) == {0: 1}
    assert list(parts.queue) == [2, 3]


def test_a_large_call_goes_ahead_where_nothing_is_and_behind_nothing():
    parts = busy(0, 1, queued=2)
    parts.state.tasks[1].heavy = parts.state.tasks[2].heavy = True
    parts.prefetcher(MILLISECOND).send_ahead()
    assert sent(parts) == {0: 1}
    assert list(parts.queue) == [2]


def test_what_is_ahead_is_known_by_its_worker_and_no_longer_in_the_queue():
    parts = busy(0, 0, queued=4)
    parts.prefetcher(MILLISECOND).send_ahead()
    assert parts.state.prefetched == {1: 0, 2: 0, 3: 1, 4: 1}
    assert [list(slot.ahead) for slot in parts.workforce.slots] == [[1, 2], [3, 4]]
    assert not parts.queue


def test_nothing_is_sent_while_nothing_waits():
    parts = busy(0)
    parts.prefetcher(MILLISECOND).send_ahead()
    assert parts.actions() == []


# ---- priorities ------------------------------------------------------------------------------------------------


def test_the_lowest_priority_that_is_ahead_of_any_worker_decides_what_is_more_urgent():
    parts = busy(0)
    prefetcher = parts.prefetcher(MILLISECOND)
    for number, priority in ((1, 5), (2, 3)):
        parts.add_task(number, queued=True, priority=priority)
    prefetcher.send_ahead()
    parts.add_task(3, queued=True, priority=7)
    prefetcher.send_ahead()
    parts.actions()
    prefetcher.make_way(3)
    assert parts.actions() == []
    prefetcher.make_way(4)
    assert parts.actions() == [do.TakeBack(0, 1, 3)]


def test_a_lower_priority_that_comes_later_counts_and_a_higher_one_changes_nothing():
    parts = busy(0)
    prefetcher = parts.prefetcher(MILLISECOND)
    for number, priority in ((1, 5), (2, 3), (3, 4)):
        parts.add_task(number, queued=True, priority=priority)
        prefetcher.send_ahead()
    parts.actions()
    prefetcher.make_way(3)
    assert parts.actions() == []
    prefetcher.make_way(4)
    assert parts.actions() == [do.TakeBack(0, 1, 3)]


def test_what_was_ahead_once_decides_no_more():
    parts = busy(0)
    prefetcher = parts.prefetcher(MILLISECOND)
    for number, priority in ((1, -5), (2, 8)):
        parts.add_task(number, queued=True, priority=priority)
        prefetcher.send_ahead()
        parts.actions()
        if priority == -5:
            parts.workforce.slots[0].ahead.clear()
            parts.state.prefetched.clear()
    prefetcher.make_way(8)
    assert parts.actions() == []
    prefetcher.make_way(9)
    assert parts.actions() == [do.TakeBack(0, 1, 1)]


# ---- taking back -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "count"), [(1001, 3), (1002, 2), (1003, 1)])
def test_a_task_comes_back_with_all_that_are_behind_it(number, count):
    parts = busy(3, 3)
    parts.prefetcher().recall_task(number)
    assert parts.actions() == [do.TakeBack(0, 1, count)]


def rebalanced(parts: Parts, now: float, pace: float = MILLISECOND) -> list:
    parts.prefetcher(pace).rebalance(now)
    return parts.actions()


def test_the_worker_that_is_furthest_behind_gives_something_back():
    parts = busy(4, 9, 6)
    assert rebalanced(parts, 0.0) == [do.TakeBack(1, 2, 5)]
    parts = busy(4, 4, 4)
    for slot, since in zip(parts.workforce.slots, (0.5, 0.4995, 0.4999), strict=True):
        slot.busy_since = since
    assert rebalanced(parts, 0.5) == [do.TakeBack(1, 2, 2)], "it has run its task for longest"


def test_what_a_task_has_taken_already_counts_as_much_as_what_is_ahead():
    parts = busy(8, 2)
    parts.workforce.slots[1].busy_since = -0.05
    assert rebalanced(parts, 0.0) == [do.TakeBack(1, 2, 2)]
    assert [slot.rebalanced for slot in parts.workforce.slots] == [0, 2]


@pytest.mark.parametrize(("ahead", "count"), [(1, 1), (2, 1), (3, 2), (8, 4)])
def test_half_is_rounded_up(ahead, count):
    parts = busy(ahead)
    assert rebalanced(parts, 0.0) == [do.TakeBack(0, 1, count)]
    assert parts.workforce.slots[0].rebalanced == 1
    assert parts.timers.pop_due(0.002) == (Timer.BALANCE, 0), "then the task has taken twice its time"


@pytest.mark.parametrize(
    ("pace", "ahead", "since", "count"),
    [(0.0001, 10, 0.00099, 5), (0.0001, 10, 0.001, 10), (0.01, 9, 0.0199, 5), (0.01, 9, 0.02, 9)],
)
def test_a_task_takes_long_after_twice_the_pace_and_a_millisecond(pace, ahead, since, count):
    parts = busy(ahead)
    assert rebalanced(parts, since, pace) == [do.TakeBack(0, 1, count)]
    assert parts.workforce.slots[0].rebalanced == (2 if count == ahead else 1)


@pytest.mark.parametrize(("pace", "taken"), [(0.0001, True), (0.0000999, False)])
def test_a_millisecond_of_work_is_worth_moving_and_less_is_not(pace, taken):
    parts = busy(10)
    assert rebalanced(parts, 0.0, pace) == ([do.TakeBack(0, 1, 5)] if taken else [])
    assert parts.timers.next() == 0.001
    assert parts.workforce.slots[0].rebalanced == int(taken)


@pytest.mark.parametrize("why", ["pace", "nothing ahead", "pending", "half taken", "all taken"])
def test_nothing_is_taken_back_where_nothing_is_to_be_had(why):
    parts = busy(0 if why == "nothing ahead" else 9)
    slot = parts.workforce.slots[0]
    slot.recall_pending = why == "pending"
    slot.rebalanced = {"half taken": 1, "all taken": 2}.get(why, 0)
    now = 5.0 if why == "all taken" else 0.0
    parts.prefetcher(None if why == "pace" else MILLISECOND).rebalance(now)
    assert (parts.actions(), parts.timers.next()) == ([], None)


def test_the_rest_stays_while_the_running_task_has_not_taken_long():
    parts = busy(9)
    slot = parts.workforce.slots[0]
    slot.rebalanced, slot.busy_since = 1, 5.0
    assert rebalanced(parts, 5.0015) == []
    assert rebalanced(parts, 5.0025) == [do.TakeBack(0, 1, 9)]


# ---- the queue -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ahead", "limit"), [(0, 0), (1, UNBOUNDED), (3, UNBOUNDED)])
def test_a_millisecond_of_work_ahead_of_every_worker_is_enough(ahead, limit):
    assert busy(ahead, 5).prefetcher(MILLISECOND).queue_limit() == limit


@pytest.mark.parametrize(("ahead", "limit"), [(9, 5), (10, UNBOUNDED)])
def test_as_much_may_wait_as_takes_half_a_millisecond(ahead, limit):
    assert busy(ahead).prefetcher(0.0001).queue_limit() == limit


def test_any_number_may_wait_where_nothing_is_sent_ahead():
    assert busy(0).prefetcher().queue_limit() == UNBOUNDED
    assert busy(0, timeout=5.0).prefetcher(MILLISECOND).queue_limit() == UNBOUNDED
    parts = Parts(1)
    parts.worker(State.STARTING)
    assert parts.prefetcher(MILLISECOND).queue_limit() == UNBOUNDED


def test_a_pool_that_does_not_accept_tasks_has_no_limit_to_look_at():
    parts = busy(50)
    for phase, limit in ((Phase.OPEN, UNBOUNDED), (Phase.DRAINING, 0), (Phase.CLOSING, 0)):
        parts.state.phase = phase
        assert parts.prefetcher(MILLISECOND).queue_limit() == limit


def test_a_pool_whose_own_tasks_are_as_urgent_as_what_is_ahead_lets_them_wait():
    for priority, limit in ((3, UNBOUNDED), (4, 0)):
        parts = busy(0, priority=priority)
        parts.add_task(1, queued=True, priority=3)
        parts.add_task(2, queued=True, priority=3)
        prefetcher = parts.prefetcher(MILLISECOND)
        prefetcher.send_ahead()
        assert prefetcher.queue_limit() == limit
