"""`map`: chunks of arguments in, results out in order, and nothing kept that is no longer needed.

The part that runs in workers is `worker.chunk`. This part runs in the caller's thread, inside the iterator.
"""

from __future__ import annotations

import time
import weakref
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any

from pidfdpool.worker.chunk import call_each

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Executor, Future


def check_arguments(chunksize: int, buffersize: int | None) -> None:
    """Raise the standard library's errors for what map cannot work with."""
    if chunksize < 1:
        raise ValueError(f"chunksize must be >= 1, not {chunksize}.")
    if buffersize is not None and not isinstance(buffersize, int):
        raise TypeError(f"buffersize must be an integer or None, not {buffersize!r}")
    if buffersize is not None and buffersize < 1:
        raise ValueError(f"buffersize must be None or > 0, not {buffersize}")


def ordered(
    executor: Executor,
    function: Callable[..., Any],
    iterables: tuple[Iterable[Any], ...],
    *,
    timeout: float | None,
    chunksize: int,
    buffersize: int | None,
) -> Iterator[Any]:
    """Submit, at once or `buffersize` chunks ahead of the consumer, and return an iterator over the results.

    timeout: seconds from this call until TimeoutError is raised by the iterator.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    calls: Iterator[tuple[Any, ...]] = zip(*iterables, strict=False)
    tasks = _chunks(calls, chunksize) if chunksize > 1 else calls
    submit = _submit_chunk if chunksize > 1 else _submit_call
    futures = deque(submit(executor, function, task) for task in islice(tasks, buffersize))
    # Only futures and what is left to submit are kept, so that an executor that nobody holds can be collected.
    more = None if buffersize is None else weakref.ref(executor)
    results = _results(futures, deadline, lambda: _next(more, submit, function, tasks))
    if chunksize == 1:
        return results
    return _flat(results)


def _submit_call(executor: Executor, function: Callable[..., Any], call: tuple[Any, ...]) -> Future[Any]:
    return executor.submit(function, *call)


def _submit_chunk(executor: Executor, function: Callable[..., Any], chunk: list[Any]) -> Future[Any]:
    return executor.submit(call_each, function, chunk)


def _chunks(calls: Iterator[tuple[Any, ...]], size: int) -> Iterator[Any]:
    while chunk := list(islice(calls, size)):
        yield chunk


def _next(
    executor: weakref.ref[Executor] | None,
    submit: Callable[..., Future[Any]],
    function: Callable[..., Any],
    tasks: Iterator[Any],
) -> Future[Any] | None:
    """Submit one more, if submitting was put off until results are taken."""
    alive = executor() if executor is not None else None
    if alive is None:
        return None
    task = next(tasks, None)
    return None if task is None else submit(alive, function, task)


def _results(
    futures: deque[Future[Any]], deadline: float | None, submit_next: Callable[[], Future[Any] | None]
) -> Iterator[Any]:
    try:
        while futures:
            following = submit_next()
            if following is not None:
                futures.append(following)
            left = None if deadline is None else deadline - time.monotonic()
            # No name may be left bound to the future or its result while the consumer works.
            yield _take(futures, left)
    finally:
        for future in futures:
            future.cancel()


def _take(futures: deque[Future[Any]], timeout: float | None) -> Any:
    """Return the result of the first future; if waiting for it ends otherwise, it is cancelled like the rest."""
    future = futures.popleft()
    try:
        return future.result(timeout)
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
