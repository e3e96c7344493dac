"""What the measured pace of a map decides: how far chunks grow, and whether results are published at once."""

from __future__ import annotations

import pytest

from pidfdpool.executor.chunk_sizes import FixedSize, Pace

MANY = 10**9


def paced(calls, each, size=0, workers=2):
    """Return the pace of a map one chunk of which has ended: calls of so many seconds each, and bytes."""
    pace = Pace(workers)
    pace.note(calls, calls * each, calls * size)
    return pace


def test_a_chunk_has_sixteen_times_the_calls_that_were_measured_and_takes_4_ms_at_most():
    assert paced(3, 1e-9).next(None) == 48
    assert paced(3, 1e-3).next(None) == 4
    assert paced(3, 0.0).next(None) == 48
    assert paced(60_000, 0.0).next(None) == 65_536, "however many were measured"
    assert paced(100, 3e-3).next(None) == 1


def test_a_smaller_chunk_makes_the_next_no_smaller():
    pace = paced(100, 0.0)
    pace.note(2, 0.0, 0)
    assert pace.next(None) == 1600


def test_the_latest_chunk_counts_as_much_as_all_before_it():
    pace = paced(10, 1e-3)
    pace.note(10, 10 * 3e-3, 0)
    assert pace.seconds == pytest.approx(2e-3)
    pace.note(1, 4e-3, 0)
    assert pace.seconds == pytest.approx(3e-3)


def test_a_chunk_carries_a_megabyte_at_most_as_far_as_the_weight_of_calls_is_known():
    pace = paced(10, 0.0, size=2**17)
    assert pace.next(None) == 8
    pace.note(10, 0.0, 0)
    assert pace.next(None) == 16, "light calls are believed by and by"
    pace.note(10, 0.0, 10 * 2**18)
    assert pace.next(None) == 4, "and heavy ones at once"


def test_the_rest_is_divided_by_two_for_each_worker():
    assert paced(10_000, 0.0, workers=4).next(8000) == 1000
    assert paced(10_000, 0.0, workers=1).next(8000) == 4000


def test_a_share_of_the_rest_takes_half_a_millisecond_at_least_or_is_as_large_as_any_chunk_so_far():
    assert paced(1000, 1e-6, workers=50).next(1000) == 500
    assert paced(20, 1e-6, workers=50).next(1000) == 20
    assert paced(1000, 0.0, workers=50).next(1000) == 10, "nothing is known of calls that take no time"


def test_a_map_grows_while_its_chunks_are_small_only_because_few_calls_were_measured():
    assert not Pace(2).grows
    assert paced(1, 1e-6).grows
    assert paced(100, 2e-6).grows
    assert not paced(100, 3e-6).grows
    assert not paced(1, 1e-3).grows
    assert not paced(1, 0.004 / 16).grows, "its chunks take as long as they are to"


def test_what_a_worker_could_not_bring_to_its_end_is_not_tried_in_that_size_again():
    pace = paced(1000, 0.0)
    pace.note_rest(5)
    assert pace.next(None) == 80
    pace.note_rest(50)
    assert pace.next(None) == 80


def test_results_are_published_at_once_where_a_call_takes_20_us():
    assert not Pace(2).is_worth_publishing
    assert not paced(1, 19e-6).is_worth_publishing
    assert paced(1, 20e-6).is_worth_publishing
    assert paced(1, 1e-3).is_worth_publishing


def test_a_size_that_was_given_stays_whatever_is_measured():
    fixed = FixedSize(7)
    assert (fixed.next(None), fixed.next(100), fixed.next(7), fixed.next(3)) == (7, 7, 7, 3)
    fixed.note(7, 100.0, 2**30)
    fixed.note_rest(1)
    assert (fixed.next(None), fixed.next(100)) == (7, 7)
    assert fixed.seconds is None
    assert not fixed.grows
    assert fixed.is_worth_publishing
    assert Pace(2).seconds is None
