"""`map` whose chunks the pool sizes itself, as the calls are measured: the calls, their chunks and their results.

An `AdaptiveMap` belongs to one map. It copies all its calls at once, as the standard library's map does, and submits
them in chunks, `CHUNKS_PER_WORKER` for each worker. When a chunk ends, the next is submitted. So the size of each
chunk is decided as late as possible, with all measurements so far (`chunk_sizes`), and a call that is not submitted
yet costs no more than its arguments. The next chunk is submitted by the pool thread, in a callback of the future of
the chunk that has ended. So all calls run, whether or not anybody takes the results.

Tasks can be submitted only while the pool accepts them. So before the executor or the interpreter shuts down, all
remaining calls are submitted at once (`submit_rest`).

A chunk may not come to its end, because its worker has died, for instance. Then the map submits what is left of it
(`map_chunks`), also when the executor is shut down, which has accepted these calls.

One thread at a time submits chunks (`Turns`).
"""

from __future__ import annotations

import concurrent.futures
from functools import partial
from itertools import chain, repeat, starmap
from typing import TYPE_CHECKING, Any

from pidfdpool.errors import InheritedFutureError
from pidfdpool.executor.chunk_sizes import CHUNKS_PER_WORKER, FixedSize, Pace
from pidfdpool.executor.map_chunks import Chunks
from pidfdpool.executor.map_entries import Entries
from pidfdpool.executor.map_pieces import next_results
from pidfdpool.executor.map_submission import Submission
from pidfdpool.executor.map_turns import Turns
from pidfdpool.process import interruptible

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pidfdpool.executor.map_pieces import Entry, Taken
    from pidfdpool.executor.map_request import MapRequest
    from pidfdpool.executor.map_submission import Submitter


class AdaptiveMap:
    """One map: its calls, the chunks that were submitted, and the results that are not taken yet.

    Thread-safe, except for the iterator that `results` returns, and for `prepare`, `next_entry` and `take`: only one
    consumer may use these.

    Attributes:
        entries: what the consumer is to take.
    """

    def __init__(self, submitter: Submitter, request: MapRequest, *, ordered: bool) -> None:
        """Copy the calls and submit the first of them.

        Raises:
            PoolBroken, RuntimeError: as `submit`; and what taking the calls raises.
        """
        calls = request.calls()
        # A copy, because the caller may change the original. A range needs none: nobody can change it.
        # Through a chain, because list() asks an iterable for its length, which may be wrong, or raise.
        self._calls: Sequence[Any] = calls if isinstance(calls, range) else list(chain(calls))
        self._count = _length_of(self._calls)
        self._submitted = 0  # how many of the calls
        self._turns = Turns()
        self._stopped = not self._calls  # no more calls are to be submitted
        self.entries = Entries(ordered=ordered)
        self._chunks = Chunks(self.entries, outcomes=request.outcomes)
        self._submitter: Submitter | None = None
        self._max_running = 0
        if self._calls:
            try:
                self._start(submitter, request)
            except BaseException:
                self.cancel()
                raise

    def _start(self, submitter: Submitter, request: MapRequest) -> None:
        # In a turn: from when it is registered, an executor that shuts down has it submit all.
        self._turns.take(partial(self._begin, submitter, request), self._turn_failed, wait=True)
        failure = self._chunks.failure
        if failure is not None and not self.entries.were_added:
            raise failure

    def _begin(self, submitter: Submitter, request: MapRequest) -> None:
        """Make ready to submit, if that was not done, and submit the first chunks. It is the caller's turn."""
        if self._submitter is None and not self._stopped:
            self._make_ready(submitter, request)
        self._submit_chunks()

    def _make_ready(self, submitter: Submitter, request: MapRequest) -> None:
        workers, pool = submitter._register_map(self)
        self._max_running = max(self._max_running, CHUNKS_PER_WORKER * workers)  # all, if it is to submit the rest
        self._pace: Pace | FixedSize = Pace(workers) if request.chunksize is None else FixedSize(request.chunksize)
        shared = pool.recipe.shared_main
        self._submission = Submission(
            request.function, submitter._policy, shared, starred=request.starred, outcomes=request.outcomes
        )
        self._chunks.begin(self._submission, self._pace, pool)
        # Until all is submitted, so that a map runs to its end though nobody else holds the executor.
        self._submitter = submitter
        self._chunks.hold()
        unsent = self._submission.pickle_function()
        if unsent is not None:
            self.entries.add([unsent])
            self.stop_submitting(None)

    # ---- for the executor ----------------------------------------------------------------------------------

    def submit_rest(self, *, wait: bool = True) -> bool:
        """Submit all remaining calls: soon nothing can be submitted any more. As `open_maps.Map` has it."""
        self._max_running = self._count
        self._turns.wanted = True
        if self._turns.is_interrupted:
            self._chunks.let_go()  # this code may wait for the pool's end, and the turn cannot end before it
        return self._submit_more(wait=wait)

    def stop_submitting(self, failure: BaseException | None) -> None:
        """Submit no more calls. The consumer gets `failure` in the place of their results. Takes no lock."""
        chunks = self._chunks
        chunks.failure = failure = chunks.failure or failure
        chunks.is_cancelled = type(failure) is concurrent.futures.CancelledError
        self._stopped = True

    def forget_in_forked_child(self) -> None:
        """Stop, in a forked child: the parent goes on with this map."""
        self._turns.forget_in_forked_child()
        self._chunks.forget_pool()
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
        chunks = self._chunks
        chunks.settle_ended(self._chunk_ended)
        room = self._max_running - chunks.count_running()
        while not self._stopped and room > 0:
            first = self._submitted
            calls = self._calls[first : first + self._submission.at_most(self._pace.next(self._count - first))]
            self._submitted += len(calls)
            entries = self._submit(first, calls)
            room -= sum(entry.future is not None for entry in entries)
            self.entries.add(entries)
            if self._submitted >= self._count:
                self.stop_submitting(None)
        if self._stopped:
            self._calls = ()
            self._submitter = None  # this map does not keep the executor alive any more
        if chunks.is_left:
            chunks.cancel()
        self._let_go_if_done()

    def _let_go_if_done(self) -> None:
        """Let the pool end, if nothing can follow any more. It is the caller's turn."""
        if self._stopped:
            self._chunks.let_go_if_over()

    def _submit(self, first: int, calls: Sequence[Any]) -> list[Entry]:
        """Submit some calls as one task; return what takes their place in the map.

        first: the index in the map of the first of them.
        """
        entries: list[Entry] = []
        try:
            if self._submitter is None:
                raise concurrent.futures.CancelledError  # the pool has ended meanwhile
            entries.extend(self._chunks.submit(self._submitter, first, calls, self._chunk_ended))
        except BaseException as error:
            self.stop_submitting(error)
            if not isinstance(error, Exception) or interruptible.is_of_handler(error):
                raise
        return entries

    def _chunk_ended(self, future: concurrent.futures.Future[Any]) -> None:
        """Note that a chunk has ended, and submit the next. Called in the pool thread, by the chunk's future."""
        piece = self._chunks.running.get(future)
        if piece is not None:
            self._chunks.ended.append(piece)
        self._turns.wanted = True
        self._submit_more()

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
                del results  # a last step that is protected, see `process.locks`
        finally:
            self.cancel()

    def take(self, entry: Entry) -> Taken:
        """Return the results of what `next_entry` gave, and the error that ended them, if one did.

        Its future is done, if it has one. What was left of it is what `next_entry` gives now.

        Raises:
            CancelledError: it was cancelled.
        """
        return self._chunks.take(entry, partial(self._submit_more, wait=True))

    def next_entry(self, deadline: float | None = None) -> Entry | None:
        """Return what has the next results: a chunk, for whose future the caller waits. None: there are no more.

        Raises:
            TimeoutError: the deadline, in time.monotonic()'s seconds, has passed.
            BaseException: whatever has prevented the remaining calls from being submitted.
        """
        return self.entries.claim(deadline) if self.prepare() else None

    def prepare(self) -> bool:
        """Return whether there is an entry to be claimed.

        Raises:
            BaseException: as `next_entry`.
        """
        entries, chunks = self.entries, self._chunks
        if not entries.in_order:
            self._submit_more(wait=True)  # waits until a thread that submits has entered what it has submitted
        if not entries.are_claimed:
            return True
        failure, chunks.failure = chunks.failure, None
        try:
            # A shutdown that cancels concerns a map only if there were calls to cancel.
            if failure is not None and not (chunks.is_cancelled and self._submitted >= self._count):
                raise failure
        finally:
            del failure  # its traceback holds this frame, which holds the map
        return False

    def cancel(self) -> None:
        """Submit and run no more calls. Any thread, at any point: the garbage collector may close the iterator."""
        self.stop_submitting(None)
        self._chunks.is_left = True
        self._chunks.cancel()
        self._turns.wanted = True
        self._submit_more()  # which lets the pool go, if there is nothing left to wait for


def _length_of(calls: Sequence[Any]) -> int:
    """Return the number of calls. len() fails for a range of more than sys.maxsize."""
    if isinstance(calls, range):
        return calls.index(calls[-1]) + 1 if calls else 0
    return len(calls)
