"""`map` and `map_unordered`: chunks of arguments in, results out, and nothing kept that is no longer needed.

The part that runs in workers is `worker.chunk`. This part runs in the caller's thread, inside the iterator.
"""

from __future__ import annotations

import queue
import time
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any

from pidfdpool import checks
from pidfdpool.executor import adaptive_map
from pidfdpool.loop import chunk_calls as chunks
from pidfdpool.loop.chunk_calls import Chunk
from pidfdpool.process import describe, interruptible
from pidfdpool.typed import Protocol
from pidfdpool.worker.chunk import call_each

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future


class Submitter(adaptive_map.Submitter, Protocol):
    """What submits. `map` holds no executor that nobody else holds, but while there is something left to hand out."""

    def _sizes_chunks(self) -> bool:
        """Return whether calls may share a task without anybody having asked for that.

        Not where `submit` is somebody else's: it would be called by the pool thread, and for chunks.
        """

    def _resubmitter(self) -> Callable[[], Submitter | None]:
        """Return what finds the submitter again for as long as somebody holds the executor."""


class Source:
    """The calls of one map, as tasks, and the way to submit the next of them."""

    def __init__(
        self,
        submitter: Submitter,
        function: Callable[..., Any],
        iterables: tuple[Iterable[Any], ...],
        chunksize: int,
    ) -> None:
        calls: Iterator[tuple[Any, ...]] = zip(*iterables, strict=False)
        self._tasks: Iterator[Any] = _chunks(calls, chunksize) if chunksize > 1 else calls
        self.chunked = chunksize > 1
        self._function = function
        self._name = describe.name_of(function)
        self._at = 0  # how many calls were taken, where they are chunked
        # Weak, so that an executor that nobody holds can be collected though results are still to be taken.
        self._find = submitter._resubmitter()

    def first(self, submitter: Submitter, count: int | None) -> Iterator[Future[Any]]:
        """Submit so many tasks, or all of them."""
        return (self._submit(submitter, task) for task in islice(self._tasks, count))

    def next(self) -> Future[Any] | None:
        """Submit one more, if there is one and the executor still is."""
        submitter = self._find()
        if submitter is None:
            return None
        call = self.next_call()
        return None if call is None else submitter.submit(call[0], *call[1])

    def next_call(self) -> tuple[Callable[..., Any], tuple[Any, ...]] | None:
        """Return what is to be submitted next: a function and its arguments."""
        task = next(self._tasks, None)
        return None if task is None else self._call(task)

    def _call(self, task: Any) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        if not self.chunked:
            return self._function, task
        chunk = Chunk(call_each, self._name, self._at, task, func=self._function)
        self._at += len(task)
        return chunk, (task,)

    def _submit(self, submitter: Submitter, task: Any) -> Future[Any]:
        function, arguments = self._call(task)
        return submitter.submit(function, *arguments)


def checked(
    timeout: float | None, chunksize: int | None, buffersize: int | None
) -> tuple[float | None, int | None, int | None]:
    """Return the moment at which to give up, and the sizes.

    Raises:
        TypeError, ValueError: the standard library's errors for what map cannot work with, with name and value.
    """
    chunksize = checks.integer("chunksize", chunksize, least=1, optional=True, boolean=True)
    buffersize = checks.integer("buffersize", buffersize, optional=True, boolean=True)
    if buffersize is not None and buffersize < 1:
        raise ValueError(f"buffersize must be None or > 0, not {buffersize}")
    timeout = checks.wait("timeout", timeout)
    return None if timeout is None else time.monotonic() + timeout, chunksize, buffersize


def is_guided(submitter: Submitter, chunksize: int | None, buffersize: int | None) -> bool:
    """Return whether the pool is to size the chunks."""
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
    """Submit, at once or `buffersize` chunks ahead of the consumer, and return an iterator over the results.

    timeout: seconds from this call until TimeoutError is raised by the iterator.
    """
    deadline, chunksize, buffersize = checked(timeout, chunksize, buffersize)
    if is_guided(submitter, chunksize, buffersize):
        return adaptive_map.Guided(submitter, function, iterables, ordered=True).results(deadline)
    chunksize = chunksize or 1
    source = Source(submitter, function, iterables, chunksize)
    futures = deque(source.first(submitter, buffersize))
    results = _in_order(futures, deadline, source.next if buffersize is not None else lambda: None)
    return results if chunksize == 1 else _flat(results)


def unordered(
    submitter: Submitter,
    function: Callable[..., Any],
    iterables: tuple[Iterable[Any], ...],
    *,
    timeout: float | None,
    chunksize: int | None,
    buffersize: int | None,
) -> Iterator[Any]:
    """As `ordered`, but the iterator yields results as they come."""
    deadline, chunksize, buffersize = checked(timeout, chunksize, buffersize)
    if is_guided(submitter, chunksize, buffersize):
        return adaptive_map.Guided(submitter, function, iterables, ordered=False).results(deadline)
    chunksize = chunksize or 1
    source = Source(submitter, function, iterables, chunksize)
    done: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()
    pending = set()
    for future in source.first(submitter, buffersize):
        pending.add(future)
        future.add_done_callback(done.put)
    results = _as_they_come(pending, done, deadline, source.next if buffersize is not None else lambda: None)
    return results if chunksize == 1 else _flat(results)


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
            # No name may be left bound to the future or its result while the consumer works.
            yield _take(futures.popleft, left)
    finally:
        for future in futures:
            future.cancel()


def _as_they_come(
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
            yield _take(first_done, None)
    finally:
        for future in pending:
            future.cancel()


def _take(get: Callable[[], Future[Any]], timeout: float | None) -> Any:
    """Return the result of a future; if waiting for it ends otherwise, it is cancelled like the rest."""
    future = get()
    try:
        return future.result(timeout)
    except Exception as error:
        chunks.describe(error)
        raise
    finally:
        future.cancel()
        # The exception's traceback holds this frame; the frame must not hold the future that holds the exception.
        del future


def _flat(chunks: Iterator[list[Any]]) -> Iterator[Any]:
    try:
        for chunk in chunks:
            chunk.reverse()
            while chunk:
                yield chunk.pop()
    finally:
        close = getattr(chunks, "close", None)
        if close is not None:
            close()
