"""When the pool thread leaves the channels to others and when it takes them back: bounds, and the order of steps."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from pidfdpool.loop import watchdog as watchdogs
from pidfdpool.loop.watchdog import AGAIN, CLOSE, FEW, FEW_AWAITED, GAP, LOOKS, MANY, PAUSES, TICK
from tests.loop import test_watchdog as parts
from tests.loop.test_watchdog import Clock, Reader, look, meet, offer, reading


class Poller(parts.Poller):
    """`log`: who is said to read at each of the two calls that take the channels away and give them back."""

    def __init__(self):
        super().__init__()
        self.log, self.serving, self.readers = [], threading.RLock(), []

    def note(self, what):
        self.log.append((what, self.guarded, self.reader))

    def lead(self):
        super().lead()
        self.note("lead")

    def follow(self):
        super().follow()
        self.note("follow")


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


FOLLOWS = [("follow", False, None)]


# ---- the order of steps ------------------------------------------------------------------------------------------


def test_channels_are_guarded_before_they_are_taken_away_and_no_more_when_they_are_given_back(
    watchdog, clock, poller
):
    """A leader that leaves in between looks whether they are guarded, and gives them back if not."""
    reader = reading(watchdog, clock)
    assert poller.log == [("lead", True, reader)]
    poller.log.clear()
    watchdog.take_back()
    assert poller.log == FOLLOWS
    meet(watchdog, clock, poller)
    assert poller.log[1:] == [("lead", True, None)]
    poller.log.clear()
    look(watchdog, clock, LOOKS)
    assert poller.log == FOLLOWS


def test_channels_that_another_thread_has_taken_back_are_watched_again_at_the_next_turn(watchdog, clock, poller):
    """A leader may have been there at that moment, and have left since without giving them back."""
    meet(watchdog, clock, poller)
    poller.leader[None] = 1
    watchdog.take_back()
    assert not poller.watches
    watchdog.look()  # at once, and though somebody leads
    assert poller.watches
    assert watchdog.limit(None) is None
    poller.log.clear()
    look(watchdog, clock, 3)
    assert poller.log == [], "it looks no more"


def test_a_leader_does_not_keep_the_pool_thread_from_taking_back_what_nobody_reads(watchdog, clock, poller):
    meet(watchdog, clock, poller)
    poller.leader[None] = 1
    look(watchdog, clock, LOOKS)
    assert poller.watches


def test_the_pool_that_a_loop_is_to_read_is_the_one_that_offers(watchdog, clock, poller):
    asked = []
    reader = Reader()
    reader.watch = lambda poller: asked.append(poller) or True
    offer(watchdog, clock, reader)
    assert asked == [], "its results may come far apart"
    offer(watchdog, clock, reader)
    assert asked == [poller]


# ---- looks -------------------------------------------------------------------------------------------------------


def test_while_others_read_no_loop_is_offered_and_none_is_kept_for_later(watchdog, clock, poller):
    meet(watchdog, clock, poller)
    offer(watchdog, clock, Reader())
    offer(watchdog, clock, Reader())
    assert (poller.reader, watchdog.offered) == (None, None)
    look(watchdog, clock, LOOKS)
    watchdog.look()
    assert (poller.reader, poller.watches) == (None, True)


def test_a_look_before_its_time_counts_neither_what_was_read_nor_that_nothing_was(watchdog, clock, poller):
    reading(watchdog, clock)
    clock.now += TICK / 2
    watchdog.look()
    clock.now += TICK * 0.4
    watchdog.look()
    assert poller.guarded
    poller.reads += 1
    for _ in range(LOOKS):
        assert poller.guarded
        look(watchdog, clock)
    assert poller.guarded, "what was read then counts at the first look, whose time has come"
    look(watchdog, clock)
    assert not poller.guarded


def test_the_next_look_is_a_tick_behind_the_last(watchdog, clock, poller):
    reading(watchdog, clock)
    look(watchdog, clock)
    clock.now += TICK / 2
    watchdog.look()
    assert poller.guarded
    clock.now += TICK * 0.6
    watchdog.look()
    assert not poller.guarded


def test_a_read_between_looks_in_vain_begins_the_count_anew(watchdog, clock, poller):
    meet(watchdog, clock, poller)
    for _ in range(3):
        look(watchdog, clock, LOOKS - 1)
        poller.reads += 1
        look(watchdog, clock)
    look(watchdog, clock, LOOKS - 1)
    assert poller.guarded


def test_a_loop_that_read_all_there_was_may_read_again_at_once(watchdog, clock, poller):
    reading(watchdog, clock)
    look(watchdog, clock, LOOKS)
    assert poller.reader is None
    assert reading(watchdog, clock) is poller.reader


def test_a_loop_that_had_too_much_to_do_pauses(watchdog, clock, poller, pool):
    reading(watchdog, clock)
    pool.tasks = dict.fromkeys(range(FEW_AWAITED + 1))
    look(watchdog, clock)
    pool.tasks.clear()
    reading(watchdog, clock)
    assert poller.reader is None


def test_what_leaders_left_unread_does_not_make_loops_pause(watchdog, clock, poller):
    meet(watchdog, clock, poller)
    poller.unread = [(7, 1)]
    look(watchdog, clock, LOOKS)
    assert reading(watchdog, clock) is poller.reader


def test_with_just_few_tasks_a_loop_begins_and_goes_on(watchdog, clock, poller, pool):
    pool.tasks = dict.fromkeys(range(FEW_AWAITED))
    reader = reading(watchdog, clock)
    poller.reads += 1
    look(watchdog, clock)
    assert poller.reader is reader


def test_a_pause_is_over_when_its_time_has_come_and_not_before(watchdog, clock, poller):
    watchdog.postpone()
    over = watchdog._not_before
    offer(watchdog, clock, Reader(), over - clock.now - 3 * CLOSE / 4)
    offer(watchdog, clock, Reader())
    assert poller.reader is None, "a quarter of that short"
    offer(watchdog, clock, Reader())
    assert poller.reader is not None


def test_a_loop_that_read_just_many_times_is_not_believed_yet(watchdog, clock, poller):
    for reads, first in ((MANY, False), (MANY + 1, True)):
        poller.reads = reads
        watchdog.postpone()
        assert (watchdog._not_before - clock.now < 1.5 * PAUSES[0]) is first


def test_reads_of_an_earlier_time_are_not_those_of_this_one(watchdog, clock, poller):
    poller.reads = 2 * MANY
    reading(watchdog, clock)
    poller.reads += MANY
    watchdog.postpone()
    assert watchdog._not_before - clock.now == pytest.approx(2 * PAUSES[0])


# ---- leaders -----------------------------------------------------------------------------------------------------


def test_a_leader_that_is_there_is_met_however_long_ago_the_last_one_left(watchdog, clock, poller):
    poller.leader[None] = 1
    poller.left_at = clock.now - 100
    assert not watchdog.stands_back()
    clock.now += AGAIN / 2
    assert watchdog.stands_back()


def test_a_leader_that_left_longer_ago_than_the_gap_is_not_met(watchdog, clock, poller):
    for _ in range(3):
        clock.now += AGAIN / 2
        poller.left_at = clock.now - 2 * GAP
        assert not watchdog.stands_back()
    assert poller.log == []


def test_a_meeting_counts_for_the_next_one_though_it_was_too_late_for_the_one_before(watchdog, clock, poller):
    assert not meet(watchdog, clock, poller, 1)
    clock.now += 2 * AGAIN
    assert not meet(watchdog, clock, poller, 1)
    assert meet(watchdog, clock, poller, 1)


def test_after_the_channels_were_taken_back_a_leader_has_to_be_met_twice_again(watchdog, clock, poller):
    assert meet(watchdog, clock, poller)
    watchdog.take_back()
    watchdog.look()
    assert not meet(watchdog, clock, poller, 1)
    assert meet(watchdog, clock, poller, 1)


def test_the_pool_thread_does_not_leave_to_others_what_was_taken_back_since_its_last_look(watchdog, clock, poller):
    meet(watchdog, clock, poller)
    watchdog.take_back()
    clock.now += 2 * GAP
    poller.log.clear()
    assert not watchdog.stands_back()
    assert poller.log == []


def test_just_few_tasks_whose_futures_nobody_observes_may_lie_and_one_observed_is_enough(
    watchdog, clock, poller, pool
):
    unobserved = SimpleNamespace(future=SimpleNamespace(_is_observed=lambda: False))
    pool.tasks = dict.fromkeys(range(FEW), unobserved)
    assert meet(watchdog, clock, poller)
    watchdog.take_back()
    watchdog.look()
    pool.tasks[1] = SimpleNamespace(future=SimpleNamespace(_is_observed=lambda: True))
    assert not meet(watchdog, clock, poller, 3)


def test_who_observes_where_nothing_lies_changes_nothing(watchdog, clock, poller):
    assert not meet(watchdog, clock, poller, 1)
    watchdog.note_observer()
    assert poller.log == []
    assert meet(watchdog, clock, poller, 1), "it was met twice"


# ---- times -------------------------------------------------------------------------------------------------------


def test_nothing_lies_for_long_and_what_is_far_apart_is_not_taken_for_close(watchdog, clock, poller):
    """In seconds, as a user would feel them."""
    for _ in range(3):
        offer(watchdog, clock, Reader(), 0.05)
    assert poller.reader is None, "an event loop gets a result every 50 ms"
    for _ in range(3):
        clock.now += 0.05
        poller.left_at = clock.now
        assert not watchdog.stands_back(), "a thread waits for a result every 50 ms"
    for _ in range(3):
        clock.now += 0.003
        poller.left_at = clock.now - 0.002
        assert not watchdog.stands_back(), "it does something else for 2 ms before it waits again"
    reading(watchdog, clock)
    began, wakeups = clock.now, 0
    while poller.guarded:
        clock.now += watchdog.limit(None)
        watchdog.look()
        wakeups += 1
    assert clock.now - began < 0.02
    assert wakeups <= 2, "an idle pool sleeps for good"


def test_a_loop_that_was_busy_reads_again_soon_and_one_that_always_is_every_few_seconds(watchdog, clock, poller):
    first, longest = PAUSES
    assert 0.05 <= first <= 0.5
    assert first < longest <= 2.5


# ---- the pool's end ----------------------------------------------------------------------------------------------


def test_a_poller_that_is_closed_has_nothing_to_give_back(watchdog, clock, poller):
    def closed():
        raise ValueError("I/O operation on closed epoll object")

    meet(watchdog, clock, poller)
    poller.follow = closed
    watchdog.take_back()
    assert not poller.guarded


def test_at_the_end_no_loop_is_in_the_middle_of_reading_when_the_channels_are_taken_back(watchdog, clock, poller):
    held = []
    reading(watchdog, clock)
    poller.follow = lambda: held.append(poller.serving._is_owned())
    poller.readers = [SimpleNamespace(detach=lambda _poller: held.append(poller.serving._is_owned()))] * 2
    watchdog.end()
    assert held == [True, False, False]
