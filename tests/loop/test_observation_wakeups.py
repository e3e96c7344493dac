"""When the pool thread wakes up for the observers of a pool."""

from __future__ import annotations

import math
import threading
import time
import weakref
from types import SimpleNamespace

from pidfdpool import Attempts
from pidfdpool.loop import observation
from tests import observed_calls
from tests.conditions import eventually

NOTHING = {name: lambda *_, **__: None for name in ("take", "work", "pool_ended", "follows_into_forked_child")}


def observing(wake_by=lambda at: None):
    return observation.Observation(SimpleNamespace(), {}, threading.RLock(), wake_by)


def test_who_finds_another_thread_telling_looks_again_later_and_not_at_once():
    """Guards: the pool thread would go round and round while an observer is slow in a thread that reads answers."""
    one = observing()
    telling, go = threading.Event(), threading.Event()

    def take(_records):
        telling.set()
        go.wait(20)

    one.add(SimpleNamespace(**{**NOTHING, "take": take}))
    one.noted.append("a record")
    thread = threading.Thread(target=one.tell)
    thread.start()
    try:
        assert telling.wait(20)
        before = time.monotonic()
        for noted in (["another"], []):
            one.noted.extend(noted)
            one.work(idle=False)
            assert one.due_at(before) > before
    finally:
        go.set()
        thread.join()


def test_without_news_and_wishes_the_pool_thread_need_not_wake_up():
    one = observing()
    one.add(SimpleNamespace(**NOTHING))
    one.work(idle=True)
    assert one.due_at(time.monotonic()) == math.inf
    one.noted.append("a record")
    assert one.due_at(time.monotonic()) < math.inf


def test_answers_that_a_leader_took_are_told_though_nobody_uses_the_pool_any_more(pool):
    """Guards: answers that were set aside, with the results in them, would be kept until the next use of the pool."""
    told = []
    stop = pool.observe(SimpleNamespace(**{**NOTHING, "take": told.extend}))
    observed = pool._pool.core.resolver.observation
    eventually(lambda: observed.due_at(0.0) == math.inf, "the pool thread has nothing to wake up for")
    future = pool.submit(observed_calls.Referable)
    result = weakref.ref(future.result(timeout=20))
    del future
    eventually(lambda: Attempts in map(type, told), "it is told")
    eventually(lambda: result() is None, "nothing holds the result")
    stop()


def test_nothing_is_judged_because_an_observer_wants_to_work(pool):
    """Guards: to judge reads the channels of all workers, which nobody who only observes should cost a pool."""
    loop, turns, judged = pool._pool._loop, [], []
    eventually(lambda: pool._pool.core.sleeps_until is None, "the pool thread has no deadline")
    loop._judge = judged.append

    def work(now, *, idle):
        turns.append(now)
        return now + 0.001

    stop = pool.observe(SimpleNamespace(**{**NOTHING, "work": work}))
    eventually(lambda: len(turns) >= 20, "the observer works")
    stop()
    del loop._judge
    assert not judged
