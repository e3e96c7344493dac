"""What a map is asked for: which arguments are refused, and which calls they amount to."""

from __future__ import annotations

import time

import pytest

from pidfdpool.executor.map_request import MapRequest, as_arguments, is_async


class Ticks:
    def __aiter__(self):
        return self


class Both(Ticks):
    """Can be read in either way."""

    def __iter__(self):
        return iter([1, 2])


def request(*iterables, **how):
    return MapRequest(pow, iterables, **how)


def test_what_is_not_said_is_as_in_the_standard_library():
    plain = request([1], [2])
    assert (plain.function, plain.iterables) == (pow, ([1], [2]))
    assert (plain.chunksize, plain.buffersize, plain.deadline, plain.calls_per_task) == (None, None, None, 1)
    assert (plain.outcomes, plain.star, plain.reads) == (False, False, False)


@pytest.mark.parametrize(
    ("how", "error", "text"),
    [
        ({"chunksize": 0}, ValueError, "chunksize must be >= 1, not 0"),
        ({"chunksize": 1.5}, TypeError, "chunksize must be an integer or None, not 1.5"),
        ({"buffersize": 0}, ValueError, "buffersize must be None or > 0, not 0"),
        ({"buffersize": -1}, ValueError, "buffersize must be None or > 0, not -1"),
        ({"buffersize": "2"}, TypeError, "buffersize must be an integer or None, not '2'"),
        ({"timeout": "2"}, TypeError, "timeout must be a number of seconds, or None, not '2'"),
        ({"return_exceptions": 1}, TypeError, "return_exceptions must be True or False, not 1"),
        ({"star": None}, TypeError, "star must be True or False, not None"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_named(how, error, text):
    with pytest.raises(error) as raised:
        request([1], **how)
    assert str(raised.value) == text


@pytest.mark.parametrize("size", [1, True, 7])
def test_the_least_sizes_are_one(size):
    found = request([1], chunksize=size, buffersize=size)
    assert (found.chunksize, found.buffersize, found.calls_per_task) == (size, size, size)
    assert type(found.chunksize) is type(found.buffersize) is int


def test_outcomes_are_of_single_calls_whatever_the_chunksize():
    assert request([1], chunksize=7, return_exceptions=True).calls_per_task == 1
    assert request([1], return_exceptions=True).outcomes


def test_the_time_counts_from_now():
    before = time.monotonic()
    deadline = request([1], timeout=50).deadline
    assert before + 50 <= deadline <= time.monotonic() + 50
    assert request([1], timeout=float("inf")).deadline is None
    assert request([1], timeout=0).deadline <= time.monotonic()


def test_one_iterable_is_given_as_it_is_and_several_side_by_side():
    only, several = request(range(3)), request(range(5), "ab")
    assert (only.starred, only.calls()) == (False, range(3)), "a range need not be copied"
    assert list(only.tuples()) == [(0,), (1,), (2,)]
    assert several.starred
    assert list(several.calls()) == list(request(range(5), "ab").tuples()) == [(0, "a"), (1, "b")]
    assert request().starred
    assert list(request().calls()) == list(request().tuples()) == []


def test_with_star_each_item_is_the_arguments_of_a_call():
    items = [(1, 2), [3, 4], "56", iter((7,))]
    for way in ("calls", "tuples"):
        found = request([*items[:3], iter((7,))], star=True)
        assert (found.star, found.starred) == (True, True)
        made = getattr(found, way)()
        assert list(made) == [(1, 2), (3, 4), ("5", "6"), (7,)]
    whole = (1, 2)
    assert as_arguments(whole, 0) is whole
    found = request(iter([(1,), 5]), star=True).tuples()
    assert next(found) == (1,)
    with pytest.raises(TypeError, match="takes tuples of arguments, and item 1 of the iterable is 5$") as raised:
        next(found)
    assert raised.value.__suppress_context__


@pytest.mark.parametrize("iterables", [(), ([1], [2])], ids=len)
def test_with_star_there_is_one_iterable(iterables):
    with pytest.raises(TypeError, match=f"one iterable, of tuples of arguments, not {len(iterables)} iterables"):
        request(*iterables, star=True)


def test_what_only_a_loop_can_read_is_refused_by_its_number():
    assert is_async(Ticks())
    assert not is_async(Ticks), "the class itself is no iterable"
    with pytest.raises(TypeError, match=r"^iterable 2 is asynchronous \(<.*Ticks.*>\): use amap or amap_unordered$"):
        request([1], Ticks()).refuse_async()
    with pytest.raises(TypeError, match="^iterable 1 is asynchronous"):
        request(Ticks(), Ticks()).refuse_async()
    both = request(Both(), [1])
    assert both.reads
    both.refuse_async()
    request([1], "a").refuse_async()
    assert not request([1], "a").reads
