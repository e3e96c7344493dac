"""All forms of map of a `SerialExecutor`. The calls are made in the thread that maps, or takes the results.

Without a buffersize all calls are made when map is called, as a pool has all of them submitted by then. With one, or
with an asynchronous input, a call is made when its turn comes.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any

from pidfdpool import checks
from pidfdpool.executor.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from concurrent.futures import Future


class SerialMap:
    """One map: its calls, and how their results are given.

    submit: makes a call, and returns its future. function: what is called. iterables: its arguments.
    """

    def __init__(
        self,
        submit: Callable[..., Future[Any]],
        function: Callable[..., Any],
        iterables: tuple[Any, ...],
        *,
        timeout: float | None,
        chunksize: int | None,
        buffersize: int | None,
        return_exceptions: bool,
        star: bool,
    ) -> None:
        """Check the arguments. The timeout and the chunksize have no effect: each result is there when it is taken.

        Raises:
            TypeError, ValueError: an argument makes no sense; the message names it and its value.
        """
        checks.wait_time("timeout", timeout)
        checks.integer("chunksize", chunksize, least=1, optional=True, boolean=True)
        checks.integer("buffersize", buffersize, optional=True, boolean=True)
        if buffersize is not None and buffersize < 1:
            raise ValueError(f"buffersize must be None or > 0, not {buffersize}")
        checks.boolean("return_exceptions", return_exceptions)
        checks.boolean("star", star)
        if star and len(iterables) != 1:
            raise TypeError(f"star=True takes one iterable, whose items are the arguments, not {len(iterables)}")
        self._submit, self._function, self._iterables = submit, function, iterables
        self._buffersize, self._outcomes, self._star = buffersize, return_exceptions, star
        self._taken = self._given = 0

    def results(self) -> Iterator[Any]:
        """Make the first calls, and return an iterator over the results."""
        calls: Iterator[Any] = iter(self._iterables[0]) if self._star else zip(*self._iterables, strict=False)
        if self._buffersize is None:
            return self._remaining(deque(self._submit_call(call) for call in calls), iter(()))
        futures: deque[Future[Any]] = deque()
        try:
            futures.extend(self._submit_call(call) for call in islice(calls, self._buffersize))
        except Exception as error:  # of an iterable; it comes in its turn
            calls = _raising(error)
        return self._remaining(futures, calls)

    def async_results(self) -> AsyncIterator[Any]:
        """Make the first calls, and return an asynchronous iterator over the results.

        An asynchronous input is read when a result is asked for, and closed when the iterator is.
        """
        if not any(hasattr(type(iterable), "__aiter__") for iterable in self._iterables):
            return _as_async(self.results())
        inputs = [
            iterable.__aiter__() if hasattr(type(iterable), "__aiter__") else iter(iterable)
            for iterable in self._iterables
        ]
        return self._of_async_inputs(inputs)

    async def _of_async_inputs(self, inputs: list[Any]) -> AsyncIterator[Any]:
        try:
            while True:
                items = []
                for each in inputs:
                    try:
                        items.append(await each.__anext__() if hasattr(type(each), "__anext__") else next(each))
                    except (StopIteration, StopAsyncIteration):
                        return
                yield self._give(self._submit_call(items[0] if self._star else tuple(items)))
        finally:
            for each in inputs:
                if (close := getattr(each, "aclose", None)) is not None:
                    await close()

    def _remaining(self, futures: deque[Future[Any]], calls: Iterator[Any]) -> Iterator[Any]:
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

    def _submit_call(self, call: Any) -> Future[Any]:
        arguments, number = call, self._taken
        self._taken += 1
        if self._star:
            try:
                arguments = tuple(call)
            except TypeError:
                problem = f"item {number} of the iterable is {checks.short_repr(call)}"
                raise TypeError(f"with star=True each item must be an iterable of arguments, but {problem}") from None
        return self._submit(self._function, *arguments)

    def _give(self, future: Future[Any]) -> Any:
        index = self._given
        self._given += 1
        try:
            if not self._outcomes:
                return future.result()
            error = future.exception()
            return Outcome(index, None if error is not None else future.result(), error)
        finally:
            del future  # an exception's traceback holds this frame, and the future holds the exception


def _raising(error: Exception) -> Iterator[Any]:
    raise error
    yield


async def _as_async(results: Iterator[Any]) -> AsyncIterator[Any]:
    for result in results:
        yield result
