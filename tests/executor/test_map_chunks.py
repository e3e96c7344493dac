"""What is left of a chunk that has not come to its end: who makes it, under which terms, how long the pool stays.

The chunks belong to nobody: the test says what became of each.
"""

from __future__ import annotations

import pickle
import struct
from concurrent.futures import CancelledError, Future

import pytest

from pidfdpool import Policy, WorkerCrashed
from pidfdpool.executor.chunk_sizes import Pace
from pidfdpool.executor.map_chunks import Chunks
from pidfdpool.executor.map_entries import Entries
from pidfdpool.executor.map_pieces import Given, Kind, Piece, UnsentCall
from pidfdpool.loop.chunk_calls import Chunk
from pidfdpool.transport.published import Published


class Pool:
    def __init__(self):
        self.held = 0

    def hold(self, _chunks):
        self.held += 1

    def let_go(self, _chunks):
        self.held -= 1


class Submission:
    """Takes chunks, and notes by which way and under which terms."""

    def __init__(self, policy, kind=Kind.EACH):
        self.policy, self.kind, self.sent, self.refuses = policy, kind, [], None

    def submit(self, way, first, calls, terms=None, *, publishes=False):
        if self.refuses is not None:
            raise self.refuses
        kind = Kind.ALONE if terms is not None and terms.attempts else self.kind
        piece = Piece(kind, Future(), first, calls, 100, since=2.0)
        self.sent.append((way, piece, terms))
        yield piece


class Map:
    """A map of numbers: its chunks, and what the consumer would do."""

    def __init__(self, *, ordered=True, kind=Kind.EACH, **options):
        self.pool = Pool()
        self.entries = Entries(ordered=ordered)
        self.chunks = Chunks(self.entries, outcomes=False)
        self.submission = Submission(Policy(2, **options), kind)
        self.pace = Pace(2)
        self.chunks.begin(self.submission, self.pace, self.pool)

    def submit(self, first, count):
        for entry in self.chunks.submit("executor", first, list(range(first, first + count)), self.ended):
            self.entries.add([entry])
        return self.submission.sent[-1][1]

    def ended(self, future):
        piece = self.chunks.running.get(future)
        if piece is not None:
            self.chunks.ended.append(piece)

    def settle(self):
        self.chunks.settle_ended(self.ended)
        self.chunks.let_go_if_over()

    def take(self):
        return self.chunks.take(self.entries.claim(0.0), self.settle)

    def ranges(self, since=1):
        return [(piece.first, piece.calls) for _, piece, _ in self.submission.sent[since:]]


def packed(values):
    ends, data = [], b""
    for value in values:
        data += pickle.dumps(value, 5)
        ends.append(len(data))
    return ends, data


def answer(piece, values, raised=(), seconds=0.1):
    ends, data = packed(values)
    piece.future.set_result((struct.pack(f"@{len(ends)}I", *ends), data, None, raised, seconds))


def die(piece, values, begun=None, deaths=("a death",)):
    """Have the worker die in the call behind these results, or when so many had begun."""
    error = WorkerCrashed("it died", task="abs", task_id=1, attempt=1)
    error.deaths = deaths
    chunk = error.chunk = Chunk(abs, "abs", piece.first, piece.calls, starred=False)
    chunk.published = Published(1, len(values) + 1 if begun is None else begun, *packed(values))
    piece.future.set_exception(error)
    return error


def test_a_chunk_that_has_come_to_its_end_leaves_nothing():
    it = Map()
    answer(it.submit(0, 3), [0, 10, 20])
    assert it.pool.held == 1
    it.settle()
    assert it.pool.held == 0
    assert it.take() == ([0, 10, 20], None)
    assert it.ranges() == []
    assert it.pace.seconds == pytest.approx(0.1 / 3)
    assert not it.chunks.running


def test_the_consumer_takes_a_whole_chunk_without_anybody_settling_it():
    it = Map()
    piece = it.submit(0, 3)
    answer(piece, [0, 10, 20])
    it.chunks.ended.clear()
    assert it.take() == ([0, 10, 20], None)
    assert not piece.settled


def test_a_death_costs_the_call_that_ran_and_the_others_are_made_by_the_pool():
    it = Map()
    error = die(it.submit(0, 6), [0, 10])
    it.settle()
    assert it.ranges() == [(3, [3, 4, 5])]
    way, piece, terms = it.submission.sent[-1]
    assert way is it.pool, "the executor may be shut down by now"
    assert (terms.follows, terms.attempts, terms.since) == (True, 0, 2.0)
    assert it.pool.held == 1, "it waits for them"
    assert it.take() == ([0, 10], error)
    answer(piece, [30, 40, 50])
    assert it.take() == ([30, 40, 50], None)
    it.settle()
    assert it.pool.held == 0


def test_a_call_that_may_be_tried_again_is_and_what_comes_behind_it_waits_for_it():
    it = Map(retries=1)
    die(it.submit(10, 5), [100, 110])
    it.settle()
    assert it.ranges() == [(12, [12]), (13, [13, 14])]
    (_, again, terms), (_, rest, others) = it.submission.sent[1:]
    assert (terms.attempts, terms.deaths, terms.follows) == (1, ("a death",), True)
    assert (others.attempts, others.deaths) == (0, ())
    assert it.take() == ([100, 110], None)
    again.future.set_result((120, 0.1))
    answer(rest, [130, 140])
    assert it.take() == ([120], None)
    assert it.take() == ([130, 140], None)
    assert it.entries.are_claimed


def test_calls_that_raised_are_tried_again_each_by_itself_and_the_results_between_them_are_kept():
    from pidfdpool.serialization import payload
    from pidfdpool.worker.chunk_publishing import FailedCall

    failed = FailedCall(payload.dump_error(LookupError("once")))
    it = Map(retries=1, retry_on=LookupError)
    answer(it.submit(0, 5), [failed, 10, failed, 30, 40], raised=(0, 2))
    it.settle()
    assert it.ranges() == [(0, [0]), (2, [2])]
    for _, piece, _ in it.submission.sent[1:]:
        piece.future.set_result((piece.first * 10, 0.1))
    came = []
    while not it.entries.are_claimed:
        results, error = it.take()
        assert error is None
        came += results
    assert came == [0, 10, 20, 30, 40]


@pytest.mark.parametrize("begun", [0, 1])
def test_who_died_before_any_result_costs_one_call_at_most_and_the_others_are_made_one_by_one(begun):
    it = Map()
    error = die(it.submit(0, 4), [], begun)
    it.settle()
    if begun:
        assert it.ranges() == [(1, [1, 2, 3])]
        assert it.take() == ([], error)
    else:
        assert it.ranges() == [(0, [0]), (1, [1]), (2, [2]), (3, [3])], "the next may die of the same"
        assert it.take() == ([], None)


def test_a_worker_that_ends_a_chunk_early_is_not_given_chunks_of_that_size_again():
    it = Map()
    piece = it.submit(0, 20)
    answer(piece, [0, 10, 20], seconds=0.0)
    it.settle()
    assert it.ranges() == [(3, [3, 4, 5, 6, 7, 8]), (9, [9, 10, 11, 12, 13, 14]), (15, [15, 16, 17, 18, 19])]
    assert it.pace.next(None) <= 6 * 16
    assert it.take() == ([0, 10, 20], None)


def test_where_results_are_taken_as_they_come_so_is_what_follows():
    it = Map(ordered=False, retries=1)
    die(it.submit(0, 4), [0])
    assert not it.entries.is_first_done
    it.settle()
    assert it.take() == ([0], None)
    (_, again, _), (_, rest, _) = it.submission.sent[1:]
    answer(rest, [20, 30])
    it.settle()
    assert it.take() == ([20, 30], None)
    again.future.set_result((10, 0.1))
    it.settle()
    assert it.take() == ([10], None)
    assert it.entries.are_claimed
    assert it.pool.held == 0


@pytest.mark.parametrize("why", ["left", "cancelled", "forgotten", "refused"])
def test_where_nothing_may_follow_nothing_does_and_who_waits_is_told(why):
    it = Map(retries=1 if why == "left" else 0)
    piece, refusal = it.submit(0, 4), LookupError("refused")
    if why == "left":
        it.chunks.is_left = True
    elif why == "cancelled":
        it.chunks.is_cancelled = True
    elif why == "forgotten":
        it.chunks.forget_pool()
    else:
        it.submission.refuses = refusal
    die(piece, [0])
    it.settle()
    assert it.ranges() == []
    assert it.pool.held == (1 if why == "forgotten" else 0)
    assert it.take()[0] == [0]
    if why == "left":
        assert it.entries.are_claimed
    else:
        assert type(it.take()[1]) is (LookupError if why == "refused" else CancelledError)


def test_a_chunk_that_was_cancelled_leaves_nothing_and_is_over():
    it = Map()
    piece = it.submit(0, 4)
    piece.future.cancel()
    it.settle()
    assert (it.ranges(), it.pool.held, piece.settled) == ([], 0, True)
    with pytest.raises(CancelledError):
        it.take()


def test_of_chunks_from_which_nothing_follows_the_pool_need_not_wait():
    it = Map(kind=Kind.TOGETHER)
    piece = it.submit(0, 3)
    assert it.pool.held == 0
    it.chunks.hold()
    it.chunks.hold()
    assert it.pool.held == 1
    it.chunks.let_go_if_over()
    it.chunks.let_go_if_over()
    assert it.pool.held == 0
    assert it.chunks.count_running() == 1
    piece.future.set_result(([0, 10, 20], None, 0.3))
    assert it.chunks.count_running() == 0, "though nobody has settled it"
    it.settle()
    assert it.pace.seconds == pytest.approx(0.1)


def test_what_takes_the_place_of_a_chunk_gives_what_it_has():
    error = LookupError("not sent")
    assert UnsentCall(error).take() == ([], error)
    future: Future = Future()
    piece = Piece(Kind.EACH, future, 0, [0, 1, 2], 10)
    answer(piece, [0, 10, 20])
    assert Given(piece.outcome, 1, 3, 0).take() == ([10, 20], None)


def test_leaving_cancels_what_no_worker_has_begun():
    it = Map()
    first, second = it.submit(0, 2), it.submit(2, 2)
    first.future.set_running_or_notify_cancel()
    it.chunks.cancel()
    assert (first.future.cancelled(), second.future.cancelled()) == (False, True)
