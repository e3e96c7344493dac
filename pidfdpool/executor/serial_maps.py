"""All forms of map of a `SerialExecutor`. The calls are made in the thread that maps, or takes the results.

Without a buffersize all calls are made when map is called, as a pool has all of them submitted by then. With one, or
with an asynchronous input, a call is made when its turn comes.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any

from pidfdpool.errors import PoolBroken
from pidfdpool.executor.async_items import Items
from pidfdpool.executor.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from pidfdpool.executor.map_request import MapRequest
    from pidfdpool.executor.serial_future import SerialFuture


class SerialMap:
    """One map: its calls, and how their results are given.

    submit: makes a call, and returns its future. request: what the map was asked for. Its timeout and its chunksize
        have no effect: each result is there when it is taken.
    """

    def __init__(self, submit: Callable[..., SerialFuture[Any]], request: MapRequest) -> None:
        self._submit, self._request = submit, request
        self._given = 0

    def results(self) -> Iterator[Any]:
        """Make the first calls, and return an iterator over the results.

        Raises:
            TypeError: an iterable is asynchronous.
        """
        self._request.refuse_async()
        calls: Iterator[Any] = self._request.tuples()
        buffersize = self._request.buffersize
        if buffersize is None:
            return self._remaining(deque(self._submit_call(call) for call in calls), iter(()))
        futures: deque[SerialFuture[Any]] = deque()
        try:
            futures.extend(self._submit_call(call) for call in islice(calls, buffersize))
        except Exception as error:  # of an iterable; it comes in its turn
            calls = _raising(error)
        return self._remaining(futures, calls)

    def async_results(self) -> AsyncIterator[Any]:
        """Make the first calls, and return an asynchronous iterator over the results.

        An asynchronous input is read when a result is asked for, and closed when the iterator is.
        """
        return self._of_async_inputs() if self._request.reads else _as_async(self.results())

    async def _of_async_inputs(self) -> AsyncIterator[Any]:
        items = Items(self._request)
        try:
            while (call := await items.next()) is not None:
                yield self._give(self._submit_call(call))
        finally:
            await items.close()

    def _remaining(self, futures: deque[SerialFuture[Any]], calls: Iterator[Any]) -> Iterator[Any]:
        """Yield the results; make one further call for each."""
        failure: Exception | None = None
        while futures:
            try:
                futures.extend(self._submit_call(call) for call in islice(calls, 1))
            except Exception as error:
                failure, calls = error, iter(())
            # No name here may be bound to the future or its result while the consumer works.
            yield self._give(futures.popleft())
        try:
            if failure is not None:
                raise failure
        finally:
            del failure  # its traceback holds this frame

    def _submit_call(self, call: tuple[Any, ...]) -> SerialFuture[Any]:
        return self._submit(self._request.function, *call)

    def _give(self, future: SerialFuture[Any]) -> Any:
        index = self._given
        self._given += 1
        try:
            if not self._request.outcomes:
                return future.result()
            error = future.exception()
            if isinstance(error, PoolBroken) and not future.attempt:
                raise error  # no call will be made any more
            return Outcome(index, None if error is not None else future.result(), error)
        finally:
            error = None
            del future  # an exception's traceback holds this frame, and the future holds the exception


def _raising(error: Exception) -> Iterator[Any]:
    try:
        raise error
    finally:
        del error  # its traceback holds this frame
    yield


async def _as_async(results: Iterator[Any]) -> AsyncIterator[Any]:
    for result in results:
        yield result
