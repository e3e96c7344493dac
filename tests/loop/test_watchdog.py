"""Who reads the channels while the pool thread only looks: the decisions, with a clock and a poller of the test's."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from pidfdpool.loop import watchdog as watchdogs
from pidfdpool.loop.watchdog import AGAIN, CLOSE, FEW, FEW_AWAITED, GAP, LOOKS, MANY, MANY_WAITING, PAUSES, TICK


class Poller:
    """`watches`: the pool thread watches the channels."""

    def __init__(self):
        self.watches, self.guarded, self.reader, self.leader = True, False, None, {}
        self.reads, self.left_at, self.unread = 0, float("-inf"), []

    def lead(self):
        self.watches = False

    def follow(self):
        self.watches = True

    def wait_for_answers(self, timeout):
        assert timeout == 0
        return self.unread


class Reader:
    """Stands for an event loop's."""

    can_watch = True

    def watch(self, _poller):
        return self.can_watch


class Clock:
    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(watchdogs, "time", clock)
    return clock


@pytest.fixture
def poller():
    return Poller()


@pytest.fixture
def pool(poller):
    return SimpleNamespace(poller=poller, outbox=SimpleNamespace(left=[]), closed=False, tasks={}, has_waiting=False)


@pytest.fixture
def watchdog(pool, clock):
    return watchdogs.Watchdog(pool)


def offer(watchdog, clock, reader, seconds=CLOSE / 2):
    """Have the event loop get a result, and the pool thread look after it."""
    clock.now += seconds
    watchdog.offered = reader
    watchdog.look()


def reading(watchdog, clock):
    reader = Reader()
    offer(watchdog, clock, reader)
    offer(watchdog, clock, reader)
    return reader


def look(watchdog, clock, times=1):
    for _ in range(times):
        clock.now += TICK
        watchdog.look()


# ---- event loops -------------------------------------------------------------------------------------------------


def test_a_loop_reads_when_its_results_come_close_one_upon_the_other(watchdog, clock, poller):
    assert watchdog.limit(None) is None
    reader = reading(watchdog, clock)
    assert (poller.reader, poller.guarded, poller.watches) == (reader, True, False)
    assert (watchdog.limit(None), watchdog.limit(100.0), watchdog.limit(0.001)) == (TICK, TICK, 0.001)


def test_a_loop_that_got_one_result_does_not_read_however_often_the_pool_thread_wakes(watchdog, clock, poller):
    """Guards: it stayed offered, and the turns of the pool thread that followed counted as its results."""
    offer(watchdog, clock, Reader())
    for _ in range(5):
        clock.now += CLOSE / 10
        watchdog.look()
    assert (poller.reader, watchdog.offered) == (None, None)


def test_a_loop_does_not_read_whose_results_come_far_apart(watchdog, clock, poller):
    for _ in range(3):
        offer(watchdog, clock, Reader(), 2 * CLOSE)
    assert poller.reader is None


@pytest.mark.parametrize("why", ["leader", "left", "closed", "waiting", "many", "cannot"])
def test_a_loop_does_not_read_where_others_could_wait_for_it_or_it_cannot(
    watchdog, clock, pool, poller, why, monkeypatch
):
    if why == "leader":
        poller.leader[None] = 1
    elif why == "left":
        pool.outbox.left.append(None)
    elif why == "closed":
        pool.closed = True
    elif why == "waiting":
        pool.has_waiting = True
    elif why == "many":
        pool.tasks = dict.fromkeys(range(FEW_AWAITED + 1))
    else:
        monkeypatch.setattr(Reader, "can_watch", False)
    reading(watchdog, clock)
    assert (poller.reader, poller.guarded, poller.watches) == (None, False, True)


def test_while_a_loop_reads_the_pool_thread_leaves_it_alone_and_else_takes_the_channels_back(watchdog, clock, poller):
    reading(watchdog, clock)
    for _ in range(10):
        look(watchdog, clock, LOOKS - 1)
        poller.reads += 1
        look(watchdog, clock)
    assert not poller.watches
    look(watchdog, clock, LOOKS - 1)
    assert not poller.watches
    look(watchdog, clock)
    assert (poller.watches, poller.guarded, poller.reader, watchdog.limit(None)) == (True, False, None, None)


def test_a_second_time_it_gets_as_many_looks_as_the_first_time(watchdog, clock, poller):
    for _ in range(2):
        reading(watchdog, clock)
        look(watchdog, clock, LOOKS - 1)
        assert poller.guarded
        look(watchdog, clock)
        assert not poller.guarded


def test_looks_that_follow_one_another_at_once_count_once(watchdog, clock, poller):
    reading(watchdog, clock)
    clock.now += TICK
    for _ in range(5):
        watchdog.look()
    assert poller.guarded


def test_a_loop_that_left_something_unread_does_not_read_for_a_while(watchdog, clock, poller):
    reading(watchdog, clock)
    poller.unread = [(7, 1)]
    look(watchdog, clock, LOOKS)
    assert poller.watches
    reading(watchdog, clock)
    assert poller.reader is None
    clock.now += PAUSES[1]
    reading(watchdog, clock)
    assert poller.reader is not None


def test_a_loop_that_has_got_too_much_to_do_is_relieved_at_once(watchdog, clock, poller, pool):
    reading(watchdog, clock)
    pool.tasks = dict.fromkeys(range(FEW_AWAITED + 1))
    poller.reads += 1
    look(watchdog, clock)
    assert (poller.reader, poller.watches) == (None, True)


def test_pauses_grow_up_to_a_limit_and_are_short_again_when_the_loop_has_read_much(watchdog, clock, poller):
    pauses = []

    def postpone():
        watchdog.postpone()
        pauses.append(round(watchdog._not_before - clock.now, 6))

    for _ in range(8):
        postpone()
    first, longest = PAUSES
    assert pauses == [min(2**n * first, longest) for n in range(1, 9)]
    poller.reads += MANY + 1
    postpone()
    assert pauses[-1] == first


# ---- threads that wait for one result after the other ------------------------------------------------------------


def meet(watchdog, clock, poller, times=2):
    """Have the pool thread be woken by the channels so often just behind a leader; return what it does at last."""
    for _ in range(times):
        clock.now += AGAIN / 2
        poller.left_at = clock.now - GAP / 2
        stands_back = watchdog.stands_back()
    return stands_back


def test_answers_lie_when_the_pool_thread_has_met_a_leader_twice(watchdog, clock, poller):
    assert not watchdog.stands_back(), "nobody leads"
    assert not meet(watchdog, clock, poller, 1)
    assert meet(watchdog, clock, poller, 1)
    assert (poller.guarded, poller.watches, poller.reader) == (True, False, None)
    poller.follow()  # a leader that was late
    assert watchdog.stands_back()
    assert not poller.watches


def test_leaders_who_read_keep_the_channels_however_many_tasks_there_are(watchdog, clock, poller, pool):
    meet(watchdog, clock, poller)
    assert watchdog.stands_back()
    pool.tasks.update(dict.fromkeys(range(FEW_AWAITED + 1)))
    for _ in range(2 * LOOKS):
        poller.reads += 1
        look(watchdog, clock)
    assert (poller.guarded, poller.watches) == (True, False)


def test_meetings_far_apart_do_not_count(watchdog, clock, poller):
    for _ in range(3):
        clock.now += 2 * AGAIN
        assert not meet(watchdog, clock, poller, 1)
    assert not poller.guarded


@pytest.mark.parametrize("why", ["waiting", "many", "observed"])
def test_nothing_lies_where_somebody_could_notice(watchdog, clock, poller, pool, why):
    task = SimpleNamespace(future=SimpleNamespace(_is_observed=lambda: why == "observed"))
    pool.has_waiting = why == "waiting"
    pool.tasks = dict.fromkeys(range(FEW + 1 if why == "many" else 1), task)
    assert not meet(watchdog, clock, poller, 3)
    assert (poller.guarded, poller.watches) == (False, True)


def test_who_begins_to_observe_in_that_moment_is_noticed(watchdog, clock, poller, pool):
    """It observes first, and looks whether the channels are guarded after that. They were not, yet."""
    answers = iter([False, True])
    future = SimpleNamespace(_is_observed=lambda: next(answers))
    pool.tasks = {1: SimpleNamespace(future=future)}
    meet(watchdog, clock, poller)
    assert (poller.guarded, poller.watches) == (False, True)


def test_who_observes_or_waits_for_a_worker_has_the_channels_read(watchdog, clock, poller):
    meet(watchdog, clock, poller)
    watchdog.note_observer()
    assert (poller.guarded, poller.watches) == (False, True)
    meet(watchdog, clock, poller)
    poller.lead()
    watchdog.note_waiting(1)
    assert (poller.guarded, poller.watches) == (False, True)


def test_a_leader_keeps_the_channels_that_are_taken_back(watchdog, clock, poller):
    meet(watchdog, clock, poller)
    poller.leader[None] = 1
    watchdog.take_back()
    assert (poller.guarded, poller.watches) == (False, False)


def test_a_loop_that_reads_goes_on_though_others_observe_unless_many_tasks_wait(watchdog, clock, poller):
    reader = reading(watchdog, clock)
    watchdog.note_observer()
    watchdog.note_waiting(MANY_WAITING)
    assert poller.reader is reader
    watchdog.note_waiting(MANY_WAITING + 1)
    assert (poller.reader, poller.watches) == (None, True)


def test_what_others_have_read_before_does_not_count_for_a_loop_that_begins_to_read(watchdog, clock, poller):
    poller.reads = 50
    reading(watchdog, clock)
    look(watchdog, clock, LOOKS)
    assert not poller.guarded
    poller.unread, poller.reads = [(7, 1)], 50 + MANY + 1
    reading(watchdog, clock)
    look(watchdog, clock, LOOKS)
    assert watchdog._not_before - clock.now > PAUSES[0], "it has read nothing itself, and is not believed at once"


def test_at_the_pools_end_no_loop_reads_any_more_and_hubs_of_loops_that_are_gone_are_closed(
    watchdog, clock, poller, monkeypatch
):
    detached, closed = [], []
    poller.serving, poller.readers = threading.RLock(), [SimpleNamespace(detach=detached.append)]
    monkeypatch.setattr(watchdogs.loop_reader, "close_after_loops", lambda: closed.append("others"))
    monkeypatch.setattr(watchdogs.loop_reader, "release_here", lambda: closed.append("here"))
    reading(watchdog, clock)
    watchdog.end()
    assert (poller.reader, poller.guarded, poller.watches) == (None, False, True)
    assert (detached, closed) == ([poller], ["others"])
    watchdog.release()
    assert closed == ["others", "here"]
