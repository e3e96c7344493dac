"""`map` whose chunks the pool sizes itself, as the calls are measured: the calls, their chunks and their results.

An `AdaptiveMap` belongs to one map. It copies all its calls at once, as the standard library's map does, and submits
them in chunks, `CHUNKS_PER_WORKER` for each worker. When a chunk ends, the next is submitted. So the size of each
chunk is decided as late as possible, with all measurements so far (`chunk_sizes`), and a call that is not submitted
yet costs no more than its arguments. The next chunk is submitted by the pool thread, in a callback of the future of
the chunk that has ended. So all calls run, whether or not anybody takes the results.

Tasks can be submitted only while the pool accepts them. So before the executor or the interpreter shuts down, all
remaining calls are submitted at once (`submit_rest`).

One thread at a time submits chunks (`Turns`).
"""

from __future__ import annotations

import queue
import time
from collections import deque
from functools import partial
from itertools import chain, repeat, starmap
from typing import TYPE_CHECKING, Any

from pidfdpool.errors import InheritedFutureError
from pidfdpool.executor.chunk_sizes import Pace
from pidfdpool.executor.map_chunks import CHUNKS_PER_WORKER, ChunkSubmission, Turns, UnsentCall, unpack_results
from pidfdpool.loop import chunk_calls
from pidfdpool.process import interruptible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from concurrent.futures import Future

    from pidfdpool.executor.map_chunks import Submitter


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
        self._running: dict[
            Future[Any], Sequence[Any]
        ] = {}  # chunks, with their calls, which are to live until they have run
        # The results that are not taken yet: in the order of the calls, or as they come.
        self._entries: deque[Future[Any] | UnsentCall] = deque()
        self._completed: queue.SimpleQueue[Future[Any] | UnsentCall] | None = None if ordered else queue.SimpleQueue()
        self._remaining = 0  # how many chunks are still to be taken
        self._submitter: Submitter | None = None
        if self._calls:
            self._start(submitter, function)

    def _start(self, submitter: Submitter, function: Callable[..., Any]) -> None:
        workers, pool = submitter._register_map(self)
        # Until all is submitted, so that a map runs to its end though nobody else holds the executor.
        self._submitter = submitter
        self._max_running = CHUNKS_PER_WORKER * workers
        self._pace = Pace(workers)
        self._submission = ChunkSubmission(function, starred=self._starred, pool=pool)
        unsent = self._submission.pickle_function()
        if unsent is not None:
            self._add_entry(unsent)
            self.stop_submitting(None)
            return
        self._submit_more(wait=True)
        if self._failure is not None and not self._remaining:
            raise self._failure

    # ---- for the executor ----------------------------------------------------------------------------------

    def submit_rest(self, *, wait: bool = True) -> bool:
        """Submit all remaining calls: soon nothing can be submitted any more. As `open_maps.Map` has it."""
        self._max_running = self._count
        self._turns.wanted = True
        return self._submit_more(wait=wait)

    def stop_submitting(self, failure: BaseException | None) -> None:
        """Submit no more calls. The consumer gets `failure` in the place of their results. Takes no lock."""
        self._failure = self._failure or failure
        self._stopped = True

    def forget_in_forked_child(self) -> None:
        """Stop, in a forked child: the parent goes on with this map."""
        self._turns.forget_in_forked_child()
        self.stop_submitting(
            InheritedFutureError("this map was under way when its process was forked: the parent goes on")
        )

    # ---- submitting ----------------------------------------------------------------------------------------

    def _submit_more(self, *, wait: bool = False) -> bool:
        """Submit as many chunks as may run, when it is this thread's turn. wait: wait for the turn."""
        return self._turns.take(self._submit_chunks, self.stop_submitting, wait=wait)

    def _submit_chunks(self) -> None:
        """Submit chunks until enough of them run. It is the caller's turn."""
        if not self._stopped:
            # A consumer may have a chunk's results before its future has called `_chunk_ended`.
            for future in [future for future in list(self._running) if future.done()]:
                self._running.pop(future, None)
        while not self._stopped and len(self._running) < self._max_running:
            first = self._submitted
            calls = self._calls[first : first + self._pace.next(self._count - first)]
            self._submitted += len(calls)
            self._submit_chunk(first, calls)
            if self._submitted >= self._count:
                self.stop_submitting(None)
        if self._stopped:
            self._calls = ()
            self._submitter = None  # this map does not keep the executor alive any more
        if self._consumer_left:
            self._cancel_submitted()

    def _submit_chunk(self, first: int, calls: Sequence[Any]) -> None:
        """Submit some calls as one task. first: the index in the map of the first of them."""
        assert self._submitter is not None
        try:
            self._submission.submit(self._submitter.submit, first, calls, self._enter)
        except Exception as error:
            self.stop_submitting(error)

    def _enter(self, entry: Future[Any] | UnsentCall, calls: Sequence[Any], size: int) -> None:
        if isinstance(entry, UnsentCall):
            self._add_entry(entry)
            return
        self._running[entry] = calls
        self._remaining += 1
        if self._completed is None:
            self._entries.append(entry)
        entry.add_done_callback(partial(self._chunk_ended, len(calls), size))

    def _add_entry(self, entry: UnsentCall) -> None:
        self._remaining += 1
        if self._completed is None:
            self._entries.append(entry)
        else:
            self._completed.put(entry)

    def _chunk_ended(self, calls: int, size: int, future: Future[Any]) -> None:
        """Note how long a chunk took, and submit the next. Called in the pool thread, by the chunk's future."""
        self._running.pop(future, None)
        if not future.cancelled() and future.exception() is None:
            self._pace.note(calls, future.result()[2], size)
        self._turns.wanted = True
        if self._completed is not None:
            self._completed.put(future)
        self._submit_more()

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
        if isinstance(entry, UnsentCall):
            return [], entry.error
        try:
            left = None if deadline is None else deadline - time.monotonic()
            return unpack_results(entry.result(left))
        except Exception as error:
            chunk_calls.describe(error)
            raise
        finally:
            entry.cancel()  # does something only if waiting for it has failed
            del entry  # an exception's traceback holds this frame, and the future holds the exception

    def next_entry(self, deadline: float | None = None) -> Future[Any] | UnsentCall | None:
        """Return the chunk whose results are the next. None: there are no more.

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

    def _cancel_submitted(self) -> None:
        for future in list(self._running):
            future.cancel()


def _length_of(calls: Sequence[Any]) -> int:
    """Return the number of calls. len() fails for a range of more than sys.maxsize."""
    if isinstance(calls, range):
        return calls.index(calls[-1]) + 1 if calls else 0
    return len(calls)
