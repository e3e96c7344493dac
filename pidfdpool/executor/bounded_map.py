"""`map` with a `buffersize`, whose chunks the pool sizes itself: the inputs, their chunks and their results.

A `BoundedMap` belongs to one map. It takes `buffersize` inputs at once, and one more whenever a result is asked for,
in the consumer's thread, as the standard library's map does. Inputs that were taken are *held* until there are enough
of them for a chunk. How many that are depends on how long the calls take, as far as that was measured
(`chunk_sizes`):

* Not measured: some calls are submitted, each as a chunk. The others are held until one of these has ended.
* `LONG` seconds or longer: each call is a chunk, and is submitted at once. So no call waits for another, and a death
  costs the one call that ran.
* Shorter: as many calls as take a few milliseconds, and at most an even share of the buffer, are a chunk. There are
  two shares for each worker, so that one chunk waits there while another runs. There is one where the calls of a
  share take less time than to wake a worker for them (`WAKING`). A chunk is submitted with fewer calls only if a
  worker would be idle, or if the consumer would wait for it. Unless its results are published, a death costs those of
  its chunk: the consumer gets those before the chunk, and then the error, which names the call.

The consumer submits these chunks, in between two chunks of results. While it gives out the results of one, iterators
of C do all the work. Mostly the futures of these chunks have no callbacks. So the consumer reads the channels itself
when it waits (`loop.leader`), and the pool thread, which would hardly get the interpreter's lock, has nothing to do.
Where more is held than the consumer may keep back, a callback of a chunk's future has the pool thread submit more.

Where an option is about each call (a timeout, retries), and where chunks take long enough for it to cost little
(`PUBLISHED_FROM`), the worker publishes each result at once, so that a death costs one call. The pool thread submits
what is left of such a chunk (`map_chunks`).

What is held must not be forgotten. It is submitted before the executor or the interpreter shuts down (`submit_rest`).
If nobody holds the executor any more, the pool's own thread has that done, and no further input is taken.
"""

from __future__ import annotations

import concurrent.futures
import sys
import time
from functools import partial
from itertools import chain, repeat, starmap
from typing import TYPE_CHECKING, Any

from pidfdpool.errors import InheritedFutureError
from pidfdpool.executor import lifecycle
from pidfdpool.executor.bounded_inputs import Inputs
from pidfdpool.executor.chunk_sizes import CHUNKS_PER_WORKER, Pace
from pidfdpool.executor.map_chunks import Chunks
from pidfdpool.executor.map_entries import Entries
from pidfdpool.executor.map_pieces import Kind, Piece, next_results
from pidfdpool.executor.map_submission import Submission, Submitter
from pidfdpool.executor.map_turns import Turns
from pidfdpool.process import interruptible

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pidfdpool.executor.map_pieces import Entry, Taken
    from pidfdpool.executor.map_request import MapRequest
    from pidfdpool.loop.pool import Pool

LONG = 0.0001  # seconds of a call that is worth a task of its own: several times what a task costs
WAKING = 0.0002  # seconds of a chunk: about what it costs to send it, and to wake the worker and the consumer
PUBLISHED_FROM = 0.001  # seconds of a chunk: the pool thread, which is called back then, costs a twentieth of that
AT_ONCE = 32  # chunks that are submitted in one turn, if nobody waits for what comes behind them
QUICK = 0.0005  # seconds: as long as inputs are taken that quickly, more are taken between two looks at the workers


class BoundedMap:
    """One map: its inputs, the chunks that were submitted, and the results that are not taken yet.

    Thread-safe, except for the iterator that `results` returns, and for `prepare`, `next_entry`, `take` and `step`:
    only one consumer may use these.

    Attributes:
        entries: what the consumer is to take.
    """

    def __init__(self, submitter: Submitter, request: MapRequest, buffersize: int, *, ordered: bool) -> None:
        """Take the first inputs, and submit some of them.

        buffersize: inputs to take ahead.

        Raises:
            PoolBroken, RuntimeError: as `submit`.
        """
        self._starred, self._gives_outcomes = request.starred, request.outcomes
        self._inputs = Inputs(request.tuples())
        self._held, self._permit = self._inputs.held, self._inputs.permit
        self._find_submitter = submitter._submitter_ref(self._permit.end)
        self._turns = Turns()
        self._pool: Pool | None = None
        self._submitted = 0  # how many of the calls
        self._stopped = False  # no more calls are to be submitted
        self._starting = True  # the constructor is at work
        self._closing = False  # soon nothing can be submitted any more
        self._has_taken = False  # the input that is due because the next result is asked for
        self.entries = Entries(ordered=ordered)
        self._chunks = Chunks(self.entries, outcomes=request.outcomes)
        self._fixed_size = request.chunksize  # None: as the calls are measured
        try:
            if self._inputs.take(1):
                self._start(submitter, request, buffersize)
        except BaseException:
            self.cancel()
            raise

    def _start(self, submitter: Submitter, request: MapRequest, buffersize: int) -> None:
        # In a turn: from when it is registered, an executor that shuts down has it submit what is held.
        self._turns.take(partial(self._begin, submitter, request, buffersize), self._turn_failed, wait=True)
        left, batch = buffersize - 1, 1
        while left and self._inputs.go_on:
            began = time.monotonic()
            left -= self._inputs.take(min(batch, left))
            # Calls are to run while inputs that are slow to come are waited for.
            batch = batch * 2 if time.monotonic() - began < QUICK else 1
            self._submit_held(consumer=False)
        self._starting = False
        failure = self._chunks.failure
        if self._stopped and failure is not None and not self.entries.were_added:
            raise failure

    def _begin(self, submitter: Submitter, request: MapRequest, buffersize: int) -> None:
        """Make ready to submit, if that was not done, and submit what is due. It is the caller's turn."""
        if self._pool is None and not self._stopped:
            self._make_ready(submitter, request, buffersize)
        self._submit_due(submitter, consumer=False)

    def _make_ready(self, submitter: Submitter, request: MapRequest, buffersize: int) -> None:
        self._workers, self._pool = submitter._register_map(self)
        self._max_running = CHUNKS_PER_WORKER * self._workers  # while too little was measured
        self._share = max(1, buffersize // self._max_running)  # the largest chunk, but where calls are very short
        self._pace = Pace(self._workers)
        function, rules, shared = request.function, submitter._policy, self._pool.recipe.shared_main
        outcomes = self._gives_outcomes
        self._submission = Submission(function, rules, shared, starred=self._starred, outcomes=outcomes, lazy=True)
        self._chunks.begin(self._submission, self._pace, self._pool)
        unsent = self._submission.pickle_function()
        if unsent is not None:
            self.entries.add([unsent])
            self.stop_submitting(None)
            self._inputs.go_on = False

    # ---- inputs --------------------------------------------------------------------------------------------

    def _take_one(self) -> None:
        """Take the input that is due because a result is asked for."""
        lifecycle.detect_fork()
        submitter = self._find_submitter()
        if submitter is None or not self._inputs.go_on:
            self._inputs.go_on = False
        elif self._inputs.take(1) and self._permit.ended:
            try:
                submitter._register_map(self)  # raises if nothing can be submitted any more
            except RuntimeError as error:
                if not self._comes_last(error):
                    raise
                self.stop_submitting(error)
            if self._stopped:
                self._inputs.go_on = False

    def _comes_last(self, error: Exception) -> bool:
        """Return whether an error that prevents further calls comes behind the results of those before it."""
        return self._gives_outcomes or isinstance(error, concurrent.futures.BrokenExecutor)

    def step(self) -> None:
        """Take the input that is due because a further result of the same chunk is asked for."""
        if self._inputs.go_on:
            self._take_one()
        if self._held and not self._keeps_back():
            self._submit_held(consumer=True)

    def _keeps_back(self) -> bool:
        """Return whether what is taken may be held until the next chunk of results is asked for."""
        each = self._pace.seconds
        return each is not None and each < LONG and self._inputs.go_on and not self._permit.ended

    # ---- for the executor ----------------------------------------------------------------------------------

    def submit_rest(self, *, wait: bool = True) -> bool:
        """Submit what is held: soon nothing can be submitted any more.

        wait: for another thread that submits for this map. Return whether there was none that had to be waited for.
        """
        self._closing = True
        self._permit.end()
        self._turns.wanted = True
        if self._turns.is_interrupted:
            self._chunks.let_go()  # this code may wait for the pool's end, and the turn cannot end before it
        return self._submit_held(consumer=False, wait=wait)

    def stop_submitting(self, failure: BaseException | None) -> None:
        """Submit no more calls. The consumer gets `failure` in the place of their results. Takes no lock."""
        chunks, cancels = self._chunks, isinstance(failure, concurrent.futures.CancelledError)
        if self._held or self._inputs.go_on or not cancels:
            chunks.failure = chunks.failure or failure  # otherwise there is nothing to cancel
        chunks.is_cancelled = chunks.is_cancelled or cancels
        self._stopped = True
        self._permit.end()
        self._held.clear()

    def forget_in_forked_child(self) -> None:
        """Stop, in a forked child: the parent goes on with this map."""
        self._turns.forget_in_forked_child()
        self._chunks.forget_pool()
        self._inputs.go_on = False
        failure = InheritedFutureError("this map was under way when its process was forked: the parent goes on")
        self.stop_submitting(failure)

    # ---- submitting ----------------------------------------------------------------------------------------

    def _submit_held(self, *, consumer: bool, wait: bool = True) -> bool:
        """Submit what is due of what is held, when it is this thread's turn. Return whether it had the turn.

        consumer: this is the consumer, who is about to ask for results. wait: for the turn.
        """
        submitter = self._find_submitter()  # held until the turn is over, so that no other thread's pool ends in it
        return self._turns.take(partial(self._submit_due, submitter, consumer), self._turn_failed, wait=wait)

    def _turn_failed(self, error: BaseException) -> None:
        self.stop_submitting(error)
        self._chunks.let_go_if_over()

    def _submit_due(self, submitter: Submitter | None, consumer: bool) -> None:
        """Submit what is due of what is held. It is the caller's turn."""
        held, most, chunks = self._held, sys.maxsize if consumer or self._closing else AT_ONCE, self._chunks
        if chunks.ended:
            chunks.settle_ended(self._chunk_ended)
        while held and most and not self._stopped:
            size, listens = self._next_size(consumer)
            if not size:
                break
            calls: Sequence[Any] = held[:size]
            del held[:size]
            if not self._starred:
                calls = list(chain.from_iterable(calls))
            first = self._submitted
            self._submitted += len(calls)
            most -= 1
            try:
                way = submitter or self._pool  # the pool, if the executor was collected in the meantime
                if way is not None:  # otherwise the consumer has left meanwhile
                    publishes = self._is_worth_publishing(size)
                    how: dict[str, Any] = {"publishes": publishes, "listens": listens or not self.entries.is_ordered}
                    for entry in chunks.submit(way, first, calls, self._chunk_ended, **how):
                        self._enter(entry)
            except Exception as error:
                self.stop_submitting(error)
                if interruptible.is_of_handler(error) or (consumer and not self._comes_last(error)):
                    raise
        if chunks.is_left:
            chunks.cancel()
        chunks.let_go_if_over()

    def _next_size(self, consumer: bool) -> tuple[int, bool]:
        """Return the number of calls of the next chunk, 0 if it is not due, and whether its end is to be told."""
        if self._fixed_size is not None:
            return self._next_of_fixed_size(self._fixed_size, consumer), False
        pace, held, each, largest = self._pace, len(self._held), self._pace.seconds, self._share
        if each is not None and 2 * largest * each < WAKING:
            largest *= 2  # a worker that waits for its next chunk costs less than to wake it twice as often
        size = self._submission.at_most(min(pace.next(None), largest))
        more = held > size
        if self._closing:
            return size, False
        if each is None:
            return (1 if self._chunks.count_running() < self._max_running else 0), True
        if each >= LONG:
            return 1, more
        grows = size < largest and pace.grows
        if grows and self._chunks.count_running() >= self._max_running:
            return 0, False
        listens = self._starting or (more and (grows or not consumer))
        if held >= size or not self._inputs.go_on:
            return size, listens
        if not (consumer and self.entries.is_first_done) and self._chunks.count_running() < self._workers:
            return size, listens
        return 0, False

    def _next_of_fixed_size(self, size: int, consumer: bool) -> int:
        """Return the number of calls of the next chunk: all that it may have, unless nothing comes before it."""
        size, held = self._submission.at_most(size), len(self._held)
        due = held >= size or self._closing or not self._inputs.go_on or (consumer and self.entries.are_claimed)
        return min(held, size) if due else 0

    def _is_worth_publishing(self, size: int) -> bool:
        """Return whether so many calls take so long that each result may be published at once."""
        each = self._pace.seconds
        return each is not None and size > 1 and self._pace.is_worth_publishing and size * each >= PUBLISHED_FROM

    def _enter(self, entry: Entry) -> None:
        """Have the consumer ask for a chunk. It is the caller's turn."""
        if isinstance(entry, Piece) and entry.kind is not Kind.EACH:
            entry.calls = ()  # they live as long as the task, and not until the results are taken
        self.entries.add((entry,))

    def _chunk_ended(self, future: concurrent.futures.Future[Any]) -> None:
        """Note how long a chunk took, and submit more. Called in the pool thread, by the chunk's future."""
        chunks = self._chunks
        piece = chunks.running.get(future)
        if piece is not None and piece.kind is Kind.EACH:
            chunks.ended.append(piece)
        elif piece is not None:  # otherwise the consumer has noted it meanwhile
            if not future.cancelled() and future.exception() is None:
                chunks.note(piece)
            self.entries.complete(piece)
        if self._held or chunks.ended:
            self._turns.wanted = True
            self._submit_held(consumer=False, wait=False)

    # ---- results -------------------------------------------------------------------------------------------

    def results(self, deadline: float | None) -> Iterator[Any]:
        """Return an iterator over the results.

        When it is closed, and when a call fails, the chunks that no worker has begun are cancelled.
        """
        inputs = self._inputs
        try:
            while (taken := next_results(self, deadline)) is not None:
                results, error = taken
                del taken
                results.reverse()
                if results:  # its input was taken when the chunk was asked for
                    yield results.pop()
                while results:  # keeps no reference to a result that is given
                    count = len(results)
                    if not inputs.go_on:
                        yield from starmap(results.pop, repeat((), count))
                    elif self._keeps_back():
                        try:
                            yield from inputs.give_while_taking(results)
                        except Exception as raised:
                            if not inputs.note_end(count, len(results), raised):
                                raise  # it was thrown into this iterator
                        else:
                            inputs.note_end(count, len(results))
                    else:
                        self.step()
                        yield results.pop()
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
        if isinstance(entry, Piece) and entry.kind is not Kind.EACH and entry.future.exception() is None:
            self._chunks.note(entry)
        taken = self._chunks.take(entry, partial(self._submit_held, consumer=False))
        if taken[0]:
            self._has_taken = False  # for the next result; the input for the first of these was taken
        return taken

    def next_entry(self, deadline: float | None = None) -> Entry | None:
        """Take the input that is due, and return the chunk whose results are the next. None: there are no more.

        Raises:
            TimeoutError: the deadline, in time.monotonic()'s seconds, has passed.
            BaseException: whatever has prevented further calls from being submitted, or inputs from being taken.
        """
        return self.entries.claim(deadline) if self.prepare() else None

    def prepare(self) -> bool:
        """Take the input that is due, and return whether there is an entry to be claimed.

        Raises:
            BaseException: as `next_entry`.
        """
        if self._inputs.go_on and not self._has_taken:
            self._take_one()
            self._has_taken = True
        entries, chunks = self.entries, self._chunks
        if self._held or entries.are_claimed:
            # Also waits until a thread that submits has entered what it has submitted.
            self._submit_held(consumer=True)
        if not entries.are_claimed:
            return True
        failure = chunks.failure or self._inputs.failure
        chunks.failure = self._inputs.failure = None
        try:
            if failure is not None:
                raise failure
        finally:
            del failure  # its traceback holds this frame
        return False

    def cancel(self) -> None:
        """Submit and run no more calls. Any thread, at any point: the garbage collector may close the iterator."""
        self.stop_submitting(None)
        self._pool = None  # an exception's traceback may hold this map for long
        self._chunks.is_left = True
        self._chunks.cancel()
        self._turns.wanted = True
        self._submit_held(consumer=False, wait=False)  # which lets the pool go, if there is nothing left to wait for
