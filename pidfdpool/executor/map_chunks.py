"""The chunks of one map that are under way, and what is left of one that has not come to its end.

`AdaptiveMap` and `BoundedMap` have one `Chunks` each, and decide when a chunk is submitted, and of which calls.

Where the calls of a chunk count each for itself (`Kind.EACH`), the worker publishes each result at once
(`worker.chunk_publishing`). Then the death of a worker costs one call. The calls behind it have not begun, and are
submitted again, as are those of a chunk that a worker has ended early, and a call that is to have another attempt.
All this goes on when the executor is shut down, which has accepted these calls: the pool is held until then.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import CancelledError
from itertools import pairwise
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from pidfdpool.executor import chunk_outcomes
from pidfdpool.executor.chunk_outcomes import unpack_results
from pidfdpool.executor.map_pieces import Given, Kind, Piece, UnsentCall, attempts_left
from pidfdpool.loop import chunk_calls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future

    from pidfdpool.executor.chunk_sizes import FixedSize, Pace
    from pidfdpool.executor.map_entries import Entries
    from pidfdpool.executor.map_pieces import Entry, Taken
    from pidfdpool.executor.map_submission import Submission, Submitter
    from pidfdpool.loop.chunk_calls import Terms
    from pidfdpool.loop.pool import Pool

_FINAL = frozenset({Kind.TOGETHER, Kind.ALONE})  # nothing follows from these
_KIND_OF = attrgetter("kind")


class Chunks:
    """The chunks of one map. Each method is for the thread whose turn it is, unless it says otherwise.

    Attributes:
        running: chunks by their futures, from when they were submitted until they are settled.
        ended: chunks that are to be settled in the next turn. Any thread may add one.
        is_left: nobody takes the results any more.
        is_cancelled: the pool was told to cancel what waits.
        failure: why no more calls are submitted, if that is an error.
    """

    def __init__(self, entries: Entries, *, outcomes: bool) -> None:
        """outcomes: the consumer wants an `Outcome` of each call, and not results up to the first failure."""
        self._entries = entries
        self._outcomes = outcomes
        self.running: dict[Future[Any], Piece] = {}
        self.ended: deque[Piece] = deque()
        self.is_left: bool = False
        self.is_cancelled: bool = False
        self.failure: BaseException | None = None
        self._pool: Pool | None = None  # until nothing can follow any more
        self._holds = False  # whether the pool may be waiting for this map

    def begin(self, submission: Submission, pace: Pace | FixedSize, pool: Pool) -> None:
        """Take note of how they are submitted and measured."""
        self._submission, self._pace, self._pool = submission, pace, pool

    # ---- the pool ------------------------------------------------------------------------------------------

    def hold(self) -> None:
        """Have the pool not end before these chunks."""
        if self._pool is not None and not self._holds:
            self._holds = True
            self._pool.hold(self)

    def let_go(self) -> None:
        """Let the pool end."""
        if self._pool is not None and self._holds:
            self._pool.let_go(self)
            self._holds = False

    def let_go_if_over(self) -> None:
        """Let the pool end if nothing can follow from these chunks."""
        # Who has left has nothing made again. If a signal handler has ended this map in a submit, perhaps nobody is
        # told of the end of that chunk.
        if self._holds and (self.is_left or not self._can_leave_calls()):
            self.let_go()

    def _can_leave_calls(self) -> bool:
        # Not `self.running` itself: the consumer takes chunks out of it, without a turn.
        return bool(self.ended) or not _FINAL.issuperset(map(_KIND_OF, list(self.running.values())))

    def forget_pool(self) -> None:
        """Submit nothing that follows. Any thread. The pool must not be held, or must be another process's."""
        self._pool, self._holds = None, False

    # ---- submitting ----------------------------------------------------------------------------------------

    def submit(
        self,
        way: Submitter | Pool,
        first: int,
        calls: Sequence[Any],
        ended: Callable[[Future[Any]], object],
        terms: Terms | None = None,
        *,
        publishes: bool | None = None,
        listens: bool = True,
    ) -> Iterator[Entry]:
        """Submit some calls as one task, and yield what takes their place in the map.

        Args:
            way, first, calls, terms: as for `Submission.submit`.
            ended: called with the chunk's future when it is done, in the pool thread.
            publishes: as there. Default: where calls take so long that it costs little.
            listens: whether that is called though none of the calls counts for itself.

        Raises:
            PoolBroken, RuntimeError: as `submit` of the executor.
        """
        if publishes is None:
            publishes = self._pace.is_worth_publishing
        for entry in self._submission.submit(way, first, calls, terms, publishes=publishes):
            if isinstance(entry, Piece):
                self.running[entry.future] = entry
                if entry.kind is Kind.EACH:
                    self.hold()  # in time: an executor that shuts down waits for this turn to end
            yield entry
            if isinstance(entry, Piece) and (listens or entry.kind is Kind.EACH):
                entry.future.add_done_callback(ended)

    def _follow(
        self, first: int, calls: Sequence[Any], ended: Callable[[Future[Any]], object], terms: Terms
    ) -> list[Entry]:
        """As `submit`, for calls that follow from another chunk. The executor may be shut down by now."""
        entries: list[Entry] = []
        try:
            if self._pool is None:
                raise CancelledError  # the pool has ended meanwhile
            for entry in self.submit(self._pool, first, calls, ended, terms):
                entries.append(entry)  # noqa: PERF402  what was submitted before an error is kept
        except Exception as error:
            entries.append(UnsentCall(self.failure or error))
        return entries

    def count_running(self) -> int:
        """Return how many are not done. A consumer may have a chunk's results before its future calls `ended`."""
        return sum(not future.done() for future in list(self.running))

    def cancel(self) -> None:
        """Cancel those that no worker has begun. Any thread."""
        for future in list(self.running):
            future.cancel()

    # ---- chunks that have ended ----------------------------------------------------------------------------

    def settle_ended(self, ended: Callable[[Future[Any]], object]) -> None:
        """Note how long the chunks that have ended took, and submit what is left of them. ended: as for `submit`."""
        while self.ended:
            self._settle(self.ended.popleft(), ended)

    def _settle(self, piece: Piece, ended: Callable[[Future[Any]], object]) -> None:
        future = piece.future
        if self.running.pop(future, None) is None:
            return
        try:
            if not future.cancelled():
                if piece.kind is Kind.EACH:
                    self._settle_each(piece, ended)
                elif future.exception() is None:
                    self._note(piece)
        except BaseException as error:
            piece.followers.append(UnsentCall(error))  # the consumer may be another thread, and must not miss a gap
            raise
        finally:
            piece.settled, piece.calls = True, ()
            self._entries.complete(piece)

    def note(self, piece: Piece) -> None:
        """Note how long the calls of a chunk took that has ended well, if nothing follows from it. Any thread."""
        if self.running.pop(piece.future, None) is not None:
            self._note(piece)

    def _note(self, piece: Piece) -> None:
        self._pace.note(piece.count, piece.future.result()[-1], piece.size)

    def _settle_each(self, piece: Piece, ended: Callable[[Future[Any]], object]) -> None:
        outcome, calls, submission = piece.outcome, piece.calls, self._submission
        made, left = outcome.made, len(calls) - outcome.made
        if outcome.seconds is not None and made:
            self._pace.note(made, outcome.seconds, piece.size * made // len(calls))
        cancelled = self.is_cancelled
        again = {} if self.is_left or cancelled else attempts_left(outcome, submission.policy)
        gaps = piece.gaps(sorted(again))
        ordered, followers = self._entries.is_ordered, piece.followers
        piece.taken = gaps[:1] if ordered else gaps
        for (_, index), (begin, end) in pairwise(gaps):
            followers += self._follow(piece.first + index, calls[index : index + 1], ended, again[index])
            if ordered and begin < end:
                followers.append(Given(outcome, begin, end, piece.first))
        if left and cancelled:
            followers.append(UnsentCall(CancelledError()))
        elif left and not self.is_left:
            # A worker that has ended a chunk early may do so again, and one that died before any call at the first.
            early = outcome.seconds is not None
            size = min(left, max(1, 2 * made)) if early or not made else left
            if early:
                self._pace.note_rest(size)
            for begin in range(made, len(calls), size):
                followers += self._follow(piece.first + begin, calls[begin : begin + size], ended, piece.rest)
        if not ordered:
            self._entries.add(followers)

    # ---- results -------------------------------------------------------------------------------------------

    def take(self, entry: Entry, submit: Callable[[], object]) -> Taken:
        """As `_take`. Without order, what ends a map that gives outcomes comes behind all that are there."""
        results, error = self._take(entry, submit)
        if error is not None and self._outcomes and not self._entries.is_ordered:
            self.failure, error = self.failure or error, None
        return results, error

    def _take(self, entry: Entry, submit: Callable[[], object]) -> Taken:
        """Return the results or outcomes of an entry, and the error that ended them, if one did. For the consumer.

        Its future is done, if it has one. What was left of it is the next entry.

        submit: settles what has ended, when it is this thread's turn.

        Raises:
            CancelledError: it was cancelled.
        """
        if not isinstance(entry, Piece):
            return entry.take_outcomes() if self._outcomes else entry.take()
        error = entry.future.exception()  # raises if it was cancelled
        if entry.kind is Kind.EACH:
            if not (entry.settled or entry.is_complete(self._submission.policy)):
                self.ended.append(entry)
                submit()
                if not entry.settled:
                    raise RuntimeError("a map cannot go on in code that has interrupted its own submits")
            results, error = entry.take_outcomes() if self._outcomes else entry.take()
            if self._entries.is_ordered:
                self._entries.put_back(entry.followers)
        elif self._outcomes:
            return self._outcome_of_single(entry, error)
        elif error is None:
            result = entry.future.result()
            results, error = ([result[0]], None) if entry.kind is Kind.ALONE else unpack_results(result)
        else:
            results = []
        if error is not None:
            chunk_calls.describe(error)
        return results, error

    def _outcome_of_single(self, piece: Piece, error: BaseException | None) -> Taken:
        """Return the outcome of the only call of a chunk. error: of its future."""
        from pidfdpool.executor.outcome import Outcome

        if error is None:
            return [Outcome(piece.first, piece.future.result()[0])], None
        # A call may raise PoolBroken, too, of a pool of its own.
        if chunk_outcomes.ends_map(error) and (self._pool is None or self._pool.machine.broken is not None):
            return [], error
        chunk_calls.describe(error)
        return [Outcome(piece.first, None, error)], None
