"""The size of the next chunk of a map, with measurements made up."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as some

from pidfdpool.executor.chunk_sizes import GROWTH, HEAVIEST, LARGEST, LEAST, SHARES, TARGET, Pace


def test_before_anything_is_measured_a_chunk_is_one_call():
    assert Pace(4).next(1_000_000) == 1


def test_a_chunk_takes_about_the_time_that_it_should():
    pace = Pace(2)
    for _ in range(10):
        size = pace.next(10**9)
        pace.note(size, size * 1e-5, 10)
    assert 0.9 * TARGET <= pace.next(10**9) * 1e-5 <= TARGET


def test_long_calls_stay_alone():
    pace = Pace(2)
    pace.note(1, 1.0, 10)
    assert pace.next(1000) == 1


def test_one_measurement_lets_a_chunk_grow_by_a_bounded_factor():
    pace = Pace(2)
    pace.note(1, 0.0, 10)
    assert pace.next(10**9) == GROWTH
    pace.note(GROWTH, 0.0, 10)
    assert pace.next(10**9) == GROWTH * GROWTH


def test_calls_that_became_long_are_noticed_at_once():
    pace = Pace(2)
    for _ in range(20):
        size = pace.next(10**9)
        pace.note(size, size * 1e-7, 10)
    before = pace.next(10**9)
    pace.note(before, before * 1.0, 10)
    assert pace.next(10**9) == 1


def test_the_least_time_that_there_is_makes_no_infinite_chunk():
    pace = Pace(1)
    pace.note(800, 2.225073858507203e-309, 0)
    assert pace.next(1) == 1


def test_heavy_arguments_travel_in_small_chunks():
    pace = Pace(2)
    for _ in range(10):
        size = pace.next(10**9)
        pace.note(size, 0.0, size * 100_000)
    assert pace.next(10**9) == HEAVIEST // 100_000


def test_towards_the_end_chunks_become_smaller():
    pace = Pace(3)
    pace.note(10_000, 0.0, 10)
    sizes, left = [], 10_000
    while left:
        sizes.append(pace.next(left))
        left -= sizes[-1]
    assert sizes[0] == 10_000 // (3 * SHARES)
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == 1


def test_a_few_calls_stay_alone_when_only_single_ones_were_measured():
    """Of a short one, a short one and a long one the second must not wait for the third."""
    pace = Pace(5)
    pace.note(1, 1e-6, 10)
    assert pace.next(2) == 1


def test_but_not_smaller_than_is_worth_a_chunk():
    pace = Pace(3)
    pace.note(10_000, 10_000 * 1e-6, 10)
    least = round(LEAST / 1e-6)
    sizes, left = [], 10_000
    while left:
        sizes.append(pace.next(left))
        left -= sizes[-1]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == 10_000 // (3 * SHARES)
    assert all(abs(size - least) <= 1 for size in sizes[-3:-1])


@given(
    some.integers(1, 64),
    some.lists(some.tuples(some.integers(1, 10**6), some.floats(0, 1e4), some.integers(0, 10**9))),
    some.integers(1, 10**9),
)
def test_a_chunk_has_always_one_call_and_never_too_many(workers, measured, left):
    pace = Pace(workers)
    for calls, seconds, size in measured:
        pace.note(calls, seconds, size)
    assert 1 <= pace.next(left) <= min(LARGEST, left)
