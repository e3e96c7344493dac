"""`map` with a `buffersize`, whose chunks the pool sizes itself: the inputs, their chunks and their results.

A `BoundedMap` belongs to one map. It takes `buffersize` inputs at once, and one more whenever a result is asked for,
in the consumer's thread, as the standard library's map does. Inputs that were taken are *held* until there are enough
of them for a chunk. How many that are depends on how long the calls take, as far as that was measured
(`chunk_sizes`):

* Not measured: some calls are submitted, each as a chunk. The others are held until one of these has ended.
* `LONG` seconds or longer: each call is a chunk, and is submitted at once. So no call waits for another, and a death
  costs the one call that ran.
* Shorter: as many calls as take a few milliseconds, and at most an even share of the buffer, are a chunk. It is
  submitted with fewer only if a worker would be idle, or if the consumer would wait for it.

The consumer submits these chunks, in between two chunks of results. While it gives out the results of one, iterators
of C do all the work. The futures of these chunks have no callbacks. So the consumer reads the channels itself when it
waits (`loop.leader`), and the pool thread, which would hardly get the interpreter's lock, has nothing to do. Only
where more is held than the consumer may keep back, a chunk's future has a callback, in which the pool thread submits
more.

What is held must not be forgotten. It is submitted before the executor or the interpreter shuts down (`submit_rest`).
If nobody holds the executor any more, the pool's own thread has that done, and no further input is taken.
"""

from __future__ import annotations

import concurrent.futures
import queue
import sys
import time
from collections import deque
from functools import partial
from itertools import chain, compress, filterfalse, islice, repeat, starmap
from typing import TYPE_CHECKING, Any

from pidfdpool.errors import InheritedFutureError
from pidfdpool.executor import lifecycle, map_chunks
from pidfdpool.executor.chunk_sizes import Pace
from pidfdpool.executor.futures import Future
from pidfdpool.executor.map_chunks import CHUNKS_PER_WORKER, ChunkSubmission, Turns, UnsentCall, unpack_results
from pidfdpool.loop import chunk_calls, held_arguments
from pidfdpool.loop.task import unwrapped
from pidfdpool.process import interruptible
from pidfdpool.typed import Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import TypeAlias

    from pidfdpool.loop.chunk_calls import Chunk
    from pidfdpool.loop.pool import Pool
    from pidfdpool.scheduler.policy import Policy
    from pidfdpool.transport.framing import Buffer

    Outcome: TypeAlias = tuple[Any, list[Buffer] | None, float]
    Entry: TypeAlias = "concurrent.futures.Future[Any] | UnsentCall"

LONG = 0.0001  # seconds of a call that is worth a task of its own: several times what a task costs
AT_ONCE = 32  # chunks that are submitted in one turn, if nobody waits for what comes behind them
QUICK = 0.0005  # seconds: as long as inputs are taken that quickly, more are taken between two looks at the workers


class Submitter(map_chunks.Submitter, Protocol):
    """What submits calls. A map keeps it alive only while it submits."""

    _policy: Policy

    def _submitter_ref(self, lost: Callable[[Any], object] | None = None) -> Callable[[], Submitter | None]:
        """Return a weak reference: what it returns is None when nobody else holds the executor any more.

        lost: called then, in any thread, at any point.
        """


class Permit:
    """Whether the consumer may take inputs without looking further. Ended by any thread, at any point."""

    def __init__(self) -> None:
        self.ended: bool = False
        self.left: Any = iter([])  # an iterator with an item for each input that may be taken next

    def end(self, _reference: object = None) -> None:
        """Have the consumer look around before it takes another input."""
        self.ended = True
        self.left.__setstate__(sys.maxsize)  # sets the iterator of a list to its end


class BoundedMap:
    """One map: its inputs, the chunks that were submitted, and the results that are not taken yet.

    Thread-safe, except for the iterator that `results` returns, and for `next_entry`, `noted` and `step`: only one
    consumer may use these.
    """

    def __init__(
        self,
        submitter: Submitter,
        function: Callable[..., Any],
        iterables: tuple[Iterable[Any], ...],
        buffersize: int,
        *,
        ordered: bool,
    ) -> None:
        """Take the first inputs, and submit some of them.

        Raises:
            PoolBroken, RuntimeError: as `submit`.
        """
        self._starred = len(iterables) != 1
        self._held: list[tuple[Any, ...]] = []
        # Takes an input, appends it to those that are held, and yields it.
        self._inputs: Iterator[tuple[Any, ...]] = filterfalse(self._held.append, zip(*iterables, strict=False))
        self._takes = True  # there may be further inputs, and they are to be taken
        self._buffersize = buffersize
        self._permit = Permit()
        self._find_submitter = submitter._submitter_ref(self._permit.end)
        self._policy = submitter._policy
        self._turns = Turns()
        self._pool: Pool | None = None
        self._submitted = 0  # how many of the calls
        self._stopped = False  # no more calls are to be submitted
        self._left = False  # nobody takes the results any more
        self._closing = False  # soon nothing can be submitted any more
        self._failure: BaseException | None = None  # what the consumer gets behind the last result
        # Chunks, with the number of their calls and the bytes of these: those whose time was not noted yet.
        self._running: dict[concurrent.futures.Future[Any], tuple[int, int]] = {}
        self._listens = True  # whether the end of the chunk that is submitted is to be told
        # The results that are not taken yet: in the order of the calls, or as they come.
        self._entries: deque[Entry] = deque()
        self._completed: queue.SimpleQueue[Entry] | None = None if ordered else queue.SimpleQueue()
        self._entered = 0  # how many chunks there were; changed in a turn only
        self._claimed = 0  # how many of them the consumer has asked for; changed by the consumer only
        try:
            if self._take(1):
                self._start(submitter, function)
        except BaseException:
            self.cancel()
            raise

    def _start(self, submitter: Submitter, function: Callable[..., Any]) -> None:
        workers, pool = submitter._register_map(self)
        self._workers, self._pool = workers, pool
        self._max_running = CHUNKS_PER_WORKER * workers  # while chunks are small only because little was measured
        self._largest = max(1, self._buffersize // self._max_running)
        self._pace = Pace(workers)
        self._starting = True
        self._submission = ChunkSubmission(function, starred=self._starred, pool=pool)
        unsent = self._submission.pickle_function()
        if unsent is not None:
            self._enter(unsent, (), 0)
            self.stop_submitting(None)
            self._takes = False
            return
        left, batch = self._buffersize - 1, 1
        while True:
            self._submit_held(consumer=False)
            if not (left and self._takes):
                break
            began = time.monotonic()
            left -= self._take(min(batch, left))
            # Calls are to run while inputs that are slow to come are waited for.
            batch = batch * 2 if time.monotonic() - began < QUICK else 1
        self._starting = False
        if self._stopped and self._failure is not None and not self._entered:
            raise self._failure

    # ---- inputs --------------------------------------------------------------------------------------------

    def _take(self, count: int) -> int:
        """Take up to so many inputs; return how many there were. An error of theirs comes behind the results."""
        taken = 0
        try:
            for _ in islice(self._inputs, count):
                taken += 1
        except Exception as error:
            self._end_inputs(error)
        else:
            if taken < count:
                self._end_inputs(None)
        return taken

    def _end_inputs(self, error: Exception | None) -> None:
        self._takes = False
        self._inputs = iter(())  # which keep the last input
        if error is not None:
            trace = error.__traceback__
            # Without the frame of this map, which would hold the map, which holds the error.
            self._failure = error.with_traceback(None if trace is None else trace.tb_next)

    def _take_one(self) -> None:
        """Take the input that is due because a result is asked for."""
        lifecycle.detect_fork()
        submitter = self._find_submitter()
        if submitter is None or not self._takes:
            self._takes = False
        elif self._take(1) and self._permit.ended:
            try:
                submitter._register_map(self)  # raises if nothing can be submitted any more
            except concurrent.futures.BrokenExecutor as error:
                self.stop_submitting(error)
            if self._stopped:
                self._takes = False

    def step(self) -> None:
        """Take the input that is due because a further result of the same chunk is asked for."""
        if self._takes:
            self._take_one()
        if self._held and not self._keeps_back():
            self._submit_held(consumer=True)

    def _keeps_back(self) -> bool:
        """Return whether what is taken may be held until the next chunk of results is asked for."""
        each = self._pace.seconds
        return each is not None and each < LONG and self._takes and not self._permit.ended

    # ---- for the executor ----------------------------------------------------------------------------------

    def submit_rest(self, *, wait: bool = True) -> bool:
        """Submit what is held: soon nothing can be submitted any more.

        wait: for another thread that submits for this map. Return whether there was none that had to be waited for.
        """
        self._closing = True
        self._permit.end()
        self._turns.wanted = True
        return self._submit_held(consumer=False, wait=wait)

    def stop_submitting(self, failure: BaseException | None) -> None:
        """Submit no more calls. The consumer gets `failure` in the place of their results. Takes no lock."""
        self._failure = self._failure or failure
        self._stopped = True
        self._permit.end()
        self._held.clear()

    def forget_in_forked_child(self) -> None:
        """Stop, in a forked child: the parent goes on with this map."""
        self._turns.forget_in_forked_child()
        self._takes = False
        self.stop_submitting(
            InheritedFutureError("this map was under way when its process was forked: the parent goes on")
        )

    # ---- submitting ----------------------------------------------------------------------------------------

    def _submit_held(self, *, consumer: bool, wait: bool = True) -> bool:
        """Submit what is due of what is held, when it is this thread's turn. Return whether it had the turn.

        consumer: this is the consumer, who is about to ask for results. wait: for the turn.
        """
        submitter = self._find_submitter()  # held until the turn is over, so that no other thread's pool ends in it
        submit = self._submit_without_executor if submitter is None else submitter.submit
        return self._turns.take(partial(self._submit_due, submit, consumer), self.stop_submitting, wait=wait)

    def _submit_due(self, submit: Callable[..., concurrent.futures.Future[Any]], consumer: bool) -> None:
        """Submit what is due of what is held. It is the caller's turn."""
        held, most = self._held, sys.maxsize if consumer or self._closing else AT_ONCE
        while held and most and not self._stopped:
            size, self._listens = self._next_size(consumer)
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
                self._submission.submit(submit, first, calls, self._enter)
            except Exception as error:
                self.stop_submitting(error)
                if consumer and not isinstance(error, concurrent.futures.BrokenExecutor):
                    raise
        if self._stopped and self._left:
            self._cancel_submitted()

    def _next_size(self, consumer: bool) -> tuple[int, bool]:
        """Return the number of calls of the next chunk, 0 if it is not due, and whether its end is to be told."""
        pace, held, each = self._pace, len(self._held), self._pace.seconds
        size = min(pace.next(None), self._largest)
        more = held > size
        if self._closing:
            return size, False
        if each is None:
            return (1 if self._count_running() < self._max_running else 0), True
        if each >= LONG:
            return 1, more
        grows = size < self._largest and pace.grows
        if grows and self._count_running() >= self._max_running:
            return 0, False
        listens = self._starting or (more and (grows or not consumer))
        if held >= size or not self._takes:
            return size, listens
        if self._completed is None:
            waits = not self._entries or not self._entries[0].done()
        else:
            waits = self._completed.empty()
        if (waits or not consumer) and self._count_running() < self._workers:
            return size, listens
        return 0, False

    def _count_running(self) -> int:
        return sum(not future.done() for future in list(self._running))

    def _enter(self, entry: Entry, calls: Sequence[Any], size: int) -> None:
        """Have the consumer ask for a chunk. It is the caller's turn."""
        unsent = isinstance(entry, UnsentCall)
        if not isinstance(entry, UnsentCall):
            self._running[entry] = len(calls), size
        if self._completed is None:
            self._entries.append(entry)
        elif unsent:
            self._completed.put(entry)
        self._entered += 1  # not before: the consumer looks at it without a turn
        if not isinstance(entry, UnsentCall) and (self._listens or self._completed is not None):
            entry.add_done_callback(self._chunk_ended)

    def _submit_without_executor(self, chunk: Chunk, *arguments: Any) -> Future[Any]:
        """Submit a chunk to the pool, as an executor would that was collected in the meantime."""
        pool, call = self._pool, unwrapped(chunk, arguments, {})
        if pool is None:
            raise concurrent.futures.CancelledError  # the consumer has left meanwhile
        pool.check_open()
        future: Future[Any] = Future()
        buffers = pool.leases.pickled(call, pool.recipe.shared_main)
        pool.submit(future, buffers, chunk, self._policy, held_arguments.held(call, buffers), wait=True)
        return future

    def _chunk_ended(self, future: concurrent.futures.Future[Any]) -> None:
        """Note how long a chunk took, and submit more. Called in the pool thread, by the chunk's future."""
        if not future.cancelled() and future.exception() is None:
            self.noted(future, future.result())
        if self._completed is not None:
            self._completed.put(future)
        if self._held:
            self._turns.wanted = True
            self._submit_held(consumer=False, wait=False)

    def noted(self, future: concurrent.futures.Future[Any], outcome: Outcome) -> Outcome:
        """Note how long the calls of a chunk took, unless that was noted before; return its outcome."""
        known = self._running.pop(future, None)
        if known is not None:
            self._pace.note(known[0], outcome[2], known[1])
        return outcome

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
                if results:  # its input was taken when the chunk was asked for
                    yield results.pop()
                # Keeps no reference to a result that is given.
                while results:
                    count = len(results)
                    if not self._takes:
                        yield from starmap(results.pop, repeat((), count))
                    elif self._keeps_back():
                        try:
                            yield from self._while_taking(results)
                        except Exception as raised:
                            if not self._input_has_raised(count, count - len(results)):
                                raise  # it was thrown into this iterator
                            self._end_inputs(raised)
                        else:
                            if results and not self._permit.ended:
                                self._end_inputs(None)
                    else:
                        self.step()
                        yield results.pop()
                if error is not None:
                    try:
                        raise error
                    finally:
                        del error  # its traceback holds this frame
        finally:
            self.cancel()

    def _while_taking(self, results: list[Any]) -> Iterator[Any]:
        """Return an iterator that takes an input, and then yields the last of the results, until one of them ends."""
        permit = self._permit
        permit.left = iter([()] * len(results))
        if permit.ended:  # meanwhile; so whoever ends it from now on finds this iterator
            permit.end()
        return starmap(results.pop, compress(permit.left, self._inputs))

    def _input_has_raised(self, count: int, given: int) -> bool:
        """Return whether another input was asked for than those of the results that were given."""
        begun: int = count - self._permit.left.__length_hint__()
        return begun > given

    def _next_results(self, deadline: float | None) -> tuple[list[Any], BaseException | None] | None:
        """Return the next results, and the error that ended them, if one did. None: there are no more."""
        entry = self.next_entry(deadline)
        if entry is None:
            return None
        if isinstance(entry, UnsentCall):
            return [], entry.error
        try:
            left = None if deadline is None else deadline - time.monotonic()
            return unpack_results(self.noted(entry, entry.result(left)))
        except Exception as error:
            chunk_calls.describe(error)
            raise
        finally:
            entry.cancel()  # does something only if waiting for it has failed
            del entry  # an exception's traceback holds this frame, and the future holds the exception

    def next_entry(self, deadline: float | None = None) -> Entry | None:
        """Take the input that is due, and return the chunk whose results are the next. None: there are no more.

        Raises:
            TimeoutError: the deadline, in time.monotonic()'s seconds, has passed.
            BaseException: whatever has prevented further calls from being submitted, or inputs from being taken.
        """
        if self._takes:
            self._take_one()
        if self._held or self._claimed == self._entered:
            # Also waits until a thread that submits has entered what it has submitted.
            self._submit_held(consumer=True)
        if self._claimed == self._entered:
            failure, self._failure = self._failure, None
            try:
                if failure is not None:
                    raise failure
            finally:
                del failure  # its traceback holds this frame
            return None
        self._claimed += 1
        if self._completed is None:
            return self._entries.popleft()
        try:
            return interruptible.get(self._completed, None if deadline is None else deadline - time.monotonic())
        except queue.Empty:
            raise TimeoutError from None

    def cancel(self) -> None:
        """Submit and run no more calls. Any thread, at any point: the garbage collector may close the iterator."""
        self.stop_submitting(None)
        self._left, self._pool = True, None  # an exception's traceback may hold this map for long
        self._cancel_submitted()

    def _cancel_submitted(self) -> None:
        for future in list(self._running):
            future.cancel()
