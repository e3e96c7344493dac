"""The pool of one executor: made at the first use, closed once for all. With pools that only take notes."""

from __future__ import annotations

import signal
import threading
import weakref
from types import SimpleNamespace

import pytest

from pidfdpool import PidfdPoolExecutor, Policy
from pidfdpool.executor import lifecycle, own_pool
from pidfdpool.executor.own_pool import OwnPool
from pidfdpool.loop.pool_thread import PoolThread
from pidfdpool.scheduler.states import Phase, State
from pidfdpool.template.recipe import Recipe
from tests import calls


class Pool:
    def __init__(self, _policy, recipe, _subscribers, max_workers):
        self.recipe, self.notes, self.size = recipe, [], max_workers
        self.starter = SimpleNamespace(stillborn=False)
        self.machine = SimpleNamespace(broken=None, state=SimpleNamespace(phase=Phase.OPEN))

    def check_open(self):
        raise RuntimeError("the pool is broken")

    def shut_down_with(self, owner, _maps):
        self.notes.append(("owner", owner))

    def shutdown(self, *, cancel):
        self.notes.append(("shutdown", cancel))

    def join(self):
        self.notes.append("join")

    def kill(self, number):
        self.notes.append(("kill", number))

    def resize(self, size):
        self.notes.append(("resize", size))


@pytest.fixture
def own(monkeypatch):
    monkeypatch.setattr(own_pool, "Pool", Pool)
    monkeypatch.setattr(lifecycle, "_pools", weakref.WeakSet())
    monkeypatch.setattr(lifecycle, "_own_pools", weakref.WeakSet())
    return OwnPool(Policy(2), lambda: "a recipe")


class Owner:
    pass


def test_the_pool_is_made_at_the_first_use_and_then_the_same(own):
    owner = Owner()
    assert own.pool is None
    pool = own.open(owner)
    assert (pool.recipe, pool.size, pool.notes) == ("a recipe", 2, [("owner", owner)])
    assert own.open(owner) is pool
    assert list(lifecycle._pools) == [pool]


def test_a_pool_that_never_came_to_be_is_followed_by_another(own):
    first = own.open(Owner())
    first.starter.stillborn = True
    first.machine.state.phase = Phase.CLOSED
    second = own.open(Owner())
    assert second is not first
    assert own.open(Owner()) is own.pool is second


def test_a_broken_pool_is_not_followed_by_another_and_says_so_each_time(own):
    pool = own.open(Owner())
    pool.machine.broken, pool.machine.state.phase = "why", Phase.CLOSED
    for _ in range(2):
        with pytest.raises(RuntimeError, match="broken"):
            own.open(Owner())
    own.shutdown(wait=False, cancel=False)
    with pytest.raises(RuntimeError, match="broken"):  # which says more than that it is shut down
        own.open(Owner())


@pytest.mark.parametrize("used", [False, True])
def test_after_shutdown_there_is_no_other_pool(own, used):
    if used:
        own.open(Owner())
    own.shutdown(wait=True, cancel=False)
    with pytest.raises(RuntimeError, match="after shutdown"):
        own.open(Owner())


class Map:
    def __init__(self, own):
        self.own, self.notes = own, []

    def submit_rest(self, *, wait=True):
        self.notes.append(("rest", self.own.open(self), wait))
        return True

    def stop_reading_here(self):
        self.notes.append("stop reading")

    def stop_submitting(self, failure):
        self.notes.append(("stop", type(failure).__name__))


@pytest.mark.parametrize(
    ("cancel", "waits", "done"),
    [(False, True, [("shutdown", False), "join"]), (True, False, [("shutdown", True)])],
)
def test_maps_submit_the_rest_while_that_is_possible_and_then_the_pool_is_shut_down(own, cancel, waits, done):
    pool, rest = own.open(Owner()), Map(own)
    own.maps.add(rest)
    own.shutdown(wait=waits, cancel=cancel)
    end = ["stop reading"] if waits else []
    assert rest.notes == [("stop", "CancelledError") if cancel else ("rest", pool, True), *end]
    assert pool.notes[1:] == done


def test_workers_are_ended_without_waiting_and_maps_submit_nothing_more(own):
    pool, rest = own.open(Owner()), Map(own)
    own.maps.add(rest)
    own.end_workers(signal.SIGTERM)
    assert rest.notes == [("stop", "CancelledError")]
    assert pool.notes[1:] == [("kill", signal.SIGTERM)]


def test_a_signal_handler_that_shuts_down_while_the_pool_is_made_is_heeded(own):
    def make_recipe():
        own.shutdown(wait=True, cancel=False)

    own._make_recipe = make_recipe
    with pytest.raises(RuntimeError, match="after shutdown"):
        own.open(Owner())
    assert own.pool is None
    assert not lifecycle._pools


def test_a_size_is_that_of_the_pool_there_is_or_of_the_one_to_come(own):
    own.resize(3)
    pool = own.open(Owner())
    assert pool.size == 3
    own.resize(5)
    assert pool.notes[1:] == [("resize", 5)]
    assert own.max_workers == 5


def test_it_tells_its_state_in_words(own):
    assert own.description() == "not started, 0 of 2 workers busy, 0 tasks pending"
    machine = own.open(Owner()).machine
    machine.counts, machine.tasks = {State.BUSY: 1}, [1, 2, 3]
    assert own.description() == "open, 1 of 2 workers busy, 3 tasks pending"
    machine.broken = "why"
    assert own.description().startswith("broken, ")
    machine.broken = None
    own.close(cancel=True)
    assert own.description().startswith("shut down, ")


def test_in_a_forked_child_it_begins_anew_whoever_held_its_lock(own):
    pool = own.open(Owner())
    own.lock.acquire()
    copy, opened = own.lock, []
    try:
        own.forget_pool_of_parent()
        thread = threading.Thread(target=lambda: opened.append(own.open(Owner())), daemon=True)
        thread.start()
        thread.join(10)
    finally:
        copy.release()
    assert opened
    assert opened[0] is not pool


def test_where_no_thread_could_be_started_the_next_submit_tries_again(monkeypatch):
    def refuse(_thread):
        raise RuntimeError("can't start new thread")

    with PidfdPoolExecutor(1) as pool:
        with monkeypatch.context() as patch:
            patch.setattr(PoolThread, "start", refuse)
            with pytest.raises(RuntimeError, match="can't start new thread"):
                pool.submit(calls.double, 1)
        assert pool.submit(calls.double, 2).result(20) == 4


def test_there_are_never_to_be_fewer_workers_than_are_kept():
    with PidfdPoolExecutor(4, min_workers=2) as pool:
        for size, kind, told in (
            (1, ValueError, "min_workers"),
            (0, ValueError, "max_workers"),
            ("3", TypeError, "3"),
        ):
            with pytest.raises(kind, match=told):
                pool.resize(size)
        assert pool._max_workers == 4
        pool.resize(2)
        assert pool._max_workers == 2


def test_a_pool_that_a_signal_handler_shuts_down_while_it_is_made_takes_no_task():
    """Guards: it was kept, and ran on although `shutdown` had returned: that had found no pool to end."""

    def make_recipe():  # as if the handler ran in the middle
        assert own.close(cancel=False) is None
        return Recipe(way="exec", preload=(), preload_call=None, initializer=None)

    own, owner = OwnPool(Policy(1), make_recipe), Owner()
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        own.open(owner)
    assert own.pool is None
