"""Signal handlers that raise exceptions in the middle of a map: who calls the map, or takes from it, gets them."""

from __future__ import annotations

import os
import signal

import pytest

from pidfdpool.executor import pool_submission
from tests.executor.test_chunk_ends import outcomes_of
from tests.executor.test_map_chunks import Map, answer

MANY = 40
HOWS = [
    {},
    {"return_exceptions": True},
    {"chunksize": 2, "buffersize": 2},
    {"buffersize": 3},
    {"buffersize": 64},
    {"buffersize": 64, "return_exceptions": True},
]


class Late(Exception):
    """What a timer of the host's raises."""


@pytest.fixture(autouse=True)
def timer_that_raises():
    """Have SIGALRM raise `Late`."""

    def raise_late(*_):
        raise Late

    before = signal.signal(signal.SIGALRM, raise_late)
    yield
    signal.signal(signal.SIGALRM, before)


def be_late():
    signal.raise_signal(signal.SIGALRM)
    for _ in range(100):
        pass


class LateOnce:
    """Is a number in workers. Is interrupted by the timer when it is pickled for the first time."""

    left = True

    def __init__(self, number):
        self.number, self.host = number, os.getpid()

    def __reduce__(self):
        if self.number == 1 and LateOnce.left:
            LateOnce.left = False
            be_late()
        return int, (self.number,)


def numbers(late_at):
    for number in range(MANY):
        if number == late_at:
            be_late()
        yield number


@pytest.mark.parametrize("how", HOWS)
def test_what_ends_the_wait_for_an_input_is_raised_at_once(pool, how):
    with pytest.raises(Late):
        next(pool.map(abs, numbers(0), **how))
    ahead = how.get("buffersize", MANY) * how.get("chunksize", 1)
    if ahead < MANY:
        came, results = [], pool.map(abs, numbers(MANY - 1), **how)
        with pytest.raises(Late):
            came.extend(results)
        assert len(came) <= MANY - ahead, "no results of inputs that were taken before come first"
    assert pool.submit(abs, -1).result() == 1


def test_what_comes_while_calls_are_pickled_together_is_not_lost(pool):
    chunks = {"return_exceptions": True, "chunksize": 8}
    for how in (chunks, chunks | {"buffersize": 2}):
        LateOnce.left = True
        with pytest.raises(Late):
            list(pool.map(abs, map(LateOnce, range(MANY)), **how))
        assert not LateOnce.left
    assert pool.submit(abs, -1).result() == 1


@pytest.mark.parametrize("how", HOWS)
def test_no_call_fails_of_what_comes_while_its_task_is_made(pool, how, monkeypatch):
    pickled, left = pool_submission.unwrapped, [None]

    def interrupted(*arguments):
        if left:
            left.pop()
            be_late()
        return pickled(*arguments)

    monkeypatch.setattr(pool_submission, "unwrapped", interrupted)
    with pytest.raises(Late):
        list(pool.map(abs, range(MANY), **how))
    monkeypatch.undo()
    assert list(pool.map(abs, range(MANY), **how))


def test_what_comes_while_the_function_is_pickled_is_not_lost(pool):
    class Function:
        def __reduce__(self):
            be_late()
            return abs, (0,)

    for how in ({}, {"return_exceptions": True}, {"buffersize": 64}, {"buffersize": 64, "return_exceptions": True}):
        with pytest.raises(Late):
            list(pool.map(Function(), range(MANY), **how))


@pytest.mark.parametrize("function", [abs, lambda number: number], ids=["named", "by value"])
def test_what_comes_while_a_call_is_pickled_is_raised_by_submit(pool, function):
    LateOnce.left = True
    with pytest.raises(Late):
        pool.submit(function, LateOnce(1))
    assert not LateOnce.left
    assert pool.submit(function, LateOnce(1)).result() == 1


@pytest.mark.parametrize("begin", [Map, outcomes_of])
def test_where_what_is_left_of_a_chunk_could_not_be_submitted_the_map_ends(begin):
    it = begin()

    def interrupted(*_arguments, **_options):
        raise KeyboardInterrupt

    answer(it.submit(0, 6), [0, 10])
    answer(it.submit(6, 2), [60, 70])
    it.submission.submit = interrupted
    with pytest.raises(KeyboardInterrupt):  # in the thread whose turn it is, and not in the consumer's
        it.settle()
    it.settle()
    entries = [it.take()]
    while entries[-1][1] is None:
        entries.append(it.take())
    came = [result for results, _ in entries for result in results]
    assert [getattr(each, "value", each) for each in came if not getattr(each, "error", None)] == [0, 10]
    assert type(entries[-1][1]) is KeyboardInterrupt


def test_who_leaves_a_map_that_was_interrupted_in_a_submit_holds_the_pool_no_longer():
    it = Map()
    submitting = it.chunks.submit("executor", 0, [0, 1], it.ended)
    it.entries.add([next(submitting)])
    submitting.close()  # before anybody could be told of the chunk's end
    assert it.pool.held == 1
    it.chunks.is_left = True
    it.chunks.let_go_if_over()
    assert it.pool.held == 0
