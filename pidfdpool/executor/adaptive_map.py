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

One lock is held while chunks are submitted. The pool thread never waits for it: it leaves a note for the thread that
holds the lock, and that thread looks for a note after it has released the lock.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from contextvars import copy_context
from itertools import chain, pairwise, repeat, starmap
from typing import TYPE_CHECKING, Any

from pidfdpool.errors import InheritedFutureError, PayloadError
from pidfdpool.executor.chunk_sizes import Pace
from pidfdpool.executor.map_pieces import Given, Kind, Piece, UnsentCall, attempts_left
from pidfdpool.executor.map_submission import Submission
from pidfdpool.loop import chunk_calls, outcomes
from pidfdpool.process import interruptible
from pidfdpool.serialization import kept_definitions, payload

if TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from pidfdpool.executor.map_pieces import Entry
    from pidfdpool.executor.map_submission import Submitter
    from pidfdpool.loop.chunk_calls import Terms
    from pidfdpool.loop.pool import Pool
    from pidfdpool.transport.framing import Buffer

CHUNKS_PER_WORKER = 2  # one that runs, one that waits


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
        self._lock = threading.RLock()  # held to submit; it tells whether a signal handler has interrupted that
        self._context = copy_context()  # for arguments whose own code pickles them, later and in the pool thread
        self._stopped = not self._calls  # no more calls are to be submitted
        self._failure: BaseException | None = None  # why, if that is an error
        self._consumer_left = False  # nobody takes the results any more
        # Chunks by their futures, with their calls, which are to live until they have run.
        self._running: dict[concurrent.futures.Future[Any], Piece] = {}
        # The notes for the thread that has the lock: chunks have ended, and these are to be settled.
        self._more_wanted = False
        self._ended: deque[Piece] = deque()
        # The results that are not taken yet: in the order of the calls, or as they come.
        self._entries: deque[Entry] = deque()
        self._completed: queue.SimpleQueue[Entry] | None = None if ordered else queue.SimpleQueue()
        self._remaining = 0  # how many chunks are still to be taken
        self._pool: Pool | None = None  # while it is held
        self._definitions: list[Any] = []  # definitions of the script that its calls may use
        if self._calls:
            self._start(submitter, function)

    def _start(self, submitter: Submitter, function: Callable[..., Any]) -> None:
        workers, shared = submitter._register_map(self)
        self._pool = submitter._pool
        if self._pool is not None:
            self._pool.hold()
        self._submission = submission = Submission(submitter, self._pool, function, shared, starred=self._starred)
        self._max_running = CHUNKS_PER_WORKER * workers
        self._pace = Pace(workers)
        try:
            submission.pickle_function()
            self._definitions = kept_definitions.definitions_for_task()
        except Exception as error:
            self._add_entries([UnsentCall(submission.pickling_error(error, ()))])
            self.stop_submitting(None)
        self._submit_more(wait=True)
        if self._failure is not None and not self._remaining:
            raise self._failure

    # ---- for the executor ----------------------------------------------------------------------------------

    def submit_rest(self) -> None:
        """Submit all remaining calls: soon nothing can be submitted any more."""
        self._max_running = self._count
        self._submit_more(wait=True)

    def stop_submitting(self, failure: BaseException | None) -> None:
        """Submit no more calls. The consumer gets `failure` in the place of their results. Takes no lock."""
        self._failure = self._failure or failure
        self._stopped = True

    def forget_in_forked_child(self) -> None:
        """Stop, in a forked child: the parent goes on with this map."""
        self._lock, self._pool = threading.RLock(), None
        self.stop_submitting(
            InheritedFutureError("this map was under way when its process was forked: the parent goes on")
        )

    # ---- submitting ----------------------------------------------------------------------------------------

    def _submit_more(self, *, wait: bool = False) -> None:
        """Submit as many chunks as may run.

        While another thread does that: leave a note for it, or with `wait` wait for it and look again. If this thread
        itself was interrupted in it (by a signal handler, say), it goes on with it afterwards.
        """
        if self._lock._is_owned():  # type: ignore[attr-defined]
            self._more_wanted = True
            return
        while (wait or self._more_wanted) and (
            interruptible.acquire(self._lock) if wait else self._lock.acquire(False)
        ):
            wait = self._more_wanted = False
            try:
                self._context.run(self._submit_chunks)
            except BaseException as error:
                self.stop_submitting(error)  # calls may be lost: the consumer must not miss that
                raise
            finally:
                self._let_go_if_done()
                self._lock.release()

    def _submit_chunks(self) -> None:
        """Submit chunks until enough of them run. The caller holds the lock."""
        while self._ended:
            self._settle(self._ended.popleft())
        if not self._count:
            return
        # A consumer may have a chunk's results before its future has called `_chunk_ended`.
        room = self._max_running - sum(not future.done() for future in list(self._running))
        while not self._stopped and room > 0:
            first = self._submitted
            calls = self._calls[first : first + self._submission.at_most(self._pace.next(self._count - first))]
            self._submitted += len(calls)
            entries = self._submit(first, calls)
            room -= len(entries)
            self._add_entries(entries)
            if self._submitted >= self._count:
                self.stop_submitting(None)
        if self._stopped:
            self._calls = ()
            self._submission.end()
        if self._consumer_left:
            self._cancel_submitted()

    def _let_go_if_done(self) -> None:
        """Let the pool end, if nothing can follow any more. The caller holds the lock."""
        if self._stopped and not self._running and not self._ended and self._pool is not None:
            pool, self._pool = self._pool, None
            pool.let_go()

    def _submit(self, first: int, calls: Sequence[Any], terms: Terms | None = None) -> list[Entry]:
        """Submit some calls as one task; return what takes their place in the map.

        first: the index in the map of the first of them. terms: if they follow from another task.
        """
        entries: list[Entry] = []
        try:
            for entry in self._submission.submit(first, calls, terms, publishes=self._pace.is_worth_publishing):
                entries.append(entry)
                if isinstance(entry, Piece):
                    self._running[entry.future] = entry
                    entry.future.add_done_callback(self._chunk_ended)
        except BaseException as error:
            if terms is not None and isinstance(error, Exception):
                entries.append(UnsentCall(error))
                return entries
            self.stop_submitting(error)
            if not isinstance(error, Exception):
                raise
        return entries

    def _add_entries(self, entries: list[Entry]) -> None:
        """Note what is to be taken, behind everything else; as it comes, if the order does not matter."""
        self._remaining += len(entries)
        if self._completed is None:
            self._entries.extend(entries)
            return
        for entry in entries:
            if entry.future is None:
                self._completed.put(entry)

    def _chunk_ended(self, future: concurrent.futures.Future[Any]) -> None:
        """Note that a chunk has ended, and submit the next. Called in the pool thread, by the chunk's future."""
        piece = self._running.get(future)
        if piece is not None:
            self._ended.append(piece)
        self._more_wanted = True
        self._submit_more()

    # ---- chunks that have ended ----------------------------------------------------------------------------

    def _settle(self, piece: Piece) -> None:
        """Note how long a chunk took, and submit what is left of it. The caller holds the lock."""
        future = piece.future
        if self._running.pop(future, None) is None:
            return
        try:
            if not future.cancelled():
                if piece.kind is Kind.EACH:
                    self._settle_each(piece)
                elif piece.kind is Kind.TOGETHER and future.exception() is None:
                    self._pace.note(len(piece.calls), future.result()[2], piece.size)
        finally:
            piece.settled = True
            if self._completed is not None:
                self._completed.put(piece)

    def _settle_each(self, piece: Piece) -> None:
        outcome, calls = piece.outcome, piece.calls
        made, left = outcome.made, len(calls) - outcome.made
        if outcome.seconds is not None and made:
            self._pace.note(made, outcome.seconds, piece.size * made // len(calls))
        again = {} if self._consumer_left else attempts_left(outcome, self._submission.policy)
        gaps = piece.gaps(sorted(again))
        ordered, followers = self._completed is None, piece.followers
        piece.taken = gaps[:1] if ordered else gaps
        for (_, index), (begin, end) in pairwise(gaps):
            followers += self._submit(piece.first + index, calls[index : index + 1], again[index])
            if ordered and begin < end:
                followers.append(Given(outcome, begin, end))
        if left and not self._consumer_left:
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
            while (taken := self._next_results(deadline)) is not None:
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

    def _next_results(self, deadline: float | None) -> tuple[list[Any], BaseException | None] | None:
        """Return the next results, and the error that ended them, if one did. None: there are no more."""
        entry = self.next_entry(deadline)
        if entry is None:
            return None
        future = entry.future
        try:
            if future is not None:
                future.exception(None if deadline is None else deadline - time.monotonic())
            return self.take(entry)
        finally:
            if future is not None:
                future.cancel()  # does something only if waiting for it has failed
            del entry, future  # an exception's traceback holds this frame, and the future holds the exception

    def take(self, entry: Entry) -> tuple[list[Any], BaseException | None]:
        """Return the results of what `next_entry` gave, and the error that ended them, if one did.

        Its future is done, if it has one. What was left of it is what `next_entry` gives now.

        Raises:
            CancelledError: it was cancelled.
        """
        if isinstance(entry, UnsentCall):
            return [], entry.error
        if isinstance(entry, Given):
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
                self._remaining += len(entry.followers)
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
        if not self._remaining:
            if self._failure is not None:
                raise self._failure
            return None
        self._remaining -= 1
        if self._completed is None:
            return self._entries.popleft()
        try:
            return interruptible.get(self._completed, None if deadline is None else deadline - time.monotonic())
        except queue.Empty:
            raise TimeoutError from None

    def cancel(self) -> None:
        """Submit and run no more calls. Any thread, at any point: the garbage collector may close the iterator."""
        self.stop_submitting(None)
        self._consumer_left = True
        self._cancel_submitted()
        self._more_wanted = True
        self._submit_more()  # which lets the pool go, if there is nothing left to wait for

    def _cancel_submitted(self) -> None:
        for future in list(self._running):
            future.cancel()


def unpack_results(outcome: tuple[Any, list[Buffer] | None, float]) -> tuple[list[Any], BaseException | None]:
    """Return the results of a chunk up to its first failure, and that failure.

    outcome: what the worker returned: the results, the failure as a pickle, and the seconds that the calls took.

    Raises:
        PayloadError: the results cannot be rebuilt.
    """
    results, failure, _ = outcome
    if type(results) is tuple:  # they were rebuilt when they arrived
        return results[0], None if failure is None else payload.load_error(failure)
    try:
        made = outcomes.load_result(results)
    except PayloadError:
        from pidfdpool.serialization import salvage

        rest = salvage.load_items(results, in_host=True)
        at = next((at for at, result in enumerate(rest or ()) if type(result) is salvage.FailedItem), None)
        if rest is None or at is None:
            raise
        return rest[:at], outcomes.unreadable_result(rest[at].error)
    return made, None if failure is None else payload.load_error(failure)


def _length_of(calls: Sequence[Any]) -> int:
    """Return the number of calls. len() fails for a range of more than sys.maxsize."""
    if isinstance(calls, range):
        return calls.index(calls[-1]) + 1 if calls else 0
    return len(calls)
