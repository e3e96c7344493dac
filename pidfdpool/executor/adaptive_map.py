"""`map` whose chunks the pool sizes itself, as the calls are measured: the calls, their chunks and their results.

An `AdaptiveMap` belongs to one map. It copies all its calls at once, as the standard library's map does, and submits
them in chunks, `CHUNKS_PER_WORKER` for each worker. When a chunk ends, the next is submitted. So the size of each
chunk is decided as late as possible, with all measurements so far (`chunk_sizes`), and a call that is not submitted
yet costs no more than its arguments. The next chunk is submitted by the pool thread, in a callback of the future of
the chunk that has ended. So all calls run, whether or not anybody takes the results.

Tasks can be submitted only while the pool accepts them. So before the executor or the interpreter shuts down, all
remaining calls are submitted at once (`submit_rest`).

Where a rule is about each call (a timeout, retries), or where calls take long enough for it to cost little, the
worker publishes each result at once (`worker.chunk_publishing`). Then the death of a worker costs one call. The calls
behind it have not begun, and are submitted again, as are those of a chunk that a worker has ended early, and a call
that is to have another attempt (`_settle`). All this goes on when the executor is shut down, which has accepted these
calls: the map holds the pool until then.

One thread at a time submits chunks (`Turns`).
"""

from __future__ import annotations

import concurrent.futures
import queue
import time
from collections import deque
from itertools import chain, pairwise, repeat, starmap
from typing import TYPE_CHECKING, Any

from pidfdpool.errors import InheritedFutureError
from pidfdpool.executor.chunk_outcomes import unpack_results
from pidfdpool.executor.chunk_sizes import CHUNKS_PER_WORKER, Pace
from pidfdpool.executor.map_pieces import Given, Kind, Piece, UnsentCall, attempts_left, next_results
from pidfdpool.executor.map_submission import Submission
from pidfdpool.executor.map_turns import Turns
from pidfdpool.loop import chunk_calls
from pidfdpool.process import interruptible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from pidfdpool.executor.map_pieces import Entry, Taken
    from pidfdpool.executor.map_submission import Submitter
    from pidfdpool.loop.chunk_calls import Terms
    from pidfdpool.loop.pool import Pool


class AdaptiveMap:
    """One map: its calls, the chunks that were submitted, and the results that are not taken yet.

    Thread-safe, except for the iterator that `results` returns: only one consumer may use it.
    """

    def __init__(
        self,
        submitter: Submitter,
        function: Callable[..., Any],
        iterables: tuple[Iterable[Any], ...],
        *,
        ordered: bool,
    ) -> None:
        """Copy the calls and submit the first of them.

        Raises:
            PoolBroken, RuntimeError: as `submit`.
        """
        self._starred = len(iterables) != 1
        calls: Iterable[Any] = zip(*iterables, strict=False) if self._starred else iterables[0]
        # A copy, because the caller may change the original. A range needs none: nobody can change it.
        # Through a chain, because list() asks an iterable for its length, which may be wrong, or raise.
        self._calls: Sequence[Any] = calls if isinstance(calls, range) else list(chain(calls))
        self._count = _length_of(self._calls)
        self._submitted = 0  # how many of the calls
        self._turns = Turns()
        self._stopped = not self._calls  # no more calls are to be submitted
        self._failure: BaseException | None = None  # why, if that is an error
        self._consumer_left = False  # nobody takes the results any more
        # Chunks by their futures, with their calls, which are to live until they have run.
        self._running: dict[concurrent.futures.Future[Any], Piece] = {}
        self._ended: deque[Piece] = deque()  # chunks that are to be settled in the next turn
        # The results that are not taken yet: in the order of the calls, or as they come.
        self._entries: deque[Entry] = deque()
        self._completed: queue.SimpleQueue[Entry] | None = None if ordered else queue.SimpleQueue()
        # How many entries there were, counted in turns; and how many the consumer has claimed. One counter that both
        # change would lose changes.
        self._entered = self._claimed = 0
        self._submitter: Submitter | None = None
        self._pool: Pool | None = None  # until nothing can follow any more
        self._holds = False  # whether the pool may be waiting for this map
        self._max_running = 0
        if self._calls:
            try:
                self._start(submitter, function)
            except BaseException:
                self.cancel()
                raise

    def _start(self, submitter: Submitter, function: Callable[..., Any]) -> None:
        workers, pool = submitter._register_map(self)
        self._max_running = CHUNKS_PER_WORKER * workers
        self._pace = Pace(workers)
        self._submission = Submission(function, submitter._policy, pool.recipe.shared_main, starred=self._starred)
        # Until all is submitted, so that a map runs to its end though nobody else holds the executor.
        self._submitter = submitter
        self._hold(pool)
        unsent = self._submission.pickle_function()
        if unsent is not None:
            self._add_entries([unsent])
            self.stop_submitting(None)
        self._submit_more(wait=True)
        if self._failure is not None and not self._entered:
            raise self._failure

    # ---- for the executor ----------------------------------------------------------------------------------

    def submit_rest(self, *, wait: bool = True) -> bool:
        """Submit all remaining calls: soon nothing can be submitted any more. As `open_maps.Map` has it."""
        self._max_running = self._count
        self._turns.wanted = True
        if self._turns.is_interrupted:
            self._let_go()  # this code may wait for the pool's end, and the turn cannot end before it
        return self._submit_more(wait=wait)

    def stop_submitting(self, failure: BaseException | None) -> None:
        """Submit no more calls. The consumer gets `failure` in the place of their results. Takes no lock."""
        self._failure = self._failure or failure
        self._stopped = True

    def forget_in_forked_child(self) -> None:
        """Stop, in a forked child: the parent goes on with this map."""
        self._turns.forget_in_forked_child()
        self._pool, self._holds = None, False
        self.stop_submitting(
            InheritedFutureError("this map was under way when its process was forked: the parent goes on")
        )

    # ---- submitting ----------------------------------------------------------------------------------------

    def _submit_more(self, *, wait: bool = False) -> bool:
        """Submit as many chunks as may run, when it is this thread's turn. wait: wait for the turn."""
        return self._turns.take(self._submit_chunks, self._turn_failed, wait=wait)

    def _turn_failed(self, error: BaseException) -> None:
        self.stop_submitting(error)
        self._let_go_if_done()

    def _submit_chunks(self) -> None:
        """Settle what has ended, and submit chunks until enough of them run. It is the caller's turn."""
        while self._ended:
            self._settle(self._ended.popleft())
        # A consumer may have a chunk's results before its future has called `_chunk_ended`.
        room = self._max_running - sum(not future.done() for future in list(self._running))
        while not self._stopped and room > 0:
            first = self._submitted
            calls = self._calls[first : first + self._submission.at_most(self._pace.next(self._count - first))]
            self._submitted += len(calls)
            entries = self._submit(first, calls)
            room -= sum(entry.future is not None for entry in entries)
            self._add_entries(entries)
            if self._submitted >= self._count:
                self.stop_submitting(None)
        if self._stopped:
            self._calls = ()
            self._submitter = None  # this map does not keep the executor alive any more
        if self._consumer_left:
            self._cancel_submitted()
        self._let_go_if_done()

    def _hold(self, pool: Pool) -> None:
        """Have the pool not end before this map."""
        self._pool, self._holds = pool, True
        pool.hold(self)

    def _let_go_if_done(self) -> None:
        """Let the pool end, if nothing can follow any more. It is the caller's turn."""
        if self._stopped and not self._running and not self._ended:
            self._let_go()
            self._pool = None

    def _let_go(self) -> None:
        if self._pool is not None and self._holds:
            self._pool.let_go(self)
            self._holds = False

    def _submit(self, first: int, calls: Sequence[Any], terms: Terms | None = None) -> list[Entry]:
        """Submit some calls as one task; return what takes their place in the map.

        first: the index in the map of the first of them. terms: if they follow from another task.
        """
        entries: list[Entry] = []
        way = self._submitter if terms is None else self._pool  # the executor may be shut down by now
        try:
            if way is None:
                raise concurrent.futures.CancelledError  # the pool has ended meanwhile
            for entry in self._submission.submit(way, first, calls, terms, publishes=self._pace.is_worth_publishing):
                entries.append(entry)
                if isinstance(entry, Piece):
                    self._running[entry.future] = entry
                    entry.future.add_done_callback(self._chunk_ended)
        except BaseException as error:
            if terms is not None and isinstance(error, Exception):
                entries.append(UnsentCall(self._failure or error))
                return entries
            self.stop_submitting(error)
            if not isinstance(error, Exception):
                raise
        return entries

    def _add_entries(self, entries: list[Entry]) -> None:
        """Note what is to be taken, behind everything else; as it comes, if the order does not matter."""
        if self._completed is None:
            self._entries.extend(entries)
        self._entered += len(entries)  # not before: the consumer looks at it without a turn
        if self._completed is not None:
            for entry in entries:
                if entry.future is None:
                    self._completed.put(entry)

    def _chunk_ended(self, future: concurrent.futures.Future[Any]) -> None:
        """Note that a chunk has ended, and submit the next. Called in the pool thread, by the chunk's future."""
        piece = self._running.get(future)
        if piece is not None:
            self._ended.append(piece)
        self._turns.wanted = True
        self._submit_more()

    # ---- chunks that have ended ----------------------------------------------------------------------------

    def _settle(self, piece: Piece) -> None:
        """Note how long a chunk took, and submit what is left of it. It is the caller's turn."""
        future = piece.future
        if self._running.pop(future, None) is None:
            return
        try:
            if not future.cancelled():
                if piece.kind is Kind.EACH:
                    self._settle_each(piece)
                elif piece.kind is Kind.TOGETHER and future.exception() is None:
                    self._pace.note(piece.count, future.result()[2], piece.size)
        finally:
            piece.settled, piece.calls = True, ()
            if self._completed is not None:
                self._completed.put(piece)

    def _settle_each(self, piece: Piece) -> None:
        outcome, calls = piece.outcome, piece.calls
        made, left = outcome.made, len(calls) - outcome.made
        if outcome.seconds is not None and made:
            self._pace.note(made, outcome.seconds, piece.size * made // len(calls))
        cancelled = self._is_cancelled
        again = {} if self._consumer_left or cancelled else attempts_left(outcome, self._submission.policy)
        gaps = piece.gaps(sorted(again))
        ordered, followers = self._completed is None, piece.followers
        piece.taken = gaps[:1] if ordered else gaps
        for (_, index), (begin, end) in pairwise(gaps):
            followers += self._submit(piece.first + index, calls[index : index + 1], again[index])
            if ordered and begin < end:
                followers.append(Given(outcome, begin, end))
        if left and cancelled:
            followers.append(UnsentCall(concurrent.futures.CancelledError()))
        elif left and not self._consumer_left:
            # A worker that has ended a chunk early may do so again, and one that died before any call at the first.
            early = outcome.seconds is not None
            size = min(left, max(1, 2 * made)) if early or not made else left
            if early:
                self._pace.note_rest(size)
            for begin in range(made, len(calls), size):
                followers += self._submit(piece.first + begin, calls[begin : begin + size], self._submission.rest)
        if not ordered:
            self._add_entries(followers)

    # ---- results -------------------------------------------------------------------------------------------

    def results(self, deadline: float | None) -> Iterator[Any]:
        """Return an iterator over the results.

        When it is closed, and when a call fails, the chunks that no worker has begun are cancelled.
        """
        try:
            while (taken := next_results(self, deadline)) is not None:
                results, error = taken
                del taken
                results.reverse()
                # Keeps no reference to a result that is given. These iterators of C take a third of a loop's time.
                yield from starmap(results.pop, repeat((), len(results)))
                if error is not None:
                    try:
                        raise error
                    finally:
                        del error  # its traceback holds this frame
        finally:
            self.cancel()

    def take(self, entry: Entry) -> Taken:
        """Return the results of what `next_entry` gave, and the error that ended them, if one did.

        Its future is done, if it has one. What was left of it is what `next_entry` gives now.

        Raises:
            CancelledError: it was cancelled.
        """
        if not isinstance(entry, Piece):
            return entry.take()
        error = entry.future.exception()  # raises if it was cancelled
        if entry.kind is Kind.EACH:
            if not (entry.settled or entry.is_complete):
                self._ended.append(entry)
                self._submit_more(wait=True)
                if not entry.settled:
                    raise RuntimeError("a map cannot go on in code that has interrupted its own submits")
            results, error = entry.take()
            if self._completed is None:
                self._claimed -= len(entry.followers)  # to be claimed in their turn
                self._entries.extendleft(reversed(entry.followers))
        elif error is None:
            result = entry.future.result()
            results, error = ([result], None) if entry.kind is Kind.ALONE else unpack_results(result)
        else:
            results = []
        if error is not None:
            chunk_calls.describe(error)
        return results, error

    def next_entry(self, deadline: float | None = None) -> Entry | None:
        """Return what has the next results: a chunk, for whose future the caller waits. None: there are no more.

        Raises:
            TimeoutError: the deadline, in time.monotonic()'s seconds, has passed.
            BaseException: whatever has prevented the remaining calls from being submitted.
        """
        if not self._entries:
            self._submit_more(wait=True)  # waits until a thread that submits has entered what it has submitted
        if self._claimed == self._entered:
            # A shutdown that cancels concerns a map only if there were calls to cancel.
            if self._failure is not None and not (self._is_cancelled and self._submitted >= self._count):
                raise self._failure
            return None
        self._claimed += 1
        if self._completed is None:
            return self._entries.popleft()
        try:
            return interruptible.get(self._completed, None if deadline is None else deadline - time.monotonic())
        except queue.Empty:
            raise TimeoutError from None

    @property
    def _is_cancelled(self) -> bool:
        """Whether the pool was told to cancel what waits."""
        return type(self._failure) is concurrent.futures.CancelledError

    def cancel(self) -> None:
        """Submit and run no more calls. Any thread, at any point: the garbage collector may close the iterator."""
        self.stop_submitting(None)
        self._consumer_left = True
        self._cancel_submitted()
        self._turns.wanted = True
        self._submit_more()  # which lets the pool go, if there is nothing left to wait for

    def _cancel_submitted(self) -> None:
        for future in list(self._running):
            future.cancel()


def _length_of(calls: Sequence[Any]) -> int:
    """Return the number of calls. len() fails for a range of more than sys.maxsize."""
    if isinstance(calls, range):
        return calls.index(calls[-1]) + 1 if calls else 0
    return len(calls)
