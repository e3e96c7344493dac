"""`map` with chunks that the pool sizes itself: what is left to be called, and what came of the calls.

A `Guided` belongs to one map. All its calls are taken in at once, as by the standard library's map, and handed out in
chunks, `AHEAD` for each worker; as one is finished the next follows. So the size of each is decided as late as
possible, with everything measured before (`chunk_sizes`), and what has not been handed out costs no more than its
arguments. It is the pool thread that goes on, as a callback of each chunk's future: all calls are made, whether or
not anybody takes the results.

Tasks can be submitted only while the pool accepts them. So before the executor shuts down, or the interpreter, what
is left is handed out at once (`finish`).

One lock is held to hand out. The pool thread never waits for it: it leaves the work to who has it, who looks again
after giving it back.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from contextvars import copy_context
from functools import partial
from itertools import chain, repeat, starmap
from typing import TYPE_CHECKING, Any

from pidfdpool.errors import InheritedFutureError, PayloadError
from pidfdpool.executor.chunk_sizes import Pace
from pidfdpool.executor.unsendable import explained
from pidfdpool.loop import chunk_calls, outcomes
from pidfdpool.loop.chunk_calls import Chunk
from pidfdpool.process import describe, interruptible
from pidfdpool.serialization import kept_definitions, payload
from pidfdpool.serialization.out_of_band import OutOfBandPickle
from pidfdpool.typed import Protocol
from pidfdpool.worker.chunk import call_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from concurrent.futures import Future

    from pidfdpool.transport.framing import Buffer

AHEAD = 2  # chunks for each worker: one that runs, one that waits


class Submitter(Protocol):
    """What submits: an executor, or a view of one with options."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Submit a call."""

    def _note_map(self, guided: Guided) -> tuple[int, payload.SharedMain | None]:
        """Take note of a map with calls to hand out; return the number of workers, and what they share with us."""


class Refused:
    """Stands where the result of a call would be that was not handed out, because it does not pickle."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


class Guided:
    """One map: its calls, the chunks that were handed out, and what is still to be taken.

    Thread-safe but for the iterator that `results` returns, which is one consumer's.
    """

    def __init__(
        self,
        submitter: Submitter,
        function: Callable[..., Any],
        iterables: tuple[Iterable[Any], ...],
        *,
        ordered: bool,
    ) -> None:
        """Take the calls in and hand the first of them out.

        Raises:
            PoolBroken, RuntimeError: as `submit`.
        """
        self._starred = len(iterables) != 1
        calls: Iterable[Any] = zip(*iterables, strict=False) if self._starred else iterables[0]
        # What is taken in is a copy, because the caller may change the original; but nobody can change a range.
        # A chain has no length of its own, and asks nobody for theirs: they may lie, or raise.
        self._calls: Sequence[Any] = calls if isinstance(calls, range) else list(chain(calls))
        self._count = _length(self._calls)
        self._at = 0  # how many of them were handed out
        self._lock = threading.RLock()  # to hand out; tells whether a signal handler has interrupted that
        self._context = copy_context()  # for the code of arguments that are pickled later, in the pool thread
        self._halted = not self._calls  # no more is to be handed out
        self._failure: BaseException | None = None  # why not, if that is an error
        self._abandoned = False  # nobody wants the results
        self._running: dict[Future[Any], Sequence[Any]] = {}  # and their calls, which are to live until they are made
        self._asked = False  # a chunk has ended since somebody looked
        self._entries: deque[Future[Any] | Refused] = deque()  # to be taken in this order; or as they come:
        self._arrived: queue.SimpleQueue[Future[Any] | Refused] | None = None if ordered else queue.SimpleQueue()
        self._untaken = 0  # of those that arrived or will
        self._submitter: Submitter | None = None
        self._called = function
        self._held: list[Any] = []  # definitions that its calls may come upon
        self._name = describe.name_of(function)
        if self._calls:
            self._begin(submitter, function)

    def _explained(self, error: Exception, arguments: tuple[Any, ...]) -> Exception:
        return explained(error, self._called, arguments, {}, self._shared)

    def _begin(self, submitter: Submitter, function: Callable[..., Any]) -> None:
        workers, self._shared = submitter._note_map(self)
        self._submitter = submitter  # a map that nobody else holds is made to its end
        self._most = AHEAD * workers
        self._pace = Pace(workers)
        try:
            self._function = payload.dumps(function, self._shared)[0]
            self._held = kept_definitions.definitions_for_task()
        except Exception as error:
            self._enter(Refused(self._explained(error, ())))
            self.halt(None)
            return
        self._go_on(wait=True)
        if self._failure is not None and not self._untaken:
            raise self._failure

    # ---- for the executor ----------------------------------------------------------------------------------

    def finish(self) -> None:
        """Hand out everything that is left, because soon nothing can be submitted any more."""
        self._most = self._count
        self._go_on(wait=True)

    def halt(self, failure: BaseException | None) -> None:
        """Hand out no more, and have the consumer told why where the results would have been. Takes no lock."""
        self._failure = self._failure or failure
        self._halted = True

    def forget_in_forked_child(self) -> None:
        """Let go, in a copy of the process, of what the parent goes on with."""
        self._lock = threading.RLock()
        self.halt(InheritedFutureError("this map was under way when its process was forked: the parent goes on"))

    # ---- handing out ---------------------------------------------------------------------------------------

    def _go_on(self, *, wait: bool = False) -> None:
        """Hand out what there is room for. If another thread is at it, leave it to that thread, or wait and look.

        If it is this thread that is at it, and was interrupted, it goes on with that afterwards.
        """
        if self._lock._is_owned():  # type: ignore[attr-defined]
            self._asked = True
            return
        while (wait or self._asked) and (interruptible.acquire(self._lock) if wait else self._lock.acquire(False)):
            wait = self._asked = False
            try:
                self._context.run(self._hand_out)
            except BaseException as error:
                self.halt(error)  # some calls were taken out, and not handed out: the consumer must not miss them
                raise
            finally:
                self._lock.release()

    def _hand_out(self) -> None:
        """Submit chunks until enough of them run. The caller has the lock."""
        if not self._halted:
            # A consumer may have a result before the callback is made that would tell of it.
            for future in [future for future in list(self._running) if future.done()]:
                self._running.pop(future, None)
        while not self._halted and len(self._running) < self._most:
            first = self._at
            calls = self._calls[first : first + self._pace.next(self._count - first)]
            self._at += len(calls)
            self._submit(first, calls)
            if self._at >= self._count:
                self.halt(None)
        if self._halted:
            self._calls = ()
            self._submitter = None  # it may be collected, as far as this map is concerned
        if self._abandoned:
            self._cancel()

    def _submit(self, first: int, calls: Sequence[Any]) -> None:
        """Submit some calls as one task. first: which call of the map is the first of them."""
        assert self._submitter is not None
        try:
            buffers = OutOfBandPickle(calls, self._shared).buffers()
        except Exception as error:
            if len(calls) == 1:
                self._enter(Refused(self._explained(error, calls[0] if self._starred else (calls[0],))))
            else:  # those before the one that does not pickle are to run
                for index in range(len(calls)):
                    self._submit(first + index, calls[index : index + 1])
            return
        try:
            of_script = payload.needs_script([self._function]) or payload.needs_script([buffers[0].raw()])
            chunk = Chunk(call_all, self._name, first, calls, starred=self._starred, of_script=of_script)
            future = self._submitter.submit(chunk, self._function, buffers, self._starred)
        except BaseException as error:
            self.halt(error)
            if not isinstance(error, Exception):
                raise
            return
        size = sum(buffer.raw().nbytes for buffer in buffers)
        self._running[future] = calls
        self._untaken += 1
        if self._arrived is None:
            self._entries.append(future)
        future.add_done_callback(partial(self._chunk_ended, len(calls), size))

    def _enter(self, entry: Refused) -> None:
        self._untaken += 1
        if self._arrived is None:
            self._entries.append(entry)
        else:
            self._arrived.put(entry)

    def _chunk_ended(self, calls: int, size: int, future: Future[Any]) -> None:
        """Learn from a chunk and go on; in the pool thread, as a callback."""
        self._running.pop(future, None)
        if not future.cancelled() and future.exception() is None:
            self._pace.note(calls, future.result()[2], size)
        self._asked = True
        if self._arrived is not None:
            self._arrived.put(future)
        self._go_on()

    # ---- taking --------------------------------------------------------------------------------------------

    def results(self, deadline: float | None) -> Iterator[Any]:
        """Return an iterator over the results. Closing it, or failing, cancels what no worker has been given."""
        try:
            while (taken := self._take(deadline)) is not None:
                results, error = taken
                del taken
                results.reverse()
                # Each is let go of when it is given: by calls of C's, which take a third of the time of a loop.
                yield from starmap(results.pop, repeat((), len(results)))
                if error is not None:
                    try:
                        raise error
                    finally:
                        del error  # its traceback holds this frame
        finally:
            self.abandon()

    def _take(self, deadline: float | None) -> tuple[list[Any], BaseException | None] | None:
        """Return the next results and what came after them instead of one; None: that was all."""
        entry = self.next_entry(deadline)
        if entry is None:
            return None
        if isinstance(entry, Refused):
            return [], entry.error
        try:
            left = None if deadline is None else deadline - time.monotonic()
            return opened(entry.result(left))
        except Exception as error:
            chunk_calls.describe(error)
            raise
        finally:
            entry.cancel()  # if waiting for it ended otherwise
            del entry  # an exception's traceback holds this frame, and the future holds the exception

    def next_entry(self, deadline: float | None = None) -> Future[Any] | Refused | None:
        """Return whose results are to be taken next; None: that was all. Raises why it was not, if it was not."""
        if not self._entries:
            self._go_on(wait=True)  # after this, whoever was handing out has told what
        if not self._untaken:
            if self._failure is not None:
                raise self._failure
            return None
        self._untaken -= 1
        if self._arrived is None:
            return self._entries.popleft()
        try:
            return interruptible.get(self._arrived, None if deadline is None else deadline - time.monotonic())
        except queue.Empty:
            raise TimeoutError from None

    def abandon(self) -> None:
        """Have no more made. Any thread, at any point: the collector may close the iterator."""
        self.halt(None)
        self._abandoned = True
        self._cancel()

    def _cancel(self) -> None:
        for future in list(self._running):
            future.cancel()


def opened(outcome: tuple[Any, list[Buffer] | None, float]) -> tuple[list[Any], BaseException | None]:
    """Return the results of a chunk, and what its first failure was.

    Raises:
        PayloadError: the results cannot be rebuilt.
    """
    results, failure, _ = outcome
    if type(results) is tuple:  # they were rebuilt when they came
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


def _length(calls: Sequence[Any]) -> int:
    """Return how many calls there are: of a range that may be more than Python's own sizes can tell."""
    if isinstance(calls, range):
        return calls.index(calls[-1]) + 1 if calls else 0
    return len(calls)
