"""`map` and `map_unordered`. No argument and no result is kept longer than it is needed.

The part that runs in workers is `worker.chunk`. This part runs in the caller's thread, in the iterator. Chunks whose
size the pool chooses are in `adaptive_map`; here each has `chunksize` calls.
"""

from __future__ import annotations

import queue
import time
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any

from pidfdpool import checks
from pidfdpool.executor import adaptive_map, map_submission
from pidfdpool.loop import chunk_calls
from pidfdpool.loop.chunk_calls import Chunk
from pidfdpool.process import describe, interruptible
from pidfdpool.typed import Protocol
from pidfdpool.worker.chunk import call_each

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future


class Submitter(map_submission.Submitter, Protocol):
    """What submits calls. A map keeps it alive only as long as there are calls to submit."""

    def _sizes_chunks(self) -> bool:
        """Return whether calls may share a task though no chunksize was given.

        Not if a subclass has its own `submit`: the pool thread would call it, and with chunks.
        """

    def _submitter_ref(self) -> Callable[[], Submitter | None]:
        """Return a weak reference: what it returns is None when nobody else holds the executor any more."""


class Source:
    """The calls of one map, as tasks, and the way to submit them."""

    def __init__(
        self,
        submitter: Submitter,
        function: Callable[..., Any],
        iterables: tuple[Iterable[Any], ...],
        chunksize: int,
    ) -> None:
        calls: Iterator[tuple[Any, ...]] = zip(*iterables, strict=False)
        self._tasks: Iterator[Any] = _chunks(calls, chunksize) if chunksize > 1 else calls
        self.chunked: bool = chunksize > 1
        self._function = function
        self._name = describe.name_of(function)
        self._taken = 0  # how many calls were taken, if they are chunked
        # Weak, so that an executor which nobody holds can be collected though results are not taken yet.
        self._find_submitter = submitter._submitter_ref()

    def submit_first(self, submitter: Submitter, count: int | None) -> Iterator[Future[Any]]:
        """Submit `count` tasks; None: all of them."""
        return (self._submit(submitter, task) for task in islice(self._tasks, count))

    def next(self) -> Future[Any] | None:
        """Submit one more task. None: there is none, or the executor was collected."""
        submitter = self._find_submitter()
        if submitter is None:
            return None
        call = self.next_call()
        return None if call is None else submitter.submit(call[0], *call[1])

    def next_call(self) -> tuple[Callable[..., Any], tuple[Any, ...]] | None:
        """Return the next task: a function and its arguments. None: there is none."""
        task = next(self._tasks, None)
        return None if task is None else self._call(task)

    def _call(self, task: Any) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        if not self.chunked:
            return self._function, task
        chunk = Chunk(call_each, self._name, self._taken, task, func=self._function)
        self._taken += len(task)
        return chunk, (task,)

    def _submit(self, submitter: Submitter, task: Any) -> Future[Any]:
        function, arguments = self._call(task)
        return submitter.submit(function, *arguments)


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
    """Return whether the pool sizes the chunks."""
    return chunksize is None and buffersize is None and submitter._sizes_chunks()


def ordered(
    submitter: Submitter,
    function: Callable[..., Any],
    iterables: tuple[Iterable[Any], ...],
    *,
    timeout: float | None,
    chunksize: int | None,
    buffersize: int | None,
) -> Iterator[Any]:
    """Submit all calls, or `buffersize` chunks ahead, and return an iterator over the results, in order.

    timeout: seconds from this call until the iterator raises TimeoutError.
    """
    deadline, chunksize, buffersize = check_arguments(timeout, chunksize, buffersize)
    if is_adaptive(submitter, chunksize, buffersize):
        return adaptive_map.AdaptiveMap(submitter, function, iterables, ordered=True).results(deadline)
    chunksize = chunksize or 1
    source = Source(submitter, function, iterables, chunksize)
    futures = deque(source.submit_first(submitter, buffersize))
    results = _in_order(futures, deadline, source.next if buffersize is not None else lambda: None)
    return results if chunksize == 1 else _flatten(results)


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
    if is_adaptive(submitter, chunksize, buffersize):
        return adaptive_map.AdaptiveMap(submitter, function, iterables, ordered=False).results(deadline)
    chunksize = chunksize or 1
    source = Source(submitter, function, iterables, chunksize)
    done: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()
    pending = set()
    for future in source.submit_first(submitter, buffersize):
        pending.add(future)
        future.add_done_callback(done.put)
    results = _as_completed(pending, done, deadline, source.next if buffersize is not None else lambda: None)
    return results if chunksize == 1 else _flatten(results)


def _chunks(calls: Iterator[tuple[Any, ...]], size: int) -> Iterator[Any]:
    while chunk := list(islice(calls, size)):
        yield chunk


def _in_order(
    futures: deque[Future[Any]], deadline: float | None, submit_next: Callable[[], Future[Any] | None]
) -> Iterator[Any]:
    try:
        while futures:
            following = submit_next()
            if following is not None:
                futures.append(following)
            left = None if deadline is None else deadline - time.monotonic()
            # No name here may be bound to the future or its result while the consumer works.
            yield _result_of(futures.popleft, left)
    finally:
        for future in futures:
            future.cancel()


def _as_completed(
    pending: set[Future[Any]],
    done: queue.SimpleQueue[Future[Any]],
    deadline: float | None,
    submit_next: Callable[[], Future[Any] | None],
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
            following = submit_next()
            if following is not None:
                pending.add(following)
                following.add_done_callback(done.put)
            yield _result_of(first_done, None)
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
