"""What came of a chunk whose calls count each for itself, read in whatever parts its consumer asks for."""

from __future__ import annotations

import itertools
import pickle
import struct
from concurrent.futures import Future
from fractions import Fraction

import pytest

from pidfdpool import PayloadError, Policy, WorkerCrashed
from pidfdpool.executor import chunk_outcomes
from pidfdpool.executor.chunk_outcomes import ChunkOutcome, of_answer, of_future
from pidfdpool.executor.map_pieces import Kind, Piece, attempts_left
from pidfdpool.loop.chunk_calls import Chunk
from pidfdpool.serialization import payload
from pidfdpool.transport.published import Published
from pidfdpool.worker.chunk_publishing import FailedCall, Rebuilt, Unpublished
from tests import calls

SETS = {"plain": [10, "twenty", None, b"forty", (50,)], "with names": [10, Fraction(1, 2), None, Fraction(4), 50]}


def published(values):
    """Return the ends and the data of results, as a worker publishes them; of an exception, that it was raised."""
    ends, data = [], b""
    for value in values:
        if isinstance(value, BaseException):
            value = FailedCall(payload.dump_error(value))
        data += pickle.dumps(value, 5)
        ends.append(len(data))
    return ends, data


@pytest.mark.parametrize("values", SETS.values(), ids=SETS)
@pytest.mark.parametrize("last", ["published", "sent along", "rebuilt"])
def test_any_part_of_the_results_is_given_as_it_was(values, last):
    if last == "published":
        outcome = ChunkOutcome(*published(values))
    else:
        data = pickle.dumps(values[-1], 5)
        ending = Rebuilt(data) if last == "rebuilt" else Unpublished(data)
        outcome = ChunkOutcome(*published(values[:-1]), ending)
    assert (outcome.made, outcome.lost_at) == (len(values), None)
    for begin, end in itertools.combinations_with_replacement(range(len(values) + 1), 2):
        assert outcome.results(begin, end) == (values[begin:end], None)


def test_a_call_that_raised_ends_the_results_with_what_it_raised():
    values = [1, 2, LookupError("third"), 4]
    outcome = ChunkOutcome(*published(values), raised=[2])
    for begin, end in itertools.combinations_with_replacement(range(5), 2):
        came, error = outcome.results(begin, end)
        if begin <= 2 < end:
            assert (came, type(error), error.args) == (values[begin:2], LookupError, ("third",))
        else:
            assert (came, error) == (values[begin:end], None)
    assert type(outcome.error_of(2)) is LookupError
    assert outcome.error_of(1) is None


@pytest.mark.parametrize("last", ["published", "sent along", "rebuilt"])
def test_a_result_that_cannot_be_rebuilt_costs_no_other_anything(last):
    bad = calls.Unloadable()
    data = pickle.dumps(bad, 5)
    ending = {"published": None, "sent along": Unpublished(data), "rebuilt": Rebuilt(data)}[last]
    outcome = ChunkOutcome(*published([1, Fraction(2), bad] if ending is None else [1, Fraction(2)]), ending)
    assert outcome.results(0, 2) == ([1, 2], None)
    came, error = outcome.results(1, 3)
    assert came == [2]
    assert type(error) is PayloadError
    assert "does not unpickle" in str(error)


@pytest.mark.parametrize(
    "written", [b"", b"junk", b"\x80\x05K", b"K\x01K\x02"], ids=["nothing", "text", "cut", "end"]
)
def test_what_a_task_has_written_over_a_result_costs_no_other_result_anything(written):
    """Guards: the map ended with what pickle raises, and gave none of the results of the chunk."""
    (first, second, last), data = published([1, 2, 3])
    broken = data[:first] + written.ljust(second - first, b"\0") + data[second:]
    outcome = ChunkOutcome([first, second, last], broken)
    came, error = outcome.results(0, 3)
    assert came == [1]
    assert type(error) is PayloadError
    assert outcome.results(2, 3) == ([3], None)
    made, ending = outcome.outcomes(10, 0, 3)
    assert ending is None
    assert [(one.index, one.value) for one in made if one.error is None] == [(10, 1), (12, 3)]
    assert type(made[1].error) is PayloadError


def test_an_answer_tells_all_that_its_worker_knew():
    ends, data = published([1, 2])
    outcome = of_answer((struct.pack("@2I", *ends), data, Unpublished(pickle.dumps(3)), (1,), 0.5))
    assert (outcome.made, outcome.raised, outcome.seconds, outcome.lost) == (3, (1,), 0.5, None)
    assert outcome.results(0, 3) == ([1, 2, 3], None)


def lost(values, begun, count=5, task=7):
    """Return the future of a chunk whose worker has died, and the error."""
    error = WorkerCrashed("it died", task="abs", task_id=7, attempt=1)
    if values is not None:
        chunk = error.chunk = Chunk(abs, "abs", 0, [0] * count, starred=False)
        chunk.published = Published(task, begun, *published(values))
    future: Future = Future()
    future.set_exception(error)
    return future, error


def test_after_a_death_there_is_what_was_published_and_the_call_that_ran_is_lost():
    future, error = lost([1, KeyError("two"), 3], begun=4)
    outcome = of_future(future, 5)
    assert (outcome.made, outcome.lost, outcome.lost_at, outcome.seconds) == (4, error, 3, None)
    assert [*outcome.raised] == [1]
    assert outcome.results(2, 5) == ([3], error)
    assert outcome.results(2, 3) == ([3], None)
    assert outcome.error_of(3) is error


@pytest.mark.parametrize(
    ("done", "begun", "count", "costs"),
    [(0, 0, 5, False), (2, 2, 5, False), (5, 5, 5, False), (1, 1, 1, False), (0, 0, 1, True), (0, 1, 5, True)],
)
def test_a_death_between_two_calls_costs_none_of_them_anything(done, begun, count, costs):
    future, error = lost(list(range(done)), begun, count)
    outcome = of_future(future, count)
    assert outcome.lost is (error if costs else None)
    assert outcome.made == done + costs
    assert outcome.results(0, done) == (list(range(done)), None)


def test_of_a_death_that_left_nothing_to_read_all_calls_are_lost():
    future, error = lost(None, 0)
    outcome = of_future(future, 5)
    assert (outcome.made, outcome.lost, outcome.lost_at) == (5, error, None)
    assert outcome.results(0, 5) == ([], error)


def test_results_that_were_rebuilt_when_they_arrived_are_not_rebuilt_again():
    failure = payload.dump_error(LookupError("fourth"))
    assert chunk_outcomes.unpack_results((([1, 2],), None, 0.1)) == ([1, 2], None)
    came, error = chunk_outcomes.unpack_results((([1, 2],), failure, 0.1))
    assert (came, type(error)) == ([1, 2], LookupError)
    came, error = chunk_outcomes.unpack_results((payload.dumps([1, 2]), failure, 0.1))
    assert (came, type(error)) == ([1, 2], LookupError)


def test_of_results_in_one_pickle_those_before_the_bad_one_are_given():
    came, error = chunk_outcomes.unpack_results((payload.dumps([1, 2, calls.Unloadable(), 4]), None, 0.1))
    assert came == [1, 2]
    assert type(error) is PayloadError
    with pytest.raises(PayloadError):
        chunk_outcomes.unpack_results((payload.dumps(calls.Unloadable()), None, 0.1))


# ---- pieces ----------------------------------------------------------------------------------------------------


def piece(future, count=5):
    return Piece(Kind.EACH, future, 10, list(range(count)), 100, since=3.0)


def answered(values, raised=()):
    ends, data = published(values)
    future: Future = Future()
    future.set_result((struct.pack(f"@{len(ends)}I", *ends), data, None, raised, 0.1))
    return future


def test_a_piece_is_complete_only_if_each_call_has_a_result():
    policy, tries_again = Policy(2), Policy(2, retries=1, retry_on=ValueError)
    assert piece(answered([1, 2, 3, 4, 5])).is_complete(policy)
    assert not piece(answered([1, 2, 3, 4])).is_complete(policy)
    assert piece(answered([1, 2, ValueError(), 4, 5], raised=(2,))).is_complete(policy)
    assert not piece(answered([1, 2, ValueError(), 4, 5], raised=(2,))).is_complete(tries_again)
    assert not piece(lost([1, 2, 3, 4], begun=5)[0]).is_complete(policy)


def test_a_piece_gives_its_results_or_those_before_the_first_gap():
    it = piece(answered([0, 10, 20, 30, 40]))
    assert it.take() == ([0, 10, 20, 30, 40], None)
    assert it.gaps([]) == [(0, 5)]
    assert it.gaps([1, 3]) == [(0, 1), (2, 3), (4, 5)]
    assert it.gaps([0, 4]) == [(0, 0), (1, 4), (5, 5)]
    it.settled, it.taken = True, it.gaps([1, 3])
    assert it.take() == ([0, 20, 40], None)
    it.taken = it.gaps([1])[:1]
    assert it.take() == ([0], None)
    assert (it.rest.since, it.rest.attempts, it.rest.follows) == (3.0, 0, True)


@pytest.mark.parametrize(
    ("options", "again"),
    [
        ({}, []),
        ({"retries": 1}, [3]),
        ({"retries": 1, "retry_on": LookupError}, [1]),
        ({"retries": 1, "retry_on": (LookupError, WorkerCrashed)}, [1, 3]),
        ({"retries": 1, "retry_on": ZeroDivisionError}, []),
    ],
)
def test_another_attempt_has_what_the_rules_say(options, again):
    future, error = lost([1, KeyError("two"), 3], begun=4)
    error.deaths = ("a death",)
    found = attempts_left(of_future(future, 5), Policy(1, **options))
    assert sorted(found) == again
    for at, terms in found.items():
        assert (terms.attempts, terms.follows) == (1, True)
        assert terms.deaths == (("a death",) if at == 3 else ())
