"""What comes of a chunk for the consumer, for the pace, and for the pool that is held; of outcomes, too."""

from __future__ import annotations

from concurrent.futures import CancelledError, Future
from types import SimpleNamespace

import pytest

from pidfdpool import InheritedFutureError, Outcome, Policy, PoolBroken, WorkerCrashed
from pidfdpool.executor.chunk_sizes import FixedSize, Pace
from pidfdpool.executor.map_chunks import Chunks
from pidfdpool.executor.map_entries import Entries
from pidfdpool.executor.map_pieces import Kind, Piece, UnsentCall
from pidfdpool.loop.chunk_calls import Chunk, Terms
from pidfdpool.serialization import payload
from pidfdpool.worker.chunk_publishing import FailedCall
from tests.executor.played_maps import LONG, TINY, Numbers, Played, adaptive, bounded
from tests.executor.test_map_chunks import Map, answer, die
from tests.map_calls import taken


def outcomes_of(ordered=True, kind=Kind.EACH, **options):
    """Return a map of numbers that gives outcomes, with a pool that is not broken."""
    it = Map(ordered=ordered, kind=kind, **options)
    it.chunks = Chunks(it.entries, outcomes=True)
    it.pool.machine = SimpleNamespace(broken=None)
    it.chunks.begin(it.submission, it.pace, it.pool)
    return it


def plain(taken):
    found, error = taken
    return [(each.index, each.value, None if each.error is None else type(each.error)) for each in found], error


# ---- outcomes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ordered", [True, False])
def test_a_chunk_gives_the_outcome_of_each_call(ordered):
    it = outcomes_of(ordered)
    failed = FailedCall(payload.dump_error(LookupError("second")))
    answer(it.submit(10, 3), [100, failed, 120], raised=(1,))
    it.settle()
    assert plain(it.take()) == ([(10, 100, None), (11, None, LookupError), (12, 120, None)], None)
    assert it.ranges() == []


def test_a_call_that_is_tried_again_alone_is_an_outcome_in_its_place():
    it = outcomes_of(retries=1)
    die(it.submit(10, 4), [100])
    it.settle()
    (_, again, _), (_, rest, _) = it.submission.sent[1:]
    assert plain(it.take()) == ([(10, 100, None)], None)
    again.future.set_result((None, 0.1))
    answer(rest, [120, 130])
    assert it.take() == ([Outcome(11, None)], None)
    assert plain(it.take()) == ([(12, 120, None), (13, 130, None)], None)


@pytest.mark.parametrize(
    "error", [LookupError("of the call"), WorkerCrashed("died", task="abs", task_id=1, attempt=2)]
)
def test_a_call_that_fails_alone_is_an_outcome_too(error):
    it = outcomes_of(kind=Kind.ALONE)
    piece = it.submit(10, 1)
    if type(error) is WorkerCrashed:
        error.message = error.task = "abs, item 10 of map"
        error.chunk = Chunk(abs, "abs", 10, [7], starred=False)
    piece.future.set_exception(error)
    assert it.take() == ([Outcome(10, None, error)], None)
    if type(error) is WorkerCrashed:
        assert error.task == "abs, item 10 of map: 7"


@pytest.mark.parametrize("error", [PoolBroken("broken"), InheritedFutureError("forked")])
@pytest.mark.parametrize("why", ["the pool is broken", "it has ended", "it is of the call's own pool"])
@pytest.mark.parametrize("ordered", [True, False])
def test_a_broken_pool_ends_the_map_and_one_of_the_calls_own_does_not(error, why, ordered):
    it = outcomes_of(ordered, kind=Kind.ALONE)
    piece = it.submit(10, 1)
    if why == "the pool is broken":
        it.pool.machine.broken = "it is"
    elif why == "it has ended":
        it.chunks.forget_pool()
    piece.future.set_exception(error)
    it.settle()
    if why == "it is of the call's own pool":
        assert it.take() == ([Outcome(10, None, error)], None)
        assert it.chunks.failure is None
    elif ordered:
        assert it.take() == ([], error)
    else:
        assert it.take() == ([], None), "it comes behind all outcomes that are there"
        assert it.chunks.failure is error


def test_the_first_of_the_errors_that_end_a_map_without_order_is_told():
    it = outcomes_of(ordered=False)
    it.chunks.failure = first = LookupError("first")
    it.entries.add([UnsentCall(PoolBroken("second"))])
    assert it.take() == ([], None)
    assert it.chunks.failure is first
    plain_results = Map(ordered=False)
    error = LookupError("at once")
    plain_results.entries.add([UnsentCall(error)])
    assert plain_results.take() == ([], error), "where results are wanted, the first error ends them"


def test_what_could_not_be_submitted_again_is_an_outcome_or_ends_the_map():
    it = outcomes_of()
    it.submission.refuses = None
    die(it.submit(0, 4), [0])
    it.submission.refuses = PoolBroken("broken")
    it.settle()
    assert plain(it.take())[0] == [(0, 0, None), (1, None, WorkerCrashed)]
    assert it.take() == ([], it.submission.refuses)
    told = outcomes_of()
    die(told.submit(0, 4), [0])
    told.submission.refuses, told.chunks.failure = PoolBroken("later"), LookupError("why")
    told.settle()
    told.take()
    assert told.take() == ([], told.chunks.failure), "why no more is submitted says more"


# ---- submitting ------------------------------------------------------------------------------------------------


class Publishing:
    """Notes whether results are to be published, and submits chunks that are done at once."""

    policy = Policy(2)

    def __init__(self, kind):
        self.kind, self.published, self.pieces = kind, [], []

    def submit(self, _way, first, calls, _terms=None, *, publishes=False):
        self.published.append(publishes)
        future: Future = Future()
        future.set_result(([], None, 0.1))
        self.pieces.append(Piece(self.kind, future, first, calls, 10))
        yield self.pieces[-1]


def chunks_of(submission, pace=None):
    made = Chunks(Entries(ordered=True), outcomes=False)
    made.begin(submission, pace or Pace(2), SimpleNamespace(hold=lambda _: None, let_go=lambda _: None))
    return made


def test_results_are_published_where_that_costs_little_unless_it_is_said():
    for pace, expected in ((Pace(2), False), (FixedSize(3), True)):
        submission = Publishing(Kind.TOGETHER)
        chunks = chunks_of(submission, pace)
        list(chunks.submit("way", 0, [1], print))
        list(chunks.submit("way", 0, [1], print, publishes=False))
        list(chunks.submit("way", 0, [1], print, publishes=True))
        assert submission.published == [expected, False, True]


@pytest.mark.parametrize(
    ("kind", "listens", "told"),
    [
        (Kind.TOGETHER, True, True),
        (Kind.TOGETHER, False, False),
        (Kind.ALONE, True, True),
        (Kind.ALONE, False, False),
        (Kind.EACH, True, True),
        (Kind.EACH, False, True),
    ],
)
def test_the_end_of_a_chunk_is_told_once_it_was_entered(kind, listens, told):
    seen, chunks = [], chunks_of(Publishing(kind))
    entries = chunks.submit("way", 0, [1], lambda _: seen.append("told"), listens=listens)
    assert next(entries).kind is kind
    seen.append("entered")
    assert next(entries, None) is None
    assert seen == (["entered", "told"] if told else ["entered"])


# ---- the pace --------------------------------------------------------------------------------------------------


class Noting:
    def __init__(self):
        self.noted, self.rests, self.is_worth_publishing = [], [], True

    def note(self, *what):
        self.noted.append(what)

    def note_rest(self, size):
        self.rests.append(size)


def noting(kind=Kind.EACH, **options):
    it = Map(kind=kind, **options)
    it.pace = Noting()
    it.chunks.begin(it.submission, it.pace, it.pool)
    return it


def test_a_whole_chunk_is_measured_once_whoever_notes_it():
    it = noting(Kind.TOGETHER)
    piece = it.submit(0, 4)
    piece.future.set_result(([0, 10, 20, 30], None, 0.4))
    it.chunks.note(piece)
    it.chunks.note(piece)
    it.settle()
    assert it.pace.noted == [(4, 0.4, 100)]
    assert (it.chunks.running, it.chunks.count_running()) == ({}, 0)
    failed = noting(Kind.TOGETHER)
    failed.submit(0, 4).future.set_exception(LookupError())
    failed.settle()
    assert failed.pace.noted == []


@pytest.mark.parametrize(
    ("made", "noted"), [(5, [(5, 0.5, 50)]), (1, [(1, 0.5, 10)]), (0, []), (10, [(10, 0.5, 100)])]
)
def test_of_a_chunk_that_ended_early_what_was_made_is_measured_with_its_share_of_the_arguments(made, noted):
    it = noting()
    answer(it.submit(0, 10), list(range(made)), seconds=0.5)
    it.settle()
    assert it.pace.noted == noted


def test_after_a_death_nothing_is_measured_and_what_is_left_stays_together():
    it = noting()
    die(it.submit(0, 20), [0, 10])
    it.settle()
    assert (it.pace.noted, it.pace.rests) == ([], [])
    assert it.ranges() == [(3, list(range(3, 20)))]


@pytest.mark.parametrize(("made", "size"), [(0, 1), (1, 2), (3, 6), (12, 8), (19, 1)])
def test_what_is_left_of_a_chunk_that_ended_early_is_made_in_chunks_of_twice_what_was_made(made, size):
    it = noting()
    answer(it.submit(0, 20), list(range(made)), seconds=0.5)
    it.settle()
    assert it.pace.rests == [size]
    left = list(range(made, 20))
    assert it.ranges() == [(left[at], left[at : at + size]) for at in range(0, len(left), size)]
    assert [(terms.follows, terms.attempts, terms.since) for _, _, terms in it.submission.sent[1:]] == [
        (True, 0, 2.0)
    ] * len(it.ranges())


# ---- what follows ----------------------------------------------------------------------------------------------


def test_results_between_calls_that_are_made_again_stay_in_their_places():
    failed = FailedCall(payload.dump_error(LookupError("once")))
    it = Map(retries=1, retry_on=LookupError)
    answer(it.submit(0, 6), [0, failed, failed, 30, failed], raised=(1, 2, 4))
    it.settle()
    sent = {piece.first: piece for _, piece, _ in it.submission.sent[1:]}
    assert sorted(sent) == [1, 2, 4, 5]
    for first in (1, 2, 4):
        sent[first].future.set_result((10 * first, 0.1))
    answer(sent[5], [50])
    came = []
    while not it.entries.are_claimed:
        results, error = it.take()
        came.append(results)
        assert error is None
    assert came == [[0], [10], [20], [30], [40], [50]]


def test_who_has_left_has_nothing_made_again_and_nothing_to_take():
    for why in ("is_left", "is_cancelled"):
        failed = FailedCall(payload.dump_error(LookupError("once")))
        it = Map(retries=1, retry_on=LookupError)
        piece = it.submit(0, 4)
        setattr(it.chunks, why, True)
        answer(piece, [0, failed], raised=(1,))
        it.settle()
        assert it.ranges() == []
        results, error = it.take()
        assert (results, type(error)) == ([0], LookupError)
        assert it.entries.are_claimed is (why == "is_left")
        assert it.pool.held == 0


def test_the_pool_stays_while_a_chunk_is_to_be_settled_or_may_leave_something():
    it = Map()
    first, second = it.submit(0, 2), it.submit(2, 2)
    assert it.pool.held == 1
    answer(first, [0, 10])
    assert len(it.chunks.ended) == 1
    it.chunks.let_go_if_over()
    assert it.pool.held == 1, "it is not settled yet"
    it.settle()
    assert it.pool.held == 1, "another runs"
    answer(second, [20, 30])
    it.settle()
    assert it.pool.held == 0
    it.chunks.let_go()
    assert it.pool.held == 0
    it.chunks.hold()
    it.chunks.forget_pool()
    it.chunks.let_go()
    assert it.pool.held == 1, "it is not ours any more"


def test_a_chunk_whose_settling_fails_is_settled_all_the_same():
    it = Map(ordered=False)
    piece = it.submit(0, 2)
    piece.future.set_result("nonsense")
    with pytest.raises(Exception):  # noqa: B017, PT011  whatever it is
        it.settle()
    assert piece.settled
    assert piece.calls == ()
    assert it.entries.is_first_done, "the consumer is told"


def test_a_chunk_is_settled_before_its_consumer_is_told():
    it, seen = Map(ordered=False), []
    piece = it.submit(0, 4)
    it.entries.told = lambda: seen.append((piece.settled, piece.taken, piece.calls))
    die(piece, [0])
    it.settle()
    assert seen == [(True, [(0, 2)], ())]


def test_withdrawing_chunks_whose_end_is_acted_on_at_once_withdraws_all():
    it = Map()

    def ended(future):
        it.ended(future)
        it.settle()

    for first in range(0, 9, 3):
        list(it.chunks.submit("executor", first, [1, 2, 3], ended))
    it.chunks.cancel()
    assert [piece.future.cancelled() for _, piece, _ in it.submission.sent] == [True] * 3
    assert (it.chunks.running, it.pool.held) == ({}, 0)


def test_a_chunk_that_was_settled_is_not_settled_again():
    it = Map()
    piece = it.submit(0, 4)
    die(piece, [0])
    it.settle()
    before = len(it.submission.sent)
    it.chunks.ended.append(piece)
    it.settle()
    assert len(it.submission.sent) == before


# ---- whole maps ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("kind", [adaptive, bounded])
@pytest.mark.parametrize("outcomes", [True, False])
def test_a_cancelled_pool_ends_a_map_behind_what_its_chunks_have(ordered, kind, outcomes):
    played = Played(timeout=5.0)
    how = {"ordered": ordered, "return_exceptions": outcomes}
    made = adaptive(played, range(200), **how) if kind is adaptive else bounded(played, 200, Numbers(), **how)
    played.answer(TINY, 4)
    chunk = played.tasks[4]
    made.stop_submitting(CancelledError())
    chunk.die(chunk.calls[:2])
    for task in played.unanswered():
        task.future.cancel()
    came, error = taken(made.results(None))
    assert isinstance(error, (CancelledError, WorkerCrashed))
    assert len(came) >= 4
    assert not [task for task in played.tasks if task.through == "pool"]


@pytest.mark.parametrize("kind", [adaptive, bounded])
def test_a_death_in_a_map_of_outcomes_costs_one_call(kind):
    played = Played()
    how = {"return_exceptions": True}
    made = adaptive(played, range(30), **how) if kind is adaptive else bounded(played, 30, range(30), **how)
    played.answer(LONG, 4)
    chunk = next(task for task in played.unanswered() if len(task.calls) > 1) if kind is adaptive else None
    if chunk is None:
        played.tasks[4].die()
        lost = 4
    else:
        chunk.die(chunk.calls[:1])
        lost = chunk.calls[1]
    played.answer(LONG)
    found = list(made.results(None))
    assert [each.index for each in found] == list(range(30))
    assert [each.index for each in found if not each.ok] == [lost]
    assert type(found[lost].error) is WorkerCrashed


def test_terms_of_calls_that_never_began_go_on_with_their_deadline():
    piece = Piece(Kind.EACH, Future(), 0, [1], 10, since=7.0)
    assert piece.rest == Terms(7.0, follows=True)
