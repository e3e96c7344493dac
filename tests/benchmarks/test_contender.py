"""What a contender does where its pool has no way of its own."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count, islice
from types import SimpleNamespace

import pytest

from benchmarks.contender import Contender, ExecutorContender, PoolContender, UnsupportedError


class Inline(Contender):
    """Runs a call as it is submitted, and keeps its arguments."""

    def __init__(self):
        self.submitted = []

    def submit(self, fn, *args):
        self.submitted.append(*args)
        future = Future()
        future.set_result(fn(*args))
        return future


class Recorded(ExecutorContender):
    def __init__(self, **methods):
        self.pool = SimpleNamespace(**methods)


@pytest.mark.parametrize("ahead", [1, 3, 100])
def test_a_window_of_futures_takes_so_many_inputs_ahead_and_no_more(ahead):
    contender = Inline()
    results = contender.bounded_map(abs, iter(range(10)), ahead)
    assert contender.submitted == []
    taken = []
    for result in results:
        taken.append(result)
        assert len(contender.submitted) == min(10, ahead + len(taken))
    assert taken == list(range(10))


def test_a_window_of_futures_may_be_left_in_the_middle_of_an_endless_input():
    assert list(islice(Inline().bounded_map(abs, count(), 4), 3)) == [0, 1, 2]


def test_a_map_that_has_a_buffersize_is_asked_for_it():
    asked = []

    def new_map(fn, *iterables, buffersize=None):
        asked.append(buffersize)
        return map(fn, *iterables)

    assert list(Recorded(map=new_map).bounded_map(abs, iter([1, 2]), 7)) == [1, 2]
    assert asked == [7]


def test_a_map_that_has_none_is_replaced_by_the_window():
    with ThreadPoolExecutor(1) as pool:
        contender = Recorded(map=lambda fn, *iterables: pytest.fail("map was called"), submit=pool.submit)
        assert list(contender.bounded_map(abs, iter([-1, -2, -3]), 2)) == [1, 2, 3]


def test_the_end_that_cancels_is_asked_for_only_where_it_exists():
    asked = []
    Recorded(shutdown=lambda wait=True, *, cancel_futures=False: asked.append((wait, cancel_futures))).drop()
    assert asked == [(False, True)]
    with pytest.raises(UnsupportedError):
        Recorded(shutdown=lambda wait=True, kill_workers=False: asked.append(wait)).drop()
    assert len(asked) == 1


def test_what_a_pool_cannot_do_is_said():
    for refused in (lambda pool: pool.drop(), lambda pool: pool.timed_map(abs, [1], 5.0)):
        with pytest.raises(UnsupportedError):
            refused(PoolContender())
