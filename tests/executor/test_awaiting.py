"""What an event loop waits for: single calls, its mailbox, and the chunks of an `amap`. Without a pool."""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import Future
from types import SimpleNamespace

import pytest

from pidfdpool import Policy
from pidfdpool.executor import async_calls, async_map, lifecycle, mapping
from pidfdpool.executor.adaptive_map import AdaptiveMap
from pidfdpool.executor.async_calls import OFTEN, AwaitedTask, Mailbox
from tests.executor.amap_calls import begun, run, turns

POLICY = Policy(2)


class Executor:
    """Keeps the recipient of a call, as a pool does that has it."""

    def __init__(self, error=None):
        self.error, self.asked = error, []
        self.core = SimpleNamespace(watchdog=SimpleNamespace(offered=None))

    def _submit_for(self, recipient, policy, fn, args, kwargs, *, wait):
        self.call = policy, fn, args, kwargs, wait
        if self.error is not None:
            raise self.error
        self.recipient = recipient
        recipient._attach(self, 7, False)

    def cancel(self, number, recipient):
        self.asked.append((number, recipient))

    def note_observer(self):
        """Nobody looks in another way."""


# ---- single calls -------------------------------------------------------------------------------------------------


def test_a_call_is_submitted_as_it_was_given_and_its_result_returned():
    async def main():
        executor = Executor()
        calling = asyncio.ensure_future(async_calls.run(POLICY, executor, print, (1,), {"sep": 2}))
        await turns()
        assert executor.call == (POLICY, print, (1,), {"sep": 2}, False)
        executor.recipient._resolve("a result", None)
        assert await calling == "a result"
        assert executor.asked == [], "nothing is taken back"

    run(main())


def test_what_it_failed_of_is_raised_and_taking_it_back_does_nothing():
    async def main():
        executor = Executor()
        calling = asyncio.ensure_future(async_calls.run(POLICY, executor, print, (), {}))
        await turns()
        executor.recipient._resolve(None, LookupError("mine"))
        with pytest.raises(LookupError, match="mine"):
            await calling
        assert executor.asked == []

    run(main())


@pytest.mark.parametrize("leave", [lambda task: task.cancel(), None])
def test_who_is_cancelled_or_closed_takes_the_call_back(leave):
    async def main():
        executor = Executor()
        if leave is None:
            calling = async_calls.run(POLICY, executor, print, (), {})
            calling.send(None)
            calling.close()
        else:
            calling = asyncio.ensure_future(async_calls.run(POLICY, executor, print, (), {}))
            await turns()
            leave(calling)
            with pytest.raises(asyncio.CancelledError):
                await calling
        assert executor.asked == [(7, executor.recipient)]

    run(main())


def test_what_the_pool_refuses_is_raised():
    async def main():
        with pytest.raises(LookupError, match="full"):
            await async_calls.run(POLICY, Executor(LookupError("full")), print, (), {})

    run(main())


def test_who_takes_a_call_back_detects_a_fork(monkeypatch):
    noticed = []

    async def main():
        awaited = AwaitedTask(asyncio.get_running_loop())
        monkeypatch.setattr(lifecycle, "detect_fork", lambda: noticed.append(1))
        awaited.cancel()
        monkeypatch.undo()

    run(main())
    assert noticed == [1]


def test_an_awaited_call_is_observed_has_no_callbacks_and_keeps_no_pool_when_it_is_over():
    async def main():
        pool, awaited = Executor(), AwaitedTask(asyncio.get_running_loop())
        awaited._attach(pool, 7, True)
        assert awaited._is_observed() is True
        assert awaited._has_callbacks() is False
        assert awaited._mark_cancelled() is True
        assert awaited._note_attempt((0, 1, 2), 1, 0.0) is None
        awaited._resolve(1, None)
        assert awaited._pool is None
        assert await awaited.waiter == 1

    run(main())


# ---- the mailbox --------------------------------------------------------------------------------------------------


class Loop:
    """Notes what it is to call."""

    def __init__(self):
        self.calls, self.added = [], []

    def call_soon_threadsafe(self, call):
        self.calls.append(call)

    def add_reader(self, fd, _call):
        self.added.append(fd)
        raise NotImplementedError


class Waiter:
    def __init__(self, loop):
        self.loop, self.told = loop, []

    def get_loop(self):
        return self.loop

    def done(self):
        return bool(self.told)

    def set_result(self, result):
        self.told.append(result)

    set_exception = set_result


@pytest.mark.parametrize("here", [False, True])
def test_a_loop_that_reads_the_channels_itself_needs_no_wake_up(here):
    loop, mailbox = Loop(), Mailbox()
    mailbox.reader = SimpleNamespace(reads_here=here)
    waiter = Waiter(loop)
    mailbox.post(waiter, "a result", None)
    assert waiter.told == (["a result"] if here else [])
    assert len(loop.calls) == (0 if here else 1)


def test_what_came_before_is_told_before_by_a_loop_that_reads_itself():
    loop, mailbox, order = Loop(), Mailbox(), []
    first, second = (Waiter(loop) for _ in range(2))
    for waiter in (first, second):
        waiter.told = SimpleNamespace(append=lambda _result, waiter=waiter: order.append(waiter), __len__=None)
        waiter.done = lambda: False
    mailbox.post(first, 1, None)
    mailbox.reader = SimpleNamespace(reads_here=True)
    mailbox.post(second, 2, None)
    assert order == [first, second]


@pytest.mark.parametrize("woken", [OFTEN - 1, OFTEN])
def test_a_loop_that_cannot_watch_descriptors_is_asked_when_it_was_woken_often_and_goes_on(woken):
    loop, mailbox = Loop(), Mailbox()
    for _ in range(woken):
        mailbox.post(Waiter(loop), 1, None)
        loop.calls.pop()()
    for _ in range(3):
        mailbox.make_reader(loop)
    assert mailbox.reader is None
    assert len(loop.added) == (1 if woken == OFTEN else 0), "asked again only after as many wake-ups"
    for _ in range(OFTEN - 1):
        mailbox.post(Waiter(loop), 1, None)
        loop.calls.pop()()
    mailbox.make_reader(loop)
    assert len(loop.added) == 1
    waiter = Waiter(loop)
    mailbox.post(waiter, "a result", None)
    loop.calls.pop()()
    assert waiter.told == ["a result"]


def test_an_error_that_is_no_stop_iteration_is_told_as_it_is():
    loop, mailbox = Loop(), Mailbox()
    for error in (LookupError(), StopAsyncIteration(), KeyboardInterrupt()):
        waiter = Waiter(loop)
        mailbox.post(waiter, None, error)
        loop.calls.pop()()
        assert waiter.told == [error]


def test_a_call_that_fails_before_a_pool_has_it_is_told_of_in_a_loop_that_reads_too():
    """One that does not pickle, say."""

    async def main():
        awaited = AwaitedTask(asyncio.get_running_loop())
        awaited._mailbox.reader = SimpleNamespace(reads_here=False, closed=False)
        awaited._resolve(None, LookupError("not sent"))
        with pytest.raises(LookupError, match="not sent"):
            await awaited.waiter

    run(main())


def test_a_loop_without_a_reader_or_with_one_that_is_closed_may_have_another():
    async def main():
        loop = asyncio.get_running_loop()
        mailbox, asked = AwaitedTask(loop)._mailbox, []
        mailbox.make_reader = asked.append
        for reader, times in ((None, 1), (SimpleNamespace(closed=True), 2), (SimpleNamespace(closed=False), 2)):
            mailbox.reader = reader
            AwaitedTask(loop)
            assert asked == [loop] * times

    run(main())


# ---- chunks of the pool -------------------------------------------------------------------------------------------


class Entry:
    def __init__(self, results=(), error=None, future=None):
        self.results, self.error, self.future = list(results), error, future


class Found:
    """A map whose chunks the pool makes: with those that a test has given it."""

    def __init__(self, *entries, ordered=True):
        self.entries, self.notes, self.left = self, [], deque(entries)
        self.is_ordered, self.told = ordered, None
        self.ready = ordered

    @property
    def is_first_done(self):
        return self.ready

    def prepare(self):
        self.notes.append("prepare")
        return bool(self.left)

    def claim(self, deadline):
        assert deadline is None, "it must not block the loop"
        self.notes.append("claim")
        return self.left.popleft()

    def take(self, entry):
        assert entry.future is None or entry.future.done()
        return entry.results, entry.error

    def step(self):
        self.notes.append("step")

    def cancel(self):
        self.notes.append("cancel")


class Adaptive(Found, AdaptiveMap):
    """Submits all at once."""


@pytest.fixture
def results_of(monkeypatch):
    """Return a function that returns the results of an amap which has found these chunks."""

    def results_of(found, timeout=None):
        def find(_submitter, _request, *, ordered):
            assert ordered is found.is_ordered
            return found

        monkeypatch.setattr(mapping, "in_chunks_of_the_pool", find)
        begin = async_map.in_order if found.is_ordered else async_map.as_they_come
        return begin(None, print, ([1],), timeout=timeout)

    return results_of


@pytest.mark.parametrize("kind", [Adaptive, Found])
def test_results_of_chunks_come_in_order_and_the_map_is_told_of_each_that_is_taken(results_of, kind):
    async def main():
        found = kind(Entry("abc"), Entry(), Entry("d"))
        taken = [(each, found.notes.count("step")) async for each in results_of(found)]
        assert [each for each, _ in taken] == ["a", "b", "c", "d"]
        steps = [steps for _, steps in taken]
        assert steps == ([0] * 4 if kind is Adaptive else [0, 1, 2, 2]), "but for the first of a chunk"
        assert found.notes[-1] == "cancel"
        assert found.notes.count("claim") == 3

    run(main())


def test_a_chunk_that_is_not_done_is_waited_for_without_blocking_the_loop(results_of):
    async def main():
        future = Future()
        found = Adaptive(Entry("a", future=future))
        waiting = begun(results_of(found))
        await turns()
        assert not waiting.done()
        future.set_result(None)
        assert await waiting == "a"
        assert not future.cancelled()
        assert "cancel" not in found.notes

    run(main())


def test_a_chunk_that_fails_gives_what_it_has_and_then_its_error(results_of):
    async def main():
        future = Future()
        found = Found(Entry("ab", LookupError("mine"), future), Entry("c"))
        results = results_of(found)
        future.set_exception(LookupError("of the task, which `take` is to look at"))
        assert [await anext(results), await anext(results)] == ["a", "b"]
        with pytest.raises(LookupError, match="mine"):
            await anext(results)
        assert found.notes[-1] == "cancel"
        assert len(found.left) == 1

    run(main())


@pytest.mark.parametrize("how", ["timeout", "cancel"])
def test_a_wait_for_a_chunk_that_fails_cancels_it_and_the_map(results_of, how):
    async def main():
        future = Future()
        found = Adaptive(Entry("a", future=future))
        waiting = begun(results_of(found, timeout=0.01 if how == "timeout" else None))
        await turns()
        if how == "cancel":
            waiting.cancel()
        with pytest.raises(TimeoutError if how == "timeout" else asyncio.CancelledError):
            await waiting
        assert future.cancelled()
        assert found.notes[-1] == "cancel"

    run(main())


def test_without_order_it_waits_until_some_chunk_is_there_whatever_its_future(results_of):
    async def main():
        found = Adaptive(Entry("ab", future=SimpleNamespace(done=lambda: True)), ordered=False)
        results = results_of(found)
        waiting = begun(results)
        await turns()
        assert found.notes == ["prepare"]
        found.told()  # in vain
        await turns()
        assert found.notes == ["prepare"]
        found.ready = True
        found.told()
        assert [await waiting, await anext(results)] == ["a", "b"]
        await results.aclose()
        assert found.notes == ["prepare", "claim", "cancel"]

    run(main())


def test_without_order_the_time_of_the_map_ends_it(results_of):
    async def main():
        found = Adaptive(Entry("a"), ordered=False)
        with pytest.raises(TimeoutError):
            await anext(results_of(found, timeout=0.01))
        assert found.notes == ["prepare", "cancel"]

    run(main())


def test_what_makes_no_sense_is_refused_before_anything_begins():
    for begin in (async_map.in_order, async_map.as_they_come):
        for how in ({"chunksize": 0}, {"timeout": "soon"}, {"star": 5}):
            with pytest.raises((TypeError, ValueError)):
                begin(None, print, ([1],), **how)
