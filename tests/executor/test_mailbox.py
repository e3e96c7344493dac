"""The outcomes for one event loop: each wakes it once, and none is forgotten. Without a pool or a real loop."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from pidfdpool.executor.async_calls import OFTEN, AwaitedTask, Mailbox
from pidfdpool.executor.open_maps import OpenMaps


class Loop:
    """Notes what it is to call, and calls it when it is told to."""

    def __init__(self):
        self.calls, self.closed = [], False

    def call_soon_threadsafe(self, call):
        if self.closed:
            raise RuntimeError("Event loop is closed")
        self.calls.append(call)

    def turn(self):
        calls, self.calls = self.calls, []
        for call in calls:
            call()


class Waiter:
    """A future of the loop's."""

    def __init__(self, loop, then=lambda: None):
        self._loop, self._then, self.told, self.cancelled = loop, then, [], False

    def get_loop(self):
        return self._loop

    def done(self):
        return self.cancelled or bool(self.told)

    def set_result(self, result):
        self.told.append(result)
        self._then()

    set_exception = set_result


@pytest.fixture
def loop():
    return Loop()


def test_outcomes_that_come_while_the_loop_is_busy_share_one_wake_up(loop):
    mailbox, waiters = Mailbox(), [Waiter(loop) for _ in range(3)]
    error = LookupError()
    mailbox.post(waiters[0], "first", None)
    mailbox.post(waiters[1], None, error)
    mailbox.post(waiters[2], "third", None)
    assert len(loop.calls) == 1
    loop.turn()
    assert [waiter.told for waiter in waiters] == [["first"], [error], ["third"]]


class Exhausted(StopIteration):
    """What a library may derive."""


@pytest.mark.parametrize("error", [StopIteration(3), Exhausted(3)])
def test_stop_iteration_of_whatever_kind_does_not_look_like_a_return(loop, error):
    mailbox, waiter = Mailbox(), Waiter(loop)
    mailbox.post(waiter, None, error)
    loop.turn()
    assert type(waiter.told[0]) is RuntimeError
    assert waiter.told[0].__cause__ is error


def test_what_comes_while_the_loop_looks_wakes_it_again_or_is_seen(loop):
    mailbox, late = Mailbox(), Waiter(loop)
    first = Waiter(loop, then=lambda: mailbox.post(late, "late", None))
    mailbox.post(first, "first", None)
    loop.turn()
    assert late.told == ["late"]
    assert len(loop.calls) == 1, "it might have come when the loop had just looked"
    loop.turn()
    mailbox.post(Waiter(loop), "next", None)
    assert len(loop.calls) == 1


def test_a_waiter_that_was_cancelled_costs_no_other_its_outcome(loop):
    mailbox, waiters = Mailbox(), [Waiter(loop) for _ in range(2)]
    for waiter in waiters:
        mailbox.post(waiter, "value", None)
    waiters[0].cancelled = True
    loop.turn()
    assert [waiter.told for waiter in waiters] == [[], ["value"]]


def test_a_loop_that_is_closed_is_told_nothing_and_costs_nobody_anything(loop):
    loop.closed = True
    Mailbox().post(Waiter(loop), "value", None)
    assert loop.calls == []


def test_stop_iteration_is_told_as_an_error_that_a_coroutine_may_raise(loop):
    mailbox, waiter, error = Mailbox(), Waiter(loop), StopIteration(5)
    mailbox.post(waiter, None, error)
    loop.turn()
    (told,) = waiter.told
    assert type(told) is RuntimeError
    assert told.__cause__ is error


# ---- calls that are awaited -----------------------------------------------------------------------------------


class Pool:
    """Takes notes of what an awaited call asks of it."""

    def __init__(self):
        self.asked = []
        self.core = SimpleNamespace(watchdog=SimpleNamespace(offered=None))

    def cancel(self, number, recipient):
        self.asked.append(("cancel", number, recipient))

    def kill_task(self, number):
        self.asked.append(("kill", number))

    def note_observer(self):
        self.asked.append("observed")


@pytest.fixture
def real_loop():
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def test_a_call_is_wanted_until_it_is_cancelled_or_its_loop_is_closed(real_loop):
    first, second = AwaitedTask(real_loop), AwaitedTask(real_loop)
    assert first._is_wanted()
    assert first._begin()
    first.waiter.cancel()
    assert not first._is_wanted(), "the coroutine that awaits it cancels the task a moment later"
    assert not first._begin()
    assert second._is_wanted()
    real_loop.close()
    assert not second._is_wanted(), "nobody can be given the result"


@pytest.mark.parametrize("kills", [False, True])
def test_what_is_cancelled_is_taken_back_and_killed_only_where_that_is_asked_for(real_loop, kills):
    pool, awaited = Pool(), AwaitedTask(real_loop)
    awaited.cancel()  # before there is a pool
    awaited._attach(pool, 7, kills)
    awaited.cancel()
    assert pool.asked == ["observed", ("cancel", 7, awaited), *([("kill", 7)] if kills else [])]
    awaited._resolve("value", None)
    awaited.cancel()
    assert len(pool.asked) == (3 if kills else 2), "it has ended"


def test_who_is_cancelled_by_the_pool_is_told(real_loop):
    awaited = AwaitedTask(real_loop)
    awaited._attach(Pool(), 7, False)
    awaited._resolve_cancelled()
    with pytest.raises(asyncio.CancelledError):
        real_loop.run_until_complete(awaited.waiter)


def test_a_loop_that_is_woken_often_reads_the_channels_itself_and_the_pool_is_offered_that(real_loop):
    pool = Pool()
    mailbox = AwaitedTask(real_loop)._mailbox
    for _ in range(OFTEN):
        awaited = AwaitedTask(real_loop)
        assert mailbox.reader is None
        awaited._attach(pool, 7, False)
        awaited._resolve(1, None)
        real_loop.run_until_complete(awaited.waiter)
        assert pool.core.watchdog.offered is None
    reader = (awaited := AwaitedTask(real_loop)) and mailbox.reader
    assert reader is not None
    awaited._attach(pool, 8, False)
    awaited._resolve(1, None)
    assert pool.core.watchdog.offered is reader
    real_loop.run_until_complete(awaited.waiter)
    assert AwaitedTask(real_loop)._mailbox.reader is reader, "one is enough"
    reader._hub.close()
    AwaitedTask(real_loop)
    assert mailbox.reader is reader, "not before it was woken often again"


def test_calls_of_one_loop_share_a_mailbox_and_those_of_others_do_not(real_loop):
    first, second = AwaitedTask(real_loop), AwaitedTask(real_loop)
    assert first._mailbox is second._mailbox
    other = asyncio.new_event_loop()
    assert AwaitedTask(other)._mailbox is not first._mailbox
    other.close()


def test_a_forked_child_leaves_the_loop_to_the_parent(real_loop):
    pool, awaited = Pool(), AwaitedTask(real_loop)
    awaited._attach(pool, 7, True)
    awaited._fail_in_forked_child(LookupError())
    awaited.cancel()
    assert pool.asked == ["observed"]
    assert not awaited.waiter.done()


# ---- open maps -----------------------------------------------------------------------------------------------


class Interruption(BaseException):
    """What a signal handler may raise while an argument is pickled."""


class Map:
    def __init__(self, notes, outcome=True):
        self.notes, self.outcome = notes, outcome

    def submit_rest(self, *, wait=True):
        self.notes.append(("rest", wait))
        if isinstance(self.outcome, type):
            raise self.outcome
        return self.outcome

    def stop_submitting(self, failure):
        self.notes.append(("stop", type(failure).__name__))

    def forget_in_forked_child(self):
        self.notes.append("forget")


@pytest.mark.parametrize(
    ("outcomes", "done"), [((True, True), True), ((True, False), False), ((Interruption, True), True)]
)
def test_all_maps_submit_what_they_hold_whatever_one_of_them_raises(outcomes, done):
    notes, maps = [], OpenMaps()
    kept = [Map(notes, outcome) for outcome in outcomes]
    for each in kept:
        maps.add(each)
    assert maps.submit_without_waiting() is done
    assert notes == [("rest", False)] * 2


def test_maps_are_finished_cancelled_or_forgotten_and_nothing_keeps_them_alive():
    notes, maps = [], OpenMaps()
    kept = Map(notes)
    maps.add(kept)
    maps.finish(cancel=False)
    maps.finish(cancel=True)
    maps.forget_in_forked_child()
    maps.forget_in_forked_child()
    assert notes == [("rest", True), ("stop", "CancelledError"), "forget"]
    maps.add(kept)
    del kept
    assert list(maps) == []
