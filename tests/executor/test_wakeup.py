"""How a coroutine waits for what other threads do, and for the end of a pool. Without a pool."""

from __future__ import annotations

import asyncio
import threading
import time
from types import SimpleNamespace

import pytest

from pidfdpool.executor import wakeup as wakeups
from pidfdpool.executor.wakeup import Wakeup, wait_for_end
from tests.conditions import eventually


def run(coroutine):
    """Run it in an event loop, and not for ever."""
    return asyncio.run(asyncio.wait_for(coroutine, 20))


def test_what_becomes_true_between_the_look_and_the_wait_is_not_missed():
    wakeup, looks = Wakeup(), []

    def ready():
        looks.append(None)
        if len(looks) > 1:
            return True
        wakeup.tell()  # another thread made it true right after this look, and found nobody to wake
        return False

    run(wakeup.wait(ready))


def test_what_is_true_already_is_not_waited_for():
    wakeup = Wakeup()
    run(wakeup.wait(lambda: True))
    run(wakeup.wait(lambda: True, time.monotonic() - 1))
    assert wakeup._waiter is None


def tell(wakeup):
    wakeup.tell()


def tell_as_a_callback(wakeup):
    wakeup.tell("a future that is done")


def tell_in_a_thread(wakeup):
    thread = threading.Thread(target=wakeup.tell)
    thread.start()
    thread.join()


def tell_here(wakeup):
    wakeup.tell_here()


TELLS = [tell, tell_as_a_callback, tell_in_a_thread, tell_here]


@pytest.mark.parametrize("deadline", [None, 1000.0])
@pytest.mark.parametrize("how", TELLS)
def test_it_looks_again_when_it_is_told_and_only_then(how, deadline):
    """However often it is told in vain."""

    async def main():
        wakeup, looks, true = Wakeup(), [], []

        def ready():
            looks.append(1)
            return bool(true)

        until = None if deadline is None else time.monotonic() + deadline
        waiting = asyncio.ensure_future(wakeup.wait(ready, until))
        for _ in range(3):
            await turns()
            seen = len(looks)
            await turns()
            assert len(looks) == seen, "it sleeps"
            how(wakeup)
            await turns()
            assert len(looks) > seen
            assert not waiting.done()
        true.append(1)
        how(wakeup)
        await waiting

    run(main())


async def turns():
    for _ in range(6):
        await asyncio.sleep(0)


@pytest.mark.parametrize("how", TELLS)
def test_to_tell_twice_or_while_nobody_waits_does_no_harm(how):
    async def main():
        wakeup, true = Wakeup(), []
        how(wakeup)
        how(wakeup)
        waiting = asyncio.ensure_future(wakeup.wait(lambda: bool(true)))
        await turns()
        true.append(1)
        how(wakeup)
        how(wakeup)
        await waiting

    run(main())


def test_a_loop_is_woken_once_however_often_its_coroutine_is_told():
    async def main():
        loop, woken = asyncio.get_running_loop(), []
        wakeup, true = Wakeup(), []
        waiting = asyncio.ensure_future(wakeup.wait(lambda: bool(true)))
        await turns()
        call, loop.call_soon_threadsafe = loop.call_soon_threadsafe, lambda *what: (woken.append(1), call(*what))
        true.append(1)
        for _ in range(3):
            wakeup.tell()
        assert woken == [1]
        loop.call_soon_threadsafe = call
        await waiting

    run(main())


@pytest.mark.parametrize("how", TELLS)
def test_who_was_cancelled_is_told_in_peace(how):
    problems = []

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: problems.append(context))
        wakeup = Wakeup()
        waiting = asyncio.ensure_future(wakeup.wait(lambda: False))
        await turns()
        waiting.cancel()
        await turns()
        how(wakeup)
        await turns()

    run(main())
    assert problems == []


def test_a_loop_that_is_closed_is_told_nothing():
    wakeup = Wakeup()
    loop = asyncio.new_event_loop()
    waiting = loop.create_task(wakeup.wait(lambda: False))
    loop.run_until_complete(asyncio.sleep(0))
    waiting.cancel()
    loop.run_until_complete(asyncio.wait([waiting]))
    wakeup._waiter = loop.create_future()
    loop.close()
    wakeup.tell()


# ---- deadlines ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [-5.0, 0.0, 0.01])
def test_what_is_not_true_at_its_deadline_is_an_error(ahead):
    async def main():
        with pytest.raises(TimeoutError):
            await Wakeup().wait(lambda: False, time.monotonic() + ahead)

    run(main())


def test_what_has_become_true_by_the_deadline_is_no_error_though_nobody_told():
    async def main():
        looks = []
        await Wakeup().wait(lambda: looks.append(1) or len(looks) > 2, time.monotonic() + 0.01)

    run(main())


def test_who_was_told_in_vain_waits_for_what_is_left_of_its_time(monkeypatch):
    now, timeouts, original = [100.0], [], asyncio.wait

    async def main():
        wakeup = Wakeup()

        async def wait(waiters, *, timeout):
            timeouts.append(timeout)
            now[0] += 4.0
            if now[0] < 110:
                wakeup.tell_here()
            return await original(waiters, timeout=0)

        monkeypatch.setattr(asyncio, "wait", wait)
        monkeypatch.setattr(wakeups, "time", SimpleNamespace(monotonic=lambda: now[0]))
        with pytest.raises(TimeoutError):
            await wakeup.wait(lambda: False, 110.0)

    asyncio.run(main())
    assert timeouts == [10.0, 6.0, 2.0]


def test_when_its_time_is_over_it_does_not_wait(monkeypatch):
    timeouts, original = [], asyncio.wait

    async def main():
        async def wait(waiters, *, timeout):
            timeouts.append(timeout)
            return await original(waiters, timeout=0)

        monkeypatch.setattr(asyncio, "wait", wait)
        with pytest.raises(TimeoutError):
            await Wakeup().wait(lambda: False, time.monotonic() - 5)

    asyncio.run(main())
    assert timeouts == [0]


# ---- the end of a pool ----------------------------------------------------------------------------------------


class Ending:
    """A pool that is shut down, with a thread that has started or has not."""

    def __init__(self, *, started=True, works=False, reentered=False, elsewhere=0):
        self.notes, self.tells = [], []
        self.thread = SimpleNamespace(started=started, does_its_work=works, is_over=False, tell_end=self.tells.append)
        self.core = SimpleNamespace(thread=self.thread, is_reentered=reentered)
        self.starter = self
        self.elsewhere = elsewhere

    @property
    def starts_elsewhere(self):
        """Whether another thread is starting it: for so many looks."""
        self.elsewhere -= 1
        return self.elsewhere >= 0

    def join(self):
        self.notes.append(("join", self.thread.is_over))


def test_the_end_of_a_pool_is_waited_for_without_blocking_its_loop():
    async def main():
        pool = Ending()
        waiting = asyncio.ensure_future(wait_for_end(pool))
        await turns()
        assert pool.notes == []
        (tell_end,) = pool.tells
        tell_end()  # in vain
        await turns()
        assert not waiting.done()
        pool.thread.is_over = True
        pool.thread.tell_end = pool.tells.append
        (pool.tells[-1])()
        await waiting
        assert pool.notes == [("join", True)]

    run(main())


@pytest.mark.parametrize("kind", [{"started": False}, {"works": True}, {"reentered": True}], ids=str)
def test_the_end_is_not_waited_for_where_a_join_would_not_wait(kind):
    """A thread that was never started ends never, and a callback or a signal handler would wait for itself."""

    async def main():
        pool = Ending(**kind)
        await wait_for_end(pool)
        assert (pool.notes, pool.tells) == ([("join", False)], [])

    run(main())


def test_a_pool_that_another_thread_is_starting_is_waited_for_until_it_has_a_thread(monkeypatch):
    monkeypatch.setattr(wakeups, "_LOOK", 0.001)

    async def main():
        pool = Ending(started=False, elsewhere=5)
        waiting = asyncio.ensure_future(wait_for_end(pool))
        await turns()
        assert pool.notes == []
        await waiting
        assert pool.elsewhere < 0
        assert pool.notes == [("join", False)]

    run(main())


def test_several_threads_tell_one_coroutine():
    async def main():
        wakeup, count = Wakeup(), []

        def add():
            count.append(1)
            wakeup.tell()

        threads = [threading.Thread(target=add) for _ in range(20)]
        waiting = asyncio.ensure_future(wakeup.wait(lambda: len(count) == 20))
        await asyncio.sleep(0)
        for thread in threads:
            thread.start()
        await waiting
        eventually(lambda: not any(thread.is_alive() for thread in threads), "they have ended")

    run(main())
