"""pidfdpool.multiprocessing: what `get` and `next` make of any timeout, and of exceptions that nobody may look at."""

from __future__ import annotations

import gc
import math
import re
import time
import weakref
from contextlib import suppress

import pytest

from pidfdpool.multiprocessing import MaybeEncodingError, Pool
from tests import hostile_objects
from tests.conditions import eventually
from tests.integrations import pool_calls as calls

SECONDS = 90.0
LONG = [60 * 86400.0, 1e308, math.inf, 10**400]


@pytest.fixture(scope="module")
def pool():
    with Pool(2) as made:
        assert len(made._pool) == 2
        yield made


def outcomes(pool, call, *arguments):
    """Give the result of a call without a callback, and that of one with one, when both are there."""
    told = []
    for callback in (None, told.append):
        result = pool.apply_async(call, arguments, error_callback=callback)
        result.wait(SECONDS)
        assert result.ready()
        yield result
    assert len(told) == 1


@pytest.mark.parametrize("long", LONG)
def test_results_are_waited_for_any_number_of_seconds(pool, long):
    """Guards: with a callback, get raised an OverflowError."""
    for callback in (None, str):
        result = pool.apply_async(time.sleep, (0.02,), callback=callback)
        result.wait(long)
        assert result.ready()
        assert pool.map_async(calls.square, [2], callback=callback).get(long) == [4]
    for iterator in (pool.imap(time.sleep, [0.02]), pool.imap_unordered(time.sleep, [0.02])):
        assert iterator.next(long) is None


@pytest.mark.parametrize(("wrong", "kind"), [(math.nan, ValueError), ("5", TypeError), (1j, TypeError)])
def test_what_nobody_can_wait_for_is_refused_with_name_and_value(pool, wrong, kind):
    told = re.escape(f"timeout must be a number of seconds, or None, not {wrong!r}")
    for waits in (
        *(pool.apply_async(calls.square, (3,), callback=callback).get for callback in (None, str)),
        pool.imap(calls.square, [3]).next,
        pool.imap_unordered(calls.square, [3]).next,
    ):
        with pytest.raises(kind, match=told):
            waits(wrong)
        assert waits(SECONDS) == 9


@pytest.mark.parametrize("name", ["processes", "maxtasksperchild"])
def test_what_is_too_large_is_named_as_the_caller_has_named_it(name):
    with pytest.raises(ValueError, match=f"^{name} must be <= {2**63 - 1}, not {2**63}$"):
        Pool(**{name: 2**63})


@pytest.mark.parametrize("kind", ["Refusal", "Unrelated", "Classless", "Untraced", "Incomparable"])
def test_an_exception_that_nobody_may_look_at_is_what_get_raises(pool, kind):
    """Guards: what its own code raised while it was translated was raised instead, or get waited for ever."""
    for result in outcomes(pool, hostile_objects.raise_now, kind):
        with pytest.raises(getattr(hostile_objects, kind)):
            result.get()


def test_a_result_that_refuses_to_be_pickled_and_to_say_why_has_an_error_all_the_same(pool):
    """Guards: with a callback, that of its repr() was raised in the pool's thread, and get waited for ever."""
    for result in outcomes(pool, calls.RefusesPickling):
        with pytest.raises(MaybeEncodingError, match="Nameless, whose repr"):
            result.get()


class Hints:
    """An iterator that is asked how long it is."""

    def __init__(self, hint):
        self.items, self.hint = iter(range(5)), hint

    def __iter__(self):
        return self

    def __next__(self):
        return next(self.items)

    def __length_hint__(self):
        if isinstance(self.hint, BaseException):
            raise self.hint
        return self.hint


@pytest.mark.parametrize("hint", [MemoryError(), ZeroDivisionError(), -5, 2**62, 2**70, "5", 0], ids=repr)
def test_nobody_asks_an_iterator_how_long_it_is(pool, hint):
    squares = [0, 1, 4, 9, 16]
    assert pool.map(calls.square, Hints(hint)) == squares
    assert pool.map(calls.square, Hints(hint), chunksize=2) == squares
    for chunksize in (1, 2):
        assert list(pool.imap(calls.square, Hints(hint), chunksize)) == squares


class StaysHere:
    """An argument that cannot be sent."""

    def __reduce__(self):
        raise TypeError("it stays here")


def apply(pool, argument):
    pool.apply(calls.square, (argument,))


def apply_with_callback(pool, argument):
    pool.apply_async(calls.square, (argument,), error_callback=str).get()


def map_all(pool, argument):
    pool.map(calls.square, [1, argument])


def next_in_order(pool, argument):
    list(pool.imap(calls.square, [1, argument]))


def next_of_any(pool, argument):
    list(pool.imap_unordered(calls.square, [1, argument]))


@pytest.mark.parametrize("ask", [apply, apply_with_callback, map_all, next_in_order, next_of_any])
def test_a_call_that_is_refused_lives_no_longer_than_its_error(pool, ask):
    """Guards: it was kept in a cycle, with its arguments, until the collector ran."""
    argument = StaysHere()
    is_alive = weakref.ref(argument)
    gc.disable()
    try:
        with suppress(TypeError):
            ask(pool, argument)
        del argument
        eventually(lambda: is_alive() is None, "it was let go of")
    finally:
        gc.enable()
