"""One thread at a time submits for a map, and what another one wants meanwhile is done when the turn is over."""

from __future__ import annotations

import contextvars
import threading

import pytest

from pidfdpool.executor.map_turns import Turns
from tests.conditions import eventually

NAME = contextvars.ContextVar("NAME", default="nobody")


def test_nobody_has_a_turn_before_somebody_wants_something():
    turns, seen = Turns(), []
    assert not turns.take(lambda: seen.append("a turn"), never, wait=False)
    turns.wanted = True
    assert turns.take(lambda: seen.append("a turn"), never, wait=False)
    assert not turns.take(lambda: seen.append("a turn"), never, wait=False)
    assert seen == ["a turn"]


def never(_error):
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize("wait", [False, True])
def test_code_that_interrupts_a_turn_does_not_wait_for_it_and_the_turn_goes_on_for_it(wait):
    turns, seen = Turns(), []

    def submit():
        seen.append(turns.is_interrupted)
        if len(seen) == 1:
            assert not turns.take(submit, never, wait=wait), "a signal handler, or a finalizer"
            assert len(seen) == 1, "it is not its turn"

    assert turns.take(submit, never, wait=True)
    assert seen == [True, True]
    assert not turns.is_interrupted
    assert not turns.take(submit, never, wait=False), "there is nothing to submit any more"


@pytest.mark.parametrize("wait", [False, True])
def test_another_thread_waits_for_the_turn_only_if_it_is_to(wait):
    turns, began, go, done = Turns(), threading.Event(), threading.Event(), []

    def hold():
        began.set()
        go.wait(20)
        done.append("first")

    holding = threading.Thread(target=turns.take, args=(hold, never), kwargs={"wait": True})
    holding.start()
    began.wait(20)

    def other():
        turns.wanted = True
        done.append(turns.take(lambda: done.append("other"), never, wait=wait))

    waiting = threading.Thread(target=other)
    waiting.start()
    if wait:
        assert done == []
    else:
        waiting.join(20)
        assert done == [False]
    go.set()
    holding.join(20)
    waiting.join(20)
    if wait:
        assert sorted(map(str, done)) in (["True", "first", "other"], ["True", "first", "first", "other"])
    else:
        assert done == [False, "first", "first"], "the note was found"


def test_what_is_raised_in_a_turn_is_told_and_the_turn_is_over():
    turns, told = Turns(), []

    def fail():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        turns.take(fail, told.append, wait=True)
    assert [type(error) for error in told] == [KeyboardInterrupt]
    assert not turns.is_interrupted
    took = []
    thread = threading.Thread(target=lambda: took.append(turns.take(lambda: None, never, wait=True)))
    thread.start()
    eventually(lambda: took == [True], "another thread has its turn", seconds=10)
    thread.join()


def test_whoever_submits_does_it_in_the_context_of_the_map():
    token = NAME.set("the caller")
    turns, seen = Turns(), []
    NAME.reset(token)
    thread = threading.Thread(target=turns.take, args=(lambda: seen.append(NAME.get()), never), kwargs={"wait": True})
    thread.start()
    thread.join()
    turns.forget_in_forked_child()
    turns.take(lambda: seen.append(NAME.get()), never, wait=True)
    assert seen == ["the caller"] * 2


def test_a_forked_child_does_not_wait_for_a_turn_that_was_not_copied():
    turns, took = Turns(), []
    turns._lock.acquire()
    try:
        copy = turns._lock
        turns.forget_in_forked_child()
        thread = threading.Thread(target=lambda: took.append(turns.take(lambda: None, never, wait=True)))
        thread.start()
        thread.join(10)
    finally:
        copy.release()
    assert took == [True]
