"""What the pool of an executor is told and asked for beside its making and its end. With pools that take notes."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from types import SimpleNamespace

import pytest

from pidfdpool import Policy
from pidfdpool.executor import lifecycle, own_pool
from pidfdpool.executor.own_pool import OwnPool
from pidfdpool.scheduler.states import Phase
from pidfdpool.worker import rebuild_guard
from tests.conditions import held_by_another_thread


class Pool:
    """Takes notes. It is open, and has a thread that has ended."""

    def __init__(self, policy, recipe, subscribers, max_workers):
        self.made_of = policy, recipe, subscribers, max_workers
        self.recipe, self.notes = f"{recipe} of the pool", []
        self.starter = SimpleNamespace(stillborn=False, starts_elsewhere=False)
        self.machine = SimpleNamespace(broken=None, state=SimpleNamespace(phase=Phase.OPEN))
        self.core = SimpleNamespace(thread=SimpleNamespace(started=False), is_reentered=False)

    def __getattr__(self, name):
        """Note a call, with its arguments."""
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *args, **kwargs: self.notes.append((name, *args, *kwargs.values()))


class Owner:
    """An executor."""


class Observer:
    """Notes nothing."""

    def __init__(self, *, follows=False):
        self.follows = follows

    def take(self, *_):
        """As `pidfdpool.Observer` has it."""

    work = pool_ended = take

    def follows_into_forked_child(self):
        return self.follows


POLICY = Policy(2)


@pytest.fixture
def own(monkeypatch):
    monkeypatch.setattr(own_pool, "Pool", Pool)
    monkeypatch.setattr(lifecycle, "_pools", weakref.WeakSet())
    monkeypatch.setattr(lifecycle, "_own_pools", weakref.WeakSet())
    return OwnPool(POLICY, lambda: "a recipe")


def opened(own):
    owner = Owner()
    pool = own.open(owner)
    assert pool.notes.pop(0) == ("shut_down_with", owner, own.maps)
    return pool


def test_it_is_known_to_the_process_for_its_end_and_its_forks(own):
    assert list(lifecycle._own_pools) == [own]


def test_a_pool_is_made_of_what_is_known_of_it(own):
    own.resize(5)
    assert opened(own).made_of == (POLICY, "a recipe", own.subscribers, 5)


def test_the_recipe_is_that_of_the_pool_if_there_is_one(own):
    assert own.recipe == "a recipe"
    opened(own)
    assert own.recipe == "a recipe of the pool"


# ---- is it open ------------------------------------------------------------------------------------------------


def test_it_is_open_until_it_is_shut_down_or_its_pool_is_not(own):
    assert own.is_open
    pool = opened(own)
    assert own.is_open
    pool.machine.state.phase = Phase.CLOSED
    assert not own.is_open
    pool.machine.state.phase = Phase.OPEN
    own.close(cancel=False)
    assert not own.is_open


def test_a_pool_that_was_never_used_is_open_until_it_is_shut_down(own):
    own.check_open()
    assert own.description().startswith("not started, ")
    assert own.close(cancel=False) is None
    assert own.description().startswith("shut down, ")
    assert not own.is_open
    with pytest.raises(RuntimeError, match="^the executor is shut down$"):
        own.check_open()


def test_what_its_pool_has_to_say_comes_first(own):
    pool = opened(own)
    own.check_open()
    assert pool.notes == [("check_open",)]
    own._shut_down = True

    def refuse():
        raise LookupError("broken")

    pool.check_open = refuse
    with pytest.raises(LookupError, match="broken"):
        own.check_open()


def test_at_the_interpreters_end_no_pool_is_made_and_none_is_used(own, monkeypatch):
    monkeypatch.setattr(lifecycle, "_exiting", True)
    with pytest.raises(RuntimeError, match="after interpreter shutdown"):
        own.open(Owner())
    assert own.pool is None
    monkeypatch.setattr(lifecycle, "_exiting", False)
    opened(own)
    monkeypatch.setattr(lifecycle, "_exiting", True)
    with pytest.raises(RuntimeError, match="after interpreter shutdown"):
        own.open(Owner())


def test_a_worker_that_rebuilds_a_task_makes_no_pool(own, monkeypatch):
    def refuse():
        raise RuntimeError("not while it is rebuilt")

    monkeypatch.setattr(rebuild_guard, "check", refuse)
    with pytest.raises(RuntimeError, match="not while"):
        own.open(Owner())
    assert own.pool is None
    monkeypatch.undo()


def test_threads_that_use_it_first_make_one_pool(own):
    made, barrier = [], threading.Barrier(4, timeout=20)

    def make_recipe():
        made.append(1)
        return "a recipe"

    own._make_recipe = make_recipe
    owner, pools = Owner(), []

    def use():
        barrier.wait()
        pools.append(own.open(owner))

    with held_by_another_thread(own.lock):
        threads = [threading.Thread(target=use) for _ in range(4)]
        for thread in threads:
            thread.start()
        threads[0].join(0.02)
        assert made == [], "the lock is held"
    for thread in threads:
        thread.join(10)
    assert pools == [own.pool] * 4
    assert made == [1]


def test_one_that_is_open_is_used_without_the_lock(own):
    """A signal handler or a callback may submit while another thread holds it."""
    pool = opened(own)
    with held_by_another_thread(own.lock):
        thread = threading.Thread(target=lambda: pool.notes.append(own.open(Owner())), daemon=True)
        thread.start()
        thread.join(10)
        assert pool.notes == [pool]


# ---- observers -------------------------------------------------------------------------------------------------


def test_an_observer_is_told_of_the_pool_there_is_or_of_the_one_to_come_and_then_no_more(own):
    early, late = Observer(), Observer()
    end_early = own.observe(early)
    pool = opened(own)
    assert pool.notes == [("observe", early)]
    end_late = own.observe(late)
    assert pool.notes == [("observe", early), ("tell_observers", True), ("observe", late)]
    assert own.observers == [early, late]
    pool.notes.clear()
    end_early()
    assert own.observers == [late]
    end_early()
    end_late()
    assert own.observers == []
    assert pool.notes == [("stop_observing", early)] * 2 + [("stop_observing", late)]


def test_one_that_has_gone_before_the_first_use_is_told_of_nothing(own):
    end = own.observe(Observer())
    end()
    end()
    assert opened(own).notes == []


@pytest.mark.parametrize("missing", ["take", "work", "pool_ended", "follows_into_forked_child"])
def test_an_observer_that_lacks_a_method_is_refused_by_name(own, missing):
    methods = dict.fromkeys(["take", "work", "pool_ended", "follows_into_forked_child"], print)
    del methods[missing]
    with pytest.raises(TypeError, match=f"observer.*{missing}"):
        own.observe(SimpleNamespace(**methods))
    assert own.observers == []


def test_into_a_forked_child_go_the_observers_that_follow(own):
    follows = Observer(follows=True)
    for observer in (Observer(), follows, Observer()):
        own.observe(observer)
    pool = opened(own)
    pool.notes.clear()
    own.forget_pool_of_parent()
    assert own.observers == [follows]
    assert pool.notes == [], "the parent's pool is left alone"
    assert own.pool is None
    assert opened(own).notes == [("observe", follows)]


class Map:
    def __init__(self):
        self.notes = []

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *args, **kwargs: self.notes.append((name, *args, *kwargs.values()))


def test_maps_are_forgotten_in_a_forked_child_and_told_of_a_thread_that_is_about_to_wait(own):
    rest = Map()
    own.maps.add(rest)
    own.stop_reading_here()
    own.finish_maps(cancel=False)
    own.forget_pool_of_parent()
    own.finish_maps(cancel=False)
    assert rest.notes == [("stop_reading_here",), ("submit_rest",), ("forget_in_forked_child",)]


# ---- the end ---------------------------------------------------------------------------------------------------


def test_maps_are_finished_before_it_is_shut_down(own):
    opened(own)
    open_meanwhile = []
    rest = Map()
    rest.submit_rest = lambda: open_meanwhile.append(own.is_open)
    own.maps.add(rest)
    assert own.close(cancel=False) is own.pool
    assert open_meanwhile == [True]


@pytest.mark.parametrize("cancel", [False, True])
def test_in_an_event_loop_it_ends_as_otherwise(own, cancel):
    pool, rest = opened(own), Map()
    own.maps.add(rest)
    asyncio.run(own.aclose(cancel=cancel))
    assert pool.notes == [("shutdown", cancel), ("join",)]
    assert rest.notes[0][0] == ("stop_submitting" if cancel else "submit_rest")
    assert rest.notes[1:] == [("stop_reading_here",)]
    assert not own.is_open


@pytest.mark.parametrize("end", ["shutdown", "aclose"])
def test_streams_of_a_thread_that_is_about_to_wait_end_before_it_waits(own, end):
    """Guards: it waited for a generator that waited for this thread to read."""
    pool, rest = opened(own), Map()
    rest.stop_reading_here = lambda: pool.notes.append("stop reading")
    own.maps.add(rest)
    if end == "shutdown":
        own.shutdown(wait=True, cancel=False)
    else:
        asyncio.run(own.aclose(cancel=False))
    assert pool.notes == [("shutdown", False), "stop reading", ("join",)]


def test_what_was_never_used_ends_at_once(own):
    asyncio.run(own.aclose(cancel=False))
    own.shutdown(wait=True, cancel=True)
    own.end_workers(9)
    assert not own.is_open
    assert own.pool is None


USES = {
    "close": lambda own: own.close(cancel=False),
    "shutdown": lambda own: own.shutdown(wait=True, cancel=False),
    "aclose": lambda own: asyncio.run(own.aclose(cancel=False)),
    "end_workers": lambda own: own.end_workers(9),
    "resize": lambda own: own.resize(3),
    "observe": lambda own: own.observe(Observer()),
    "stop_observing": lambda own: own.stop_observing(Observer()),
    "open": lambda own: own.open(Owner()),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_whatever_is_done_first_after_a_fork_that_python_has_not_noticed_does_not_touch_the_parents_pool(
    own, monkeypatch, use
):
    pool = opened(own)
    monkeypatch.setattr(lifecycle, "_owner", os.getpid() + 1)
    monkeypatch.setattr(lifecycle, "_fork_locks", {})
    monkeypatch.setattr(lifecycle, "_lock", threading.RLock())
    use(own)
    assert pool.notes == [("abandon_in_forked_child",)]
    assert own.pool is not pool


@pytest.mark.parametrize("use", ["resize", "observe", "stop_observing", "close"])
def test_what_changes_it_waits_for_its_lock(own, use):
    pool = opened(own)
    before = [("tell_observers", True)] if use == "observe" else []  # it changes nothing, and must not have the lock
    with held_by_another_thread(own.lock):
        thread = threading.Thread(target=USES[use], args=(own,))
        thread.start()
        thread.join(0.02)
        assert thread.is_alive()
        assert (own.max_workers, own.observers, own.is_open, pool.notes) == (2, [], True, before)
    thread.join(10)
