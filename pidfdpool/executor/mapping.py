"""`map` and `map_unordered`. No argument and no result is kept longer than it is needed.

The part that runs in workers is `worker.chunk`. This part runs in the caller's thread, in the iterator. Chunks whose
size the pool chooses are in `adaptive_map` and `bounded_map`; here each has `chunksize` calls.
"""

from __future__ import annotations

import queue
import time
from collections import deque
from itertools import count, islice, takewhile
from typing import TYPE_CHECKING, Any

from pidfdpool.executor import map_submission
from pidfdpool.executor.adaptive_map import AdaptiveMap
from pidfdpool.executor.chunk_outcomes import ends_map
from pidfdpool.executor.chunk_sizes import CHUNKS_PER_WORKER
from pidfdpool.executor.map_request import MapRequest
from pidfdpool.loop import chunk_calls
from pidfdpool.loop.chunk_calls import Chunk
from pidfdpool.process import describe, interruptible
from pidfdpool.typed import Protocol
from pidfdpool.worker.chunk import call_each

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

    from pidfdpool.executor.bounded_map import BoundedMap
    from pidfdpool.executor.outcome import Outcome


class Submitter(map_submission.Submitter, Protocol):
    """What submits calls. A map keeps it alive only as long as there are calls to submit."""

    def _sizes_chunks(self) -> bool:
        """Return whether calls may share a task though no chunksize was given.

        Not if a subclass has its own `submit`: the pool thread would call it, and with chunks.
        """


class Source:
    """The calls of one map, as tasks of a fixed number of calls, and the way to submit them."""

    def __init__(self, submitter: Submitter, request: MapRequest) -> None:
        calls, chunksize, function = request.tuples(), request.calls_per_task, request.function
        self._tasks: Iterator[Any] = _chunks(calls, chunksize) if chunksize > 1 else calls
        self.chunked: bool = chunksize > 1
        self.gives_outcomes: bool = request.outcomes
        self._has_submitted = False
        self.take: Callable[[Callable[[], tuple[int, Future[Any]]], float | None], Any] = (
            _outcome_of if request.outcomes else _result_of
        )
        # Whether errors of single calls are to name the call, as those of calls in chunks do.
        self._named = request.chunksize is None and request.buffersize is not None and submitter._sizes_chunks()
        chosen = submitter._policy.context_vars
        if chosen:
            from pidfdpool.executor.context_vars import in_context

            function = in_context(function, chosen)
        self._function = function
        self._name = describe.name_of(function)
        self._taken = 0  # how many calls were taken, if they are named
        self._failure: BaseException | None = None  # what an iterable has raised, or why no more is submitted
        # Weak, so that an executor which nobody holds can be collected though results are not taken yet.
        self._find_submitter = submitter._submitter_ref()

    def submit_all(self, submitter: Submitter) -> Iterator[Future[Any]]:
        """Submit all tasks, one for each step of the iterator."""
        if not self.gives_outcomes:
            return (self._submit(submitter, self._call(task)) for task in self._tasks)
        futures = (self._submit_or_fail(submitter, self._call(task)) for task in self._tasks)
        return takewhile(lambda future: future is not None, futures)  # type: ignore[arg-type]

    def submit_first(self, submitter: Submitter, count: int) -> Iterator[Future[Any]]:
        """Submit `count` tasks, one for each step of the iterator."""
        while count and (call := self._next_call()) is not None:
            future = self._submit_or_fail(submitter, call)
            if future is None:
                return
            yield future
            count -= 1

    def next(self) -> Future[Any] | None:
        """Submit one more task. None: there is none, or the executor was collected."""
        submitter = self._find_submitter()
        if submitter is None:
            return None
        call = self._next_call()
        return None if call is None else self._submit_or_fail(submitter, call)

    def fail(self, error: BaseException) -> None:
        """Take no more calls, and note why. That is raised behind the outcomes of all that were submitted."""
        self._tasks = iter(())
        self._failure = self._failure or error

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
        """As `next_call`, but an error of an iterable is kept, and nothing more is taken.

        What a signal handler has raised meanwhile is raised: it is about what the consumer does now.
        """
        try:
            task = next(self._tasks, None)
        except Exception as error:
            if interruptible.is_of_handler(error):
                raise
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

    def _submit(
        self, submitter: map_submission.Submitter, call: tuple[Callable[..., Any], tuple[Any, ...]]
    ) -> Future[Any]:
        return submitter.submit(call[0], *call[1])

    def _submit_or_fail(
        self, submitter: map_submission.Submitter, call: tuple[Callable[..., Any], tuple[Any, ...]]
    ) -> Future[Any] | None:
        """Submit a call. None: it is refused, which is raised behind the outcomes of those that were submitted."""
        try:
            future = self._submit(submitter, call)
        except Exception as error:
            if not (self.gives_outcomes and self._has_submitted):
                raise
            self.fail(error)
            return None
        self._has_submitted = True
        return future


def in_chunks_of_the_pool(
    submitter: Submitter, request: MapRequest, *, ordered: bool
) -> AdaptiveMap | BoundedMap | None:
    """Begin a map whose chunks the pool makes. None: it makes none, and nothing has happened.

    It makes them if no chunksize is given, and also if one is where outcomes are wanted, because each call counts for
    itself then. It does not with a limit of pending tasks. Nor with a buffersize that is so small that an even share
    of it is a single call, unless outcomes are wanted.
    """
    if not submitter._sizes_chunks():
        return None
    buffersize, outcomes = request.buffersize, request.outcomes
    if request.chunksize is not None and not outcomes:
        return None
    if buffersize is None:
        return AdaptiveMap(submitter, request, ordered=ordered)
    if buffersize < 2 * CHUNKS_PER_WORKER * submitter._policy.max_workers and not outcomes:
        return None
    # Loaded when it is needed, so that the first map of a process does not wait for it.
    from pidfdpool.executor.bounded_map import BoundedMap

    return BoundedMap(submitter, request, buffersize * (request.chunksize or 1), ordered=ordered)


def in_order(submitter: Submitter, fn: Callable[..., Any], iterables: tuple[Any, ...], **how: Any) -> Iterator[Any]:
    """Submit all calls, or `buffersize` calls or chunks ahead, and return an iterator over the results, in order.

    how: the other arguments of `Maps.map`.
    """
    request = MapRequest(fn, iterables, **how)
    request.refuse_async()
    found = in_chunks_of_the_pool(submitter, request, ordered=True)
    if found is not None:
        return found.results(request.deadline)
    source, first = _begin(submitter, request)
    futures = deque(first)
    results = _in_order(futures, request.deadline, source, more=request.buffersize is not None)
    return _flatten(results) if source.chunked else results


def as_they_come(
    submitter: Submitter, fn: Callable[..., Any], iterables: tuple[Any, ...], **how: Any
) -> Iterator[Any]:
    """As `in_order`, but the iterator yields the results in the order in which they come."""
    request = MapRequest(fn, iterables, **how)
    request.refuse_async()
    found = in_chunks_of_the_pool(submitter, request, ordered=False)
    if found is not None:
        return found.results(request.deadline)
    source, first = _begin(submitter, request)
    done: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()
    pending: dict[Future[Any], int] = {}
    for future in first:
        pending[future] = len(pending)
        future.add_done_callback(done.put)
    results = _as_completed(pending, done, request.deadline, source, more=request.buffersize is not None)
    return _flatten(results) if source.chunked else results


def _begin(submitter: Submitter, request: MapRequest) -> tuple[Source, Iterator[Future[Any]]]:
    """Return the tasks of a map whose chunks have a fixed size, and an iterator that submits the first of them."""
    source = Source(submitter, request)
    if request.buffersize is None:
        return source, source.submit_all(submitter)
    return source, source.submit_first(submitter, request.buffersize)


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
    numbers = count()

    def first() -> tuple[int, Future[Any]]:
        return next(numbers), futures.popleft()

    try:
        while futures:
            following = source.next() if more else None
            if following is not None:
                futures.append(following)
            left = None if deadline is None else deadline - time.monotonic()
            # No name here may be bound to the future or its result while the consumer works.
            yield source.take(first, left)
        source.raise_failure()
    finally:
        for future in futures:
            future.cancel()


def _as_completed(
    pending: dict[Future[Any], int],
    done: queue.SimpleQueue[Future[Any]],
    deadline: float | None,
    source: Source,
    *,
    more: bool,
) -> Iterator[Any]:
    numbers = count(len(pending))

    def first_done() -> tuple[int, Future[Any]]:
        while True:
            try:
                future = interruptible.get(done, None if deadline is None else deadline - time.monotonic())
            except queue.Empty:
                raise TimeoutError from None
            index = pending.pop(future)
            if not source.gives_outcomes or not pending or future.cancelled():
                return index, future
            error = future.exception()
            if error is None or not ends_map(error):
                return index, future
            source.fail(error)  # behind the outcomes that are there, or come now

    try:
        while pending:
            following = source.next() if more else None
            if following is not None:
                pending[following] = next(numbers)
                following.add_done_callback(done.put)
            del following  # it may be the first that is done; as in `_in_order`
            yield source.take(first_done, None)
        source.raise_failure()
    finally:
        for future in pending:
            future.cancel()


def _result_of(get: Callable[[], tuple[int, Future[Any]]], timeout: float | None) -> Any:
    """Return the result of a future. If waiting fails, it is cancelled. get: returns its number as well."""
    _, future = get()
    try:
        return future.result(timeout)
    except Exception as error:
        chunk_calls.describe(error)
        raise
    finally:
        future.cancel()
        # The exception's traceback holds this frame; the frame must not hold the future that holds the exception.
        del future


def _outcome_of(get: Callable[[], tuple[int, Future[Any]]], timeout: float | None) -> Outcome[Any]:
    """As `_result_of`, but return the outcome of the call. What is raised ends the map."""
    from pidfdpool.executor.outcome import Outcome

    index, future = get()
    try:
        error = future.exception(timeout)
        if error is None:
            return Outcome(index, future.result())
        if ends_map(error):
            raise error
        chunk_calls.describe(error)
        return Outcome(index, None, error)
    finally:
        future.cancel()
        error = None
        del future  # as in `_result_of`


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
