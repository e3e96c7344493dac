"""What a pool does with its lock and what without, and what it does not do where it has no thread yet."""

from __future__ import annotations

import pytest

from pidfdpool.loop.pool import Pool
from pidfdpool.process import interruptible
from pidfdpool.scheduler import events as ev
from pidfdpool.scheduler.policy import Policy
from pidfdpool.template.recipe import Recipe
from tests.loop.test_pool_parts import Future, deferred, made, submit


@pytest.fixture
def pool():
    pool = made()
    yield pool
    pool.leases.close()
    pool.core.poller.close()


@pytest.fixture
def limited():
    pool = made(max_pending=1)
    yield pool
    pool.leases.close()
    pool.core.poller.close()


@pytest.fixture
def at_a_prompt(monkeypatch):
    monkeypatch.setattr(interruptible, "handlers_may_raise", lambda: True)
    monkeypatch.setattr(interruptible, "handlers_may_raise_here", lambda: True)


def test_what_the_thread_of_a_pool_does_is_this_pools_loop():
    policy = Policy(1)
    pool = Pool(policy, Recipe(way="exec", preload=(), preload_call=None, initializer=None), [], 1)
    assert pool.core.thread.run == pool._loop.run
    assert pool.core.machine.policy is policy
    pool.leases.close()
    pool.core.poller.close()


def test_the_machine_and_futures_are_asked_with_the_lock_whichever_way_it_is(pool):
    """Another thread decides meanwhile otherwise."""
    held = []

    class Asked(Future):
        def _attach(self, *given):
            held.append(("attach", pool.core.lock._is_owned()))
            super()._attach(*given)

        def _mark_cancelled(self):
            held.append(("mark", pool.core.lock._is_owned()))
            return super()._mark_cancelled()

    futures = [Asked() for _ in range(3)]
    enqueue = pool.machine.enqueue
    pool.machine.enqueue = lambda *given: held.append(("enqueue", pool.core.lock._is_owned())) or enqueue(*given)
    for future in futures:
        pool.submit(future, [b"\x80\x05N."], "work", pool._policy, None, wait=True)
    for future in futures:
        assert pool.cancel(future.number, future)
    assert len(held) >= 9
    assert all(owned for _, owned in held)
    assert not pool.core.lock._is_owned()


def test_what_an_accepted_task_leads_to_is_run_without_the_lock(pool):
    ran = []
    pool.core.decide = lambda event, context=None: [lambda: ran.append(pool.core.lock._is_owned())]
    submit(pool)
    assert ran == [False]


def test_what_a_cancellation_leads_to_is_run_without_the_lock(pool):
    future, ran = submit(pool), []
    pool.core.decide = lambda event, context=None: [lambda: ran.append(pool.core.lock._is_owned())]
    pool.cancel(1, future)
    assert ran == [False]


@pytest.mark.parametrize("started", [False, True])
def test_at_a_prompt_who_has_a_thread_leaves_it_to_that_and_who_has_none_does_it_at_once(pool, at_a_prompt, started):
    pool.starter.claim_first = lambda: False
    asked = []
    pool.machine.enqueue = lambda *given: asked.append(given) or True
    pool.core.thread.started = started
    submit(pool)
    assert len(asked) == (not started)
    assert deferred(pool) == [ev.Submitted] * started


@pytest.mark.parametrize("started", [False, True])
def test_at_a_prompt_a_cancellation_is_decided_by_the_thread_if_there_is_one(pool, at_a_prompt, started):
    pool.starter.claim_first = lambda: False
    pool.core.thread.started = False
    futures = [submit(pool) for _ in range(3)]
    pool.core.thread.started = started
    assert pool.cancel(1, futures[0])
    assert futures[0].told == ([] if started else ["cancelled"])
    assert deferred(pool) == [ev.Cancelled] * started


def test_who_waits_for_room_or_has_interrupted_a_decision_starts_no_pool(limited):
    limited.core.thread.started = False
    limited.starter.claim_first = lambda: True
    started = []
    limited.starter.start_first = lambda number, mask: started.append(number)
    submit(limited)
    submit(limited, wait=False)
    with limited.core.lock:
        submit(limited)
    assert started == [1]


def test_a_short_cancellation_is_no_business_of_the_pool_threads(pool):
    futures, woken = [submit(pool) for _ in range(3)], []
    pool.core.poller.wait(0)
    pool.core.outbox.run = pool.core.outbox.leave = lambda _: woken.append(1)
    pool.core.poller.wake, wake = lambda: woken.append(1), pool.core.poller.wake
    assert pool.cancel(2, futures[1])
    assert woken == []
    pool.core.poller.wake = wake


def test_one_whose_deadline_is_to_be_forgotten_is_cancelled_as_well():
    pool = made(deadline=1000.0)
    futures = [submit(pool) for _ in range(3)]
    for future in futures:
        assert pool.cancel(future.number, future)
        assert future.told == ["cancelled"]
    assert pool.core.tasks == {}
    pool.leases.close()
    pool.core.poller.close()


@pytest.mark.parametrize("waits", [False, True])
def test_a_cancellation_in_a_handler_that_has_interrupted_a_decision_only_asks(pool, waits):
    futures = [submit(pool) for _ in range(2)]
    if not waits:
        pool.machine.to_cancel = ()
        pool.machine.queue = ()
    with pool.core.lock:
        assert pool.cancel(1, futures[0]) is waits
    assert futures[0].told == []
    assert deferred(pool) == [ev.Cancelled] * waits
    assert set(pool.core.tasks) == {1, 2}


def test_what_follows_from_the_room_that_a_cancellation_makes_is_run_behind_it(limited):
    first, second, ran = submit(limited), submit(limited, wait=False), []
    limited.machine.cancel = lambda number: True
    limited.core.decide = lambda event, context=None: [lambda: ran.append((event.task, list(first.told)))]
    assert limited.cancel(first.number, first)
    assert ran == [(second.number, ["cancelled"])]


def test_a_lost_owner_is_known_when_the_thread_is_woken_for_it(pool):
    seen, wake, owner = [], pool.core.poller.wake, Future()
    pool.core.poller.wake = lambda: seen.append(pool._loop.owner_lost)
    pool.shut_down_with(owner, None)
    del owner
    pool.core.poller.wake = wake
    assert seen == [True]
