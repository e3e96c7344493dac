"""The outcomes of the calls of one chunk, in whatever parts they are asked for, and what ends a map of outcomes."""

from __future__ import annotations

import copy
import itertools
import pickle
import weakref
from concurrent.futures import CancelledError, Future
from fractions import Fraction

import pytest

from pidfdpool import (
    DeadlineExceeded,
    InheritedFutureError,
    Outcome,
    PayloadError,
    PoolBroken,
    TaskTimeout,
    WorkerCrashed,
)
from pidfdpool.executor import chunk_outcomes, outcome
from pidfdpool.executor.chunk_outcomes import ChunkOutcome, copy_of, ends_map, of_future
from pidfdpool.executor.map_pieces import Given, Kind, Piece, UnsentCall, next_results
from pidfdpool.loop.chunk_calls import Chunk
from pidfdpool.serialization import payload
from pidfdpool.transport.published import Published
from pidfdpool.worker.chunk_publishing import Rebuilt, Unpublished
from tests import calls
from tests.executor.played_maps import packed

SETS = {"plain": [10, "twenty", None, b"forty"], "with names": [10, Fraction(1, 2), None, Fraction(4)]}
FIRST = 100  # the index in the map of the chunk's first call


def plain(found):
    return [(each.index, each.value, None if each.error is None else type(each.error)) for each in found]


def ends_of(count):
    return list(itertools.combinations_with_replacement(range(count + 1), 2))


def crash():
    return WorkerCrashed("it died in abs, items 0 to 4 of map", task="abs", task_id=7, attempt=1)


# ---- what was published ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("values", SETS.values(), ids=SETS)
@pytest.mark.parametrize("last", ["published", "sent along", "rebuilt"])
def test_any_part_of_the_outcomes_has_its_indexes_and_values(values, last):
    if last == "published":
        made = ChunkOutcome(*packed(values))
    else:
        data = pickle.dumps(values[-1], 5)
        made = ChunkOutcome(*packed(values[:-1]), Rebuilt(data) if last == "rebuilt" else Unpublished(data))
    for begin, end in ends_of(len(values)):
        found, error = made.outcomes(FIRST, begin, end)
        assert found == [Outcome(FIRST + at, values[at], None) for at in range(begin, end)]
        assert error is None


def test_a_call_that_raised_has_its_error_and_the_others_their_values():
    made = ChunkOutcome(*packed([1, LookupError("second"), 3, Fraction(4)]), raised=[1])
    expected = [(100, 1, None), (101, None, LookupError), (102, 3, None), (103, 4, None)]
    for begin, end in ends_of(4):
        found, error = made.outcomes(FIRST, begin, end)
        assert plain(found) == expected[begin:end]
        assert error is None
    assert made.outcomes(FIRST, 1, 2)[0][0].error.args == ("second",)


@pytest.mark.parametrize("values", SETS.values(), ids=SETS)
@pytest.mark.parametrize("how", ["sent along", "rebuilt"])
def test_a_last_result_that_cannot_be_rebuilt_is_the_error_of_its_call(values, how):
    data = pickle.dumps(calls.Unloadable(), 5)
    made = ChunkOutcome(*packed(values), Unpublished(data) if how == "sent along" else Rebuilt(data))
    found, error = made.outcomes(FIRST, 0, 5)
    assert error is None
    assert found[:4] == [Outcome(FIRST + at, value) for at, value in enumerate(values)]
    assert plain(found[4:]) == [(104, None, PayloadError)]
    assert made.outcomes(FIRST, 0, 4)[0] == found[:4]


def test_a_falsy_value_is_a_value():
    for value in (0, None, "", []):
        made = ChunkOutcome(*packed([Fraction(1)]), Unpublished(pickle.dumps(value, 5)))
        assert made.outcomes(FIRST, 0, 2)[0] == [Outcome(100, 1), Outcome(101, value)]


# ---- calls that were lost --------------------------------------------------------------------------------------


def test_a_death_costs_the_call_that_ran_and_leaves_the_others_out():
    error = crash()
    made = ChunkOutcome(*packed([1, 2]), lost=error)
    assert (made.made, made.lost_at) == (3, 2)
    for begin, end in ends_of(3):
        found, ends = made.outcomes(FIRST, begin, end)
        assert plain(found) == [(100, 1, None), (101, 2, None), (102, None, WorkerCrashed)][begin:end]
        assert ends is None
    assert made.outcomes(FIRST, 0, 3)[0][2].error is error


def test_a_chunk_that_is_lost_as_a_whole_has_an_error_of_its_own_for_each_call():
    error = crash()
    made = ChunkOutcome((), b"", lost=error, made=3)
    assert (made.made, made.lost_at) == (3, None)
    found, ends = made.outcomes(FIRST, 0, 3)
    assert (plain(found), ends) == ([(100 + at, None, WorkerCrashed) for at in range(3)], None)
    assert found[0].error is error
    assert len({id(each.error) for each in found}) == 3
    assert all(each.error.args == error.args for each in found)
    assert [each.index for each in made.outcomes(FIRST, 1, 3)[0]] == [101, 102]


def test_calls_that_are_too_late_are_each_named():
    error = DeadlineExceeded("abs, item 100 of map, was not given to a worker: item 100 of map")
    found, _ = ChunkOutcome((), b"", lost=error, made=3).outcomes(FIRST, 0, 3)
    assert [str(each.error) for each in found] == [
        f"abs, item {100 + at} of map, was not given to a worker: item 100 of map" for at in range(3)
    ]
    assert all(type(each.error) is DeadlineExceeded for each in found)


@pytest.mark.parametrize("error", [PoolBroken("broken"), InheritedFutureError("forked")])
def test_what_prevents_all_further_calls_ends_the_map_behind_the_outcomes(error):
    made = ChunkOutcome(*packed([1]), lost=error)
    assert made.outcomes(FIRST, 0, 2) == ([Outcome(100, 1)], error)
    assert made.outcomes(FIRST, 0, 1) == ([Outcome(100, 1)], None)
    assert ends_map(error)
    assert not ends_map(CancelledError())
    assert not ends_map(crash())


def test_the_error_of_a_death_names_the_call_with_its_arguments():
    error = WorkerCrashed("it died in abs, item 101 of map", task="abs, item 101 of map", task_id=7, attempt=1)
    chunk = error.chunk = Chunk(abs, "abs", FIRST, [-10, -20], starred=False)
    chunk.published = Published(7, 2, *packed([10]))
    chunk._known = 1, 2
    made = ChunkOutcome(*packed([10]), lost=error)
    (found,) = made.outcomes(FIRST, 1, 2)[0]
    assert found.error.task == "abs, item 101 of map: -20"


@pytest.mark.parametrize("kind", ["plain", "refuses", "another"])
def test_a_copy_of_an_error_has_its_cause_and_an_error_without_a_copy_is_shared(kind):
    class Refuses(Exception):
        def __reduce_ex__(self, protocol):
            raise TypeError("no copy")

    class Another(Exception):
        def __copy__(self):
            return "another"

    error = {"plain": TaskTimeout, "refuses": Refuses, "another": Another}[kind]
    error = error() if kind != "plain" else error("too long", task="abs", task_id=1, attempt=1)
    error.__cause__ = cause = LookupError("why")
    copied = copy_of(error)
    assert copied.__cause__ is cause
    assert (copied is error) is (kind != "plain")
    assert type(copied) is type(error)


# ---- what a future of a chunk tells ----------------------------------------------------------------------------


def failed(error):
    future: Future = Future()
    future.set_exception(error)
    return future


def test_an_error_that_names_no_chunk_of_the_pools_loses_all_calls():
    for error in (LookupError("of the function"), crash()):
        if type(error) is WorkerCrashed:
            error.chunk = "no chunk"
        found = of_future(failed(error), 4)
        assert (found.made, found.lost, found.lost_at, list(found.raised)) == (4, error, None, [])


def test_results_up_to_one_that_cannot_be_rebuilt_come_where_the_others_can():
    values = [1, calls.Unloadable(), 3]
    results, error = chunk_outcomes.unpack_results((payload.dumps(values), None, 0.1))
    assert results == [1]
    assert type(error) is PayloadError
    assert "does not unpickle" in str(error)
    assert chunk_outcomes.unpack_results((payload.dumps([1, 2]), None, 0.1)) == ([1, 2], None)
    assert chunk_outcomes.unpack_results((([1, 2],), None, 0.1)) == ([1, 2], None)
    failure = payload.dump_error(LookupError("third"))
    for results in (([1, 2],), payload.dumps([1, 2])):
        made, error = chunk_outcomes.unpack_results((results, failure, 0.1))
        assert (made, type(error), error.args) == ([1, 2], LookupError, ("third",))


# ---- what a map takes in turn ----------------------------------------------------------------------------------


def test_what_was_not_sent_is_the_outcome_of_its_call_or_ends_the_map():
    error = LookupError("not sent")
    assert UnsentCall(error, 7).take_outcomes() == ([Outcome(7, None, error)], None)
    assert UnsentCall(error, 0).take_outcomes() == ([Outcome(0, None, error)], None)
    assert UnsentCall(error).take_outcomes() == ([], error)
    assert UnsentCall(error, 7).take() == ([], error)
    assert UnsentCall.future is Given.future is None


def test_a_part_of_a_chunk_gives_the_outcomes_of_its_calls():
    made = ChunkOutcome(*packed([0, 10, 20]))
    assert Given(made, 1, 3, FIRST).take_outcomes() == ([Outcome(101, 10), Outcome(102, 20)], None)
    piece = Piece(Kind.EACH, Future(), FIRST, [0, 1, 2, 3], 10)
    piece._outcome = made
    assert piece.take_outcomes()[0] == [Outcome(FIRST + at, 10 * at) for at in range(3)]
    piece.settled, piece.taken = True, [(0, 1), (2, 3)]
    assert [each.index for each in piece.take_outcomes()[0]] == [100, 102]


class Pieces:
    """A map of the one entry that it is given."""

    def __init__(self, entry, error=None):
        self.entry, self.error = entry, error

    def next_entry(self, deadline=None):
        return self.entry

    def take(self, entry):
        if self.error is not None:
            del entry  # its traceback holds this frame
            raise self.error
        return [entry], None


def test_the_next_results_are_waited_for_and_what_cannot_be_had_is_cancelled():
    assert next_results(Pieces(None), None) is None
    unsent = UnsentCall(LookupError())
    assert next_results(Pieces(unsent), 0.0) == ([unsent], None)
    done: Future = Future()
    done.set_result(None)
    piece = Piece(Kind.EACH, done, 0, [0], 10)
    assert next_results(Pieces(piece), 0.0) == ([piece], None), "it is there, and the time does not matter"
    late: Future = Future()
    with pytest.raises(TimeoutError):
        next_results(Pieces(Piece(Kind.EACH, late, 0, [0], 10)), 0.0)
    assert late.cancelled()
    assert done.result() is None


def test_an_error_of_what_is_taken_holds_no_future():
    future: Future = Future()
    future.set_result(None)
    gone = weakref.ref(future)
    pieces = Pieces(Piece(Kind.EACH, future, 0, [0], 10), LookupError())
    del future
    with pytest.raises(LookupError) as raised:
        next_results(pieces, None)
    pieces.entry = None
    assert raised.value is not None
    assert gone() is None


# ---- the outcome itself ----------------------------------------------------------------------------------------


def test_an_outcome_is_what_it_was_made_of():
    error = LookupError()
    for made in (Outcome(3, None, error), outcome.from_tuple((3, None, error))):
        assert type(made) is Outcome
        assert (made.index, made.value, made.error, made.ok) == (3, None, error, False)
        with pytest.raises(LookupError) as raised:
            made.result()
        assert raised.value is error
    for made in (Outcome(3, "value"), outcome.from_tuple((3, "value", None))):
        assert (made.index, made.value, made.error, made.ok, made.result()) == (3, "value", None, True, "value")
    assert copy.copy(made) == made
    assert Outcome(3) == (3, None, None)
    assert Outcome(3).ok
