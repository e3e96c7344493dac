"""The parts of scenarios that need no pool."""

from __future__ import annotations

import os
from itertools import count
from types import SimpleNamespace

import pytest

from benchmarks import tasks
from benchmarks.contender import UnsupportedError
from benchmarks.scenarios import bounds, cancelling, many
from benchmarks.scenarios.catalogue import GROUPS


def test_a_rate_is_that_of_the_results_that_came_in_time(monkeypatch):
    clock = count()  # a second between two looks
    monkeypatch.setattr(bounds, "time", SimpleNamespace(perf_counter=lambda: float(next(clock))))
    assert bounds.rate_of(count, longest=3.5) == pytest.approx(4 / 5)


def test_a_rate_of_an_input_that_ends_counts_all_of_it(monkeypatch):
    clock = count()
    monkeypatch.setattr(bounds, "time", SimpleNamespace(perf_counter=lambda: float(next(clock))))
    assert bounds.rate_of(lambda: range(3), longest=100.0) == pytest.approx(3 / 4)


def test_pids_are_read_one_by_one_though_they_come_together():
    reader, writer = os.pipe()
    os.write(writer, tasks.record_of(7) + tasks.record_of(7) + tasks.record_of(2**22) + tasks.record_of(8))
    assert many.told_by(reader, 3) == {7, 2**22, 8}
    os.close(reader)
    os.close(writer)


class Blocking:
    """A pool whose workers are up, and in which nothing is cancelled."""

    def __init__(self, most_pending):
        self.most_pending = most_pending

    def map(self, fn, items, chunksize):
        return range(len(items))

    def submit(self, fn, *args):
        return SimpleNamespace(result=None)


@pytest.mark.parametrize(("most", "reason"), [(1000, "submit blocks after 1000"), (10**9, "cannot be cancelled")])
def test_a_pool_that_cannot_have_so_many_or_cannot_cancel_is_not_asked_to(most, reason):
    with pytest.raises(UnsupportedError, match=reason):
        cancelling.waiting(200_000, lambda workers: Blocking(most), True)


def test_a_group_is_compared_with_one_that_goes_through_it():
    for group in GROUPS:
        assert group.baseline in group.contenders, group.name
