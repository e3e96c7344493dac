"""What becomes of the maps of an executor that have calls to submit, when it ends or is copied by a fork."""

from __future__ import annotations

import gc
from concurrent.futures import CancelledError

import pytest

from pidfdpool.executor.open_maps import OpenMaps


class Map:
    """Notes what it is told."""

    def __init__(self, *, finishes=True, error=None):
        self.told, self.finishes, self.error = [], finishes, error

    def submit_rest(self, *, wait=True):
        self.told.append(("rest", wait))
        if self.error is not None:
            raise self.error
        return self.finishes

    def stop_submitting(self, failure):
        self.told.append(("stop", type(failure)))

    def forget_in_forked_child(self):
        self.told.append(("forget",))


class Stream(Map):
    def stop_reading_here(self):
        self.told.append(("no reader",))


def registered(*maps):
    found = OpenMaps()
    for each in maps:
        found.add(each)
    return found


@pytest.mark.parametrize(("cancel", "told"), [(False, ("rest", True)), (True, ("stop", CancelledError))])
def test_at_the_end_each_map_submits_its_rest_or_is_told_of_the_cancellation(cancel, told):
    maps = Map(), Map(), Map()
    registered(*maps).finish(cancel=cancel)
    assert [each.told for each in maps] == [[told]] * 3


def test_a_map_that_nobody_holds_is_not_kept():
    found, kept = registered(Map()), Map()
    found.add(kept)
    gc.collect()
    assert list(found) == [kept]


def test_maps_may_come_and_go_while_all_are_looked_at():
    class Growing(Map):
        def submit_rest(self, *, wait=True):
            others.append(Map())
            found.add(others[-1])
            return super().submit_rest(wait=wait)

    others: list = []
    first = Growing()
    found = registered(first)
    found.finish(cancel=False)
    assert first.told == [("rest", True)]
    assert len(list(found)) == 2


def test_without_waiting_it_is_told_whether_all_could_submit():
    assert OpenMaps().submit_without_waiting()
    first, second = Map(), Map()
    assert registered(first, second).submit_without_waiting()
    assert first.told == second.told == [("rest", False)]
    for maps in ([Map(), Map(finishes=False), Map()], [Map(finishes=False)]):
        assert registered(*maps).submit_without_waiting() is False
        assert all(each.told == [("rest", False)] for each in maps), "one that is busy keeps no other from it"


@pytest.mark.parametrize("error", [ValueError("a call"), KeyboardInterrupt("a call"), SystemExit(3)])
def test_what_pickling_a_call_raises_concerns_only_its_map(error):
    maps = Map(), Map(error=error), Map()
    assert registered(*maps).submit_without_waiting()
    assert all(each.told == [("rest", False)] for each in maps)


def test_only_streams_have_a_reader_to_be_stopped():
    plain, stream = Map(), Stream()
    registered(plain, stream).stop_reading_here()
    assert (plain.told, stream.told) == ([], [("no reader",)])


def test_a_forked_child_stops_its_copies_and_forgets_them():
    maps = Map(), Map()
    found = registered(*maps)
    found.forget_in_forked_child()
    assert [each.told for each in maps] == [[("forget",)]] * 2
    assert list(found) == []
