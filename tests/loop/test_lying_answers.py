"""Answers that lie there until a thread waits again. Whoever wants to know of them in another way finds them."""

from __future__ import annotations

import asyncio
import math
import threading
from concurrent.futures import FIRST_COMPLETED, as_completed, wait

import pytest

from pidfdpool import PidfdPoolExecutor
from pidfdpool.loop import watchdog
from tests import calls
from tests.conditions import eventually


@pytest.fixture
def lying(pool, monkeypatch):
    """Have the pool thread let answers lie for a minute, if nobody observes them; return what makes it do so."""
    monkeypatch.setattr(watchdog, "GAP", math.inf)  # however long ago, if ever, this thread has led
    monkeypatch.setattr(watchdog, "AGAIN", math.inf)
    monkeypatch.setattr(watchdog, "TICK", 60.0)
    poller = pool._pool.core.poller if pool._pool is not None else None

    def make():
        nonlocal poller
        pool.submit(calls.double, 1).result(20)
        poller = pool._pool.core.poller
        pauses = iter([0.02, 0.05, 0.1, 0.3])

        def lies():
            future = pool.submit(calls.double, 1)
            # It comes meanwhile, and the pool thread looks at it: on a machine with much else to do that takes long.
            threading.Event().wait(next(pauses, 1.0))
            if poller.guarded:
                return future
            assert future.result(20) == 2
            return None

        return eventually(lies, "an answer lies there")

    yield make
    monkeypatch.undo()
    poller.wake()


def test_it_lies_there_until_somebody_leads(lying):
    future = lying()
    assert future._state != "FINISHED"
    assert future.result(20) == 2


def test_asking_whether_it_is_done_finds_it(lying):
    future = lying()
    eventually(future.done, "it is read though nobody waits", 20)


def test_in_another_thread_too(lying):
    future, got = lying(), []
    thread = threading.Thread(target=lambda: got.append(future.exception(20)))
    thread.start()
    thread.join(25)
    assert got == [None]


def test_a_callback_that_is_added_then(lying):
    future, called = lying(), threading.Event()
    future.add_done_callback(lambda _: called.set())
    assert called.wait(20)


@pytest.mark.parametrize("how", ["wait", "as_completed", "asyncio"])
def test_waiting_in_another_way(lying, how):
    future = lying()
    if how == "wait":
        assert wait([future], 20, FIRST_COMPLETED).done == {future}
    elif how == "as_completed":
        assert next(as_completed([future], 20)).result(0) == 2
    else:

        async def main():
            return await asyncio.wait_for(asyncio.wrap_future(future), 20)

        assert asyncio.run(main()) == 2


def test_a_call_that_is_awaited(pool, lying):
    lying()

    async def main():
        return await asyncio.wait_for(pool.run(calls.double, 4), 20)

    assert asyncio.run(main()) == 8


def test_what_waits_for_a_worker_gets_one(pool, lying):
    """Each task needs the answer of another, because with a timeout none is sent ahead."""
    lying()
    called = threading.Event()
    timed = [pool.options(timeout=60).submit(calls.double, number) for number in range(10)]
    timed[-1].add_done_callback(lambda _: called.set())
    assert called.wait(20)
    assert [future.result(20) for future in timed] == list(range(0, 20, 2))


def test_what_waits_for_a_worker_is_run_though_nobody_asks(pool, lying, tmp_path):
    lying()
    for number in range(10):
        pool.options(timeout=60).submit((tmp_path / str(number)).touch)
    eventually(lambda: len(list(tmp_path.iterdir())) == 10, "all are run", 20)


def test_the_pool_is_shut_down(lying, pool):
    lying()
    ended = threading.Thread(target=pool.shutdown)
    ended.start()
    ended.join(25)
    assert not ended.is_alive()


def test_nothing_lies_there_where_somebody_observes_it(pool, lying):
    called = [threading.Event() for _ in range(50)]
    for event in called:
        pool.submit(calls.double, 1).result(20)
        pool.submit(calls.double, 2).add_done_callback(lambda _, event=event: event.set())
        assert event.wait(20)


def test_with_short_looks_nothing_lies_there_for_long(monkeypatch):
    monkeypatch.setattr(watchdog, "GAP", math.inf)  # however long ago, if ever, this thread has led
    monkeypatch.setattr(watchdog, "AGAIN", math.inf)
    with PidfdPoolExecutor(1) as pool:
        for _ in range(20):
            pool.submit(calls.double, 1).result(20)
            future = pool.submit(calls.double, 1)
            eventually(lambda: future._state == "FINISHED", "it is read though nobody leads")
        eventually(lambda: not pool._pool.core.watchdog._ticks, "and the pool thread sleeps then")
