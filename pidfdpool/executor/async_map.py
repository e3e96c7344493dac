"""`amap`: as `map`, with an asynchronous iterator over the results. All of it runs in the event loop's thread."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any

from pidfdpool.executor import mapping
from pidfdpool.executor.adaptive_map import AdaptiveMap
from pidfdpool.executor.async_calls import AwaitedTask, Executor
from pidfdpool.loop import chunk_calls
from pidfdpool.typed import Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Callable, Iterable
    from concurrent.futures import Future

    from pidfdpool.executor.bounded_map import BoundedMap


class Submitter(mapping.Submitter, Executor, Protocol):
    """What submits calls: an executor, or a view of one with options."""


def amap(
    submitter: Submitter,
    function: Callable[..., Any],
    iterables: tuple[Iterable[Any], ...],
    *,
    timeout: float | None,
    chunksize: int | None,
    buffersize: int | None,
) -> AsyncIterator[Any]:
    """Submit as `map` does, and return an asynchronous iterator over the results, in order.

    With `max_pending`, calls are submitted as there is room for them (`BoundedCalls`).
    """
    deadline, chunksize, buffersize = mapping.check_arguments(timeout, chunksize, buffersize)
    found = mapping.in_chunks_of_the_pool(submitter, function, iterables, chunksize, buffersize, ordered=True)
    if found is not None:
        return _chunks_of_the_pool(found, deadline)
    if submitter._policy.max_pending is not None:
        return BoundedCalls(submitter, function, iterables, chunksize or 1, buffersize).results(deadline)
    source, first = mapping.begin(submitter, function, iterables, chunksize, buffersize)
    return _fixed_chunks(source, deque(first), deadline, more=buffersize is not None)


async def _chunks_of_the_pool(found: AdaptiveMap | BoundedMap, deadline: float | None) -> AsyncIterator[Any]:
    bounded = None if isinstance(found, AdaptiveMap) else found
    try:
        while (entry := found.next_entry()) is not None:
            if entry.future is not None:
                await _wait_for(entry.future, deadline)
            results, error = found.take(entry)
            del entry
            results.reverse()
            if bounded is not None and results:
                yield results.pop()
            while results:
                if bounded is not None:
                    bounded.step()
                yield results.pop()
            if error is not None:
                raise error
    finally:
        found.cancel()


async def _fixed_chunks(
    source: mapping.Source, futures: deque[Future[Any]], deadline: float | None, *, more: bool
) -> AsyncIterator[Any]:
    try:
        while futures:
            following = source.next() if more else None
            if following is not None:
                futures.append(following)
            outcome = await _result_of(futures.popleft(), deadline)
            results = outcome if source.chunked else [outcome]
            results.reverse()
            while results:
                yield results.pop()
        source.raise_failure()
    finally:
        for future in futures:
            future.cancel()


async def _result_of(future: Future[Any], deadline: float | None) -> Any:
    """Return a future's result. If waiting fails, the future is cancelled."""
    import asyncio

    left = None if deadline is None else max(0.0, deadline - time.monotonic())
    try:
        return await asyncio.wait_for(asyncio.wrap_future(future), left)
    except BaseException as error:  # GeneratorExit, too, of which asyncio tells no future
        future.cancel()
        chunk_calls.describe(error)
        raise
    finally:
        del future  # an exception's traceback holds this frame, and the future holds the exception


async def _wait_for(future: Future[Any], deadline: float | None) -> None:
    """Wait until a future is done, whatever it is done with. If waiting fails, it is cancelled.

    Raises:
        TimeoutError: the deadline has passed.
    """
    import asyncio

    left = None if deadline is None else max(0.0, deadline - time.monotonic())
    waiter = asyncio.wrap_future(future)
    try:
        await asyncio.wait([waiter], timeout=left)
        if not future.done():
            raise TimeoutError
        if not waiter.cancelled():
            waiter.exception()  # so that asyncio does not complain that nobody looks at it
    finally:
        future.cancel()  # does something only if waiting for it has failed


class BoundedCalls:
    """The calls of one `amap` with `max_pending`, which are submitted without ever waiting for room.

    At most `max_pending` of them are pending at a time. Those for which the pool has no room wait for it by
    themselves. When one has ended, the arguments of the next are taken from the iterables, whether or not anybody
    takes results. Without a running loop, all this begins when the first result is asked for.
    """

    def __init__(
        self,
        submitter: Submitter,
        function: Callable[..., Any],
        iterables: tuple[Iterable[Any], ...],
        chunksize: int,
        buffersize: int | None,
    ) -> None:
        """Submit the first calls.

        Raises:
            PoolBroken, QueueFull, RuntimeError: as `submit`; and what taking the arguments raises.
        """
        import asyncio

        self._source = mapping.Source(submitter, function, iterables, chunksize)
        self._submitter: Submitter | None = submitter  # None: all calls are submitted
        policy = submitter._policy
        # With block=False no call waits: one for which there is no room raises QueueFull, as in `map`.
        self._max_pending = policy.max_pending if policy.block else None
        self._buffersize = buffersize
        self._pending = 0
        self._entries: deque[AwaitedTask | BaseException] = deque()  # in the order of the calls
        try:
            self._loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            self._loop = None
        else:
            self._start()

    def _start(self) -> None:
        self._submit_more()
        last = self._entries[-1] if self._entries else None
        if isinstance(last, BaseException):
            self._close()
            raise last

    def _submit_more(self) -> None:
        """Submit as many calls as may be pending."""
        while self._submitter is not None and self._may_submit():
            try:
                call = self._source.next_call()
                if call is None:
                    self._submitter = None
                else:
                    self._submit(self._submitter, *call)
            except BaseException as error:
                self._submitter = None
                self._entries.append(error)
                if not isinstance(error, Exception):
                    raise

    def _may_submit(self) -> bool:
        return (self._max_pending is None or self._pending < self._max_pending) and (
            self._buffersize is None or len(self._entries) < self._buffersize
        )

    def _submit(self, submitter: Submitter, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        assert self._loop is not None
        awaited = AwaitedTask(self._loop)
        submitter._submit_for(awaited, submitter._policy, function, arguments, {}, wait=False)
        self._pending += 1
        self._entries.append(awaited)
        awaited.waiter.add_done_callback(self._call_ended)

    def _call_ended(self, waiter: asyncio.Future[Any]) -> None:
        self._pending -= 1
        if not waiter.cancelled():  # otherwise whoever has waited for it leaves
            self._submit_more()

    async def results(self, deadline: float | None) -> AsyncIterator[Any]:
        """Return an asynchronous iterator over the results. Closing it cancels the calls that no worker has begun."""
        import asyncio

        try:
            if self._loop is None:
                self._loop = asyncio.get_running_loop()
                self._start()
            while self._entries:
                entry = self._entries.popleft()
                self._submit_more()
                if isinstance(entry, BaseException):
                    raise entry
                outcome = await _result_of_awaited(entry, deadline)
                del entry
                results = outcome if self._source.chunked else [outcome]
                del outcome
                results.reverse()
                while results:
                    yield results.pop()
        finally:
            self._close()

    def _close(self) -> None:
        self._submitter = None
        entries, self._entries = self._entries, deque()
        for entry in entries:
            if isinstance(entry, AwaitedTask):
                entry.cancel()
                entry.waiter.cancel()  # also if it is done: then asyncio does not complain that nobody looks at it


async def _result_of_awaited(awaited: AwaitedTask, deadline: float | None) -> Any:
    """Return the result of a call. If waiting fails, the call is cancelled."""
    import asyncio

    left = None if deadline is None else max(0.0, deadline - time.monotonic())
    try:
        return await asyncio.wait_for(awaited.waiter, left)
    except BaseException as error:
        awaited.cancel()
        chunk_calls.describe(error)
        raise
    finally:
        del awaited  # an exception's traceback holds this frame, and the waiter holds the exception
