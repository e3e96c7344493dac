"""`map` and `map_unordered`. No argument and no result is kept longer than it is needed.

The part that runs in workers is `worker.chunk`. This part runs in the caller's thread, in the iterator. Chunks whose
size the pool chooses are in `adaptive_map` and `bounded_map`; here each has `chunksize` calls.
"""

from __future__ import annotations

import queue
import time
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any

from pidfdpool import checks
from pidfdpool.executor import map_submission
from pidfdpool.executor.adaptive_map import AdaptiveMap
from pidfdpool.executor.chunk_sizes import CHUNKS_PER_WORKER
from pidfdpool.loop import chunk_calls
from pidfdpool.loop.chunk_calls import Chunk
from pidfdpool.process import describe, interruptible
from pidfdpool.typed import Protocol
from pidfdpool.worker.chunk import call_each

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future

    from pidfdpool.executor.bounded_map import BoundedMap


class Submitter(map_submission.Submitter, Protocol):
    """What submits calls. A map keeps it alive only as long as there are calls to submit."""

    def _sizes_chunks(self) -> bool:
        """Return whether calls may share a task though no chunksize was given.

        Not if a subclass has its own `submit`: the pool thread would call it, and with chunks.
        """


class Source:
    """The calls of one map, as tasks of a fixed number of calls, and the way to submit them."""

    def __init__(
        self,
        submitter: Submitter,
        function: Callable[..., Any],
        iterables: tuple[Iterable[Any], ...],
        chunksize: int,
        *,
        named: bool = False,
    ) -> None:
        """named: errors of single calls are to name the call, as those of calls in chunks do."""
        calls: Iterator[tuple[Any, ...]] = zip(*iterables, strict=False)
        self._tasks: Iterator[Any] = _chunks(calls, chunksize) if chunksize > 1 else calls
        self.chunked: bool = chunksize > 1
        self._named = named
        chosen = submitter._policy.context_vars
        if chosen:
            from pidfdpool.executor.context_vars import in_context

            function = in_context(function, chosen)
        self._function = function
        self._name = describe.name_of(function)
        self._taken = 0  # how many calls were taken, if they are named
        self._failure: Exception | None = None  # what an iterable has raised
        # Weak, so that an executor which nobody holds can be collected though results are not taken yet.
        self._find_submitter = submitter._submitter_ref()

    def submit_all(self, submitter: Submitter) -> Iterator[Future[Any]]:
        """Submit all tasks, one for each step of the iterator."""
        return (self._submit(submitter, self._call(task)) for task in self._tasks)

    def submit_first(self, submitter: Submitter, count: int) -> Iterator[Future[Any]]:
        """Submit `count` tasks, one for each step of the iterator."""
        while count and (call := self._next_call()) is not None:
            yield self._submit(submitter, call)
            count -= 1

    def next(self) -> Future[Any] | None:
        """Submit one more task. None: there is none, or the executor was collected."""
        submitter = self._find_submitter()
        if submitter is None:
            return None
        call = self._next_call()
        return None if call is None else submitter.submit(call[0], *call[1])

    def raise_failure(self) -> None:
        """Raise what an iterable has raised, behind the results of what it had yielded before."""
        failure, self._failure = self._failure, None
        try:
            if failure is not None:
                raise failure
        finally:
            del failure  # its traceback holds this frame

    def next_call(self) -> tuple[Callable[..., Any], tuple[Any, ...]] | None:
        """Return the next task: a function and its arguments. None: there is none."""
        task = next(self._tasks, None)
        return None if task is None else self._call(task)

    def _next_call(self) -> tuple[Callable[..., Any], tuple[Any, ...]] | None:
        """As `next_call`, but an error of an iterable is kept, and nothing more is taken."""
        try:
            task = next(self._tasks, None)
        except Exception as error:
            self._tasks = iter(())
            self._failure = error
            return None
        if task is None:
            self._tasks = iter(())
            return None
        return self._call(task)

    def _call(self, task: Any) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        if self.chunked:
            chunk = Chunk(call_each, self._name, self._taken, task, func=self._function)
            self._taken += len(task)
            return chunk, (task,)
        if self._named:
            chunk = Chunk(self._function, self._name, self._taken, (task,))
            self._taken += 1
            return chunk, task
        return self._function, task

    def _submit(self, submitter: Submitter, call: tuple[Callable[..., Any], tuple[Any, ...]]) -> Future[Any]:
        return submitter.submit(call[0], *call[1])


def check_arguments(
    timeout: float | None, chunksize: int | None, buffersize: int | None
) -> tuple[float | None, int | None, int | None]:
    """Check the arguments of a map. Return its deadline, in time.monotonic()'s seconds, and both sizes.

    Raises:
        TypeError, ValueError: an argument makes no sense; the message names it and its value.
    """
    chunksize = checks.integer("chunksize", chunksize, least=1, optional=True, boolean=True)
    buffersize = checks.integer("buffersize", buffersize, optional=True, boolean=True)
    if buffersize is not None and buffersize < 1:
        raise ValueError(f"buffersize must be None or > 0, not {buffersize}")
    timeout = checks.wait_time("timeout", timeout)
    return None if timeout is None else time.monotonic() + timeout, chunksize, buffersize


def is_adaptive(submitter: Submitter, chunksize: int | None, buffersize: int | None) -> bool:
    """Return whether the pool sizes the chunks.

    Not if there is a chunksize or a limit of pending tasks. With a buffersize also not if the buffer is so small that
    an even share of it is a single call.
    """
    if chunksize is not None or not submitter._sizes_chunks():
        return False
    return buffersize is None or buffersize >= 2 * CHUNKS_PER_WORKER * submitter._policy.max_workers


def in_chunks_of_the_pool(
    submitter: Submitter,
    function: Callable[..., Any],
    iterables: tuple[Iterable[Any], ...],
    chunksize: int | None,
    buffersize: int | None,
    *,
    ordered: bool,
) -> AdaptiveMap | BoundedMap | None:
    """Begin a map whose chunks the pool sizes. None: it does not size them, and nothing has happened."""
    if not is_adaptive(submitter, chunksize, buffersize):
        return None
    if buffersize is None:
        return AdaptiveMap(submitter, function, iterables, ordered=ordered)
    # Loaded when it is needed, so that the first map of a process does not wait for it.
    from pidfdpool.executor.bounded_map import BoundedMap

    return BoundedMap(submitter, function, iterables, buffersize, ordered=ordered)


def ordered(
    submitter: Submitter,
    function: Callable[..., Any],
    iterables: tuple[Iterable[Any], ...],
    *,
    timeout: float | None,
    chunksize: int | None,
    buffersize: int | None,
) -> Iterator[Any]:
    """Submit all calls, or `buffersize` calls or chunks ahead, and return an iterator over the results, in order.

    timeout: seconds from this call until the iterator raises TimeoutError.
    """
    deadline, chunksize, buffersize = check_arguments(timeout, chunksize, buffersize)
    found = in_chunks_of_the_pool(submitter, function, iterables, chunksize, buffersize, ordered=True)
    if found is not None:
        return found.results(deadline)
    source, first = begin(submitter, function, iterables, chunksize, buffersize)
    futures = deque(first)
    results = _in_order(futures, deadline, source, more=buffersize is not None)
    return _flatten(results) if source.chunked else results


def unordered(
    submitter: Submitter,
    function: Callable[..., Any],
    iterables: tuple[Iterable[Any], ...],
    *,
    timeout: float | None,
    chunksize: int | None,
    buffersize: int | None,
) -> Iterator[Any]:
    """As `ordered`, but the iterator yields the results in the order in which they come."""
    deadline, chunksize, buffersize = check_arguments(timeout, chunksize, buffersize)
    found = in_chunks_of_the_pool(submitter, function, iterables, chunksize, buffersize, ordered=False)
    if found is not None:
        return found.results(deadline)
    source, first = begin(submitter, function, iterables, chunksize, buffersize)
    done: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()
    pending = set()
    for future in first:
        pending.add(future)
        future.add_done_callback(done.put)
    results = _as_completed(pending, done, deadline, source, more=buffersize is not None)
    return _flatten(results) if source.chunked else results


def begin(
    submitter: Submitter,
    function: Callable[..., Any],
    iterables: tuple[Iterable[Any], ...],
    chunksize: int | None,
    buffersize: int | None,
) -> tuple[Source, Iterator[Future[Any]]]:
    """Return the tasks of a map whose chunks have a fixed size, and an iterator that submits the first of them."""
    is_small = chunksize is None and buffersize is not None and submitter._sizes_chunks()
    named = is_small and not submitter._policy.counts_calls
    source = Source(submitter, function, iterables, chunksize or 1, named=named)
    if buffersize is None:
        return source, source.submit_all(submitter)
    return source, source.submit_first(submitter, buffersize)


def _chunks(calls: Iterator[tuple[Any, ...]], size: int) -> Iterator[Any]:
    chunk: list[tuple[Any, ...]] = []
    while True:
        try:
            chunk.extend(islice(calls, size))
        except Exception:
            if chunk:
                yield chunk  # what was taken before an iterable has raised
            raise
        if not chunk:
            return
        yield chunk
        chunk = []


def _in_order(futures: deque[Future[Any]], deadline: float | None, source: Source, *, more: bool) -> Iterator[Any]:
    try:
        while futures:
            following = source.next() if more else None
            if following is not None:
                futures.append(following)
            left = None if deadline is None else deadline - time.monotonic()
            # No name here may be bound to the future or its result while the consumer works.
            yield _result_of(futures.popleft, left)
        source.raise_failure()
    finally:
        for future in futures:
            future.cancel()


def _as_completed(
    pending: set[Future[Any]],
    done: queue.SimpleQueue[Future[Any]],
    deadline: float | None,
    source: Source,
    *,
    more: bool,
) -> Iterator[Any]:
    def first_done() -> Future[Any]:
        try:
            future = interruptible.get(done, None if deadline is None else deadline - time.monotonic())
        except queue.Empty:
            raise TimeoutError from None
        pending.remove(future)
        return future

    try:
        while pending:
            following = source.next() if more else None
            if following is not None:
                pending.add(following)
                following.add_done_callback(done.put)
            del following  # it may be the first that is done; as in `_in_order`
            yield _result_of(first_done, None)
        source.raise_failure()
    finally:
        for future in pending:
            future.cancel()


def _result_of(get: Callable[[], Future[Any]], timeout: float | None) -> Any:
    """Return the result of a future. If waiting fails, it is cancelled."""
    future = get()
    try:
        return future.result(timeout)
    except Exception as error:
        chunk_calls.describe(error)
        raise
    finally:
        future.cancel()
        # The exception's traceback holds this frame; the frame must not hold the future that holds the exception.
        del future


def _flatten(chunks: Iterator[list[Any]]) -> Iterator[Any]:
    try:
        for chunk in chunks:
            chunk.reverse()
            while chunk:
                yield chunk.pop()
    finally:
        close = getattr(chunks, "close", None)
        if close is not None:
            close()
