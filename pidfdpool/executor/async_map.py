"""`amap` and `amap_unordered`: maps with an asynchronous iterator over the results.

All of it runs in the event loop's thread. Chunks that the pool makes are in `adaptive_map` and `bounded_map`, as for
`map`; calls that are submitted one by one are in `awaited_calls`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pidfdpool.executor import mapping
from pidfdpool.executor.adaptive_map import AdaptiveMap
from pidfdpool.executor.map_request import MapRequest
from pidfdpool.executor.wakeup import Wakeup

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from concurrent.futures import Future

    from pidfdpool.executor.awaited_calls import Submitter
    from pidfdpool.executor.bounded_map import BoundedMap
    from pidfdpool.executor.map_pieces import Entry


def in_order(
    submitter: Submitter, fn: Callable[..., Any], iterables: tuple[Any, ...], **how: Any
) -> AsyncIterator[Any]:
    """Submit as `map` does, and return an asynchronous iterator over the results, in order.

    how: the other arguments of `Maps.amap`.
    """
    return _begin(submitter, MapRequest(fn, iterables, **how), ordered=True)


def as_they_come(
    submitter: Submitter, fn: Callable[..., Any], iterables: tuple[Any, ...], **how: Any
) -> AsyncIterator[Any]:
    """As `in_order`, but the iterator yields the results in the order in which they come."""
    return _begin(submitter, MapRequest(fn, iterables, **how), ordered=False)


def _begin(submitter: Submitter, request: MapRequest, *, ordered: bool) -> AsyncIterator[Any]:
    import asyncio

    found = None if request.reads else mapping.in_chunks_of_the_pool(submitter, request, ordered=ordered)
    if found is not None:
        return _chunks_of_the_pool(found, request.deadline)
    # Loaded when they are needed, so that the first map of a process does not wait for them.
    from pidfdpool.executor.awaited_calls import AwaitedCalls, Feed

    buffersize = request.buffersize
    if request.reads:
        from pidfdpool.executor.async_inputs import AHEAD, Reader

        buffersize = buffersize or AHEAD * submitter._policy.max_workers
        calls = AwaitedCalls(submitter, request, ordered=ordered, buffersize=buffersize, counts_asked=True)
        return calls.results(Reader(request, calls), request.deadline)
    calls = AwaitedCalls(submitter, request, ordered=ordered, buffersize=buffersize, counts_asked=False)
    feed = Feed(mapping.Source(submitter, request), calls)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass  # it begins when the first result is asked for
    else:
        calls.begin(feed)
    return calls.results(feed, request.deadline)


async def _chunks_of_the_pool(found: AdaptiveMap | BoundedMap, deadline: float | None) -> AsyncIterator[Any]:
    bounded = None if isinstance(found, AdaptiveMap) else found
    entries = found.entries
    wakeup = Wakeup()

    def is_first_done() -> bool:
        return entries.is_first_done

    entries.told = wakeup.tell
    try:
        while found.prepare():
            if not entries.is_ordered:
                await wakeup.wait(is_first_done, deadline)
            entry: Entry = entries.claim(None)
            if entry.future is not None and entries.is_ordered:
                await _wait_for(entry.future, wakeup, deadline)
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
                try:
                    raise error
                finally:
                    del error  # its traceback holds this frame
    finally:
        found.cancel()


async def _wait_for(future: Future[Any], wakeup: Wakeup, deadline: float | None) -> None:
    """Wait until a future is done, whatever it is done with. If waiting fails, it is cancelled.

    Raises:
        TimeoutError: the deadline has passed.
    """
    future.add_done_callback(wakeup.tell)
    try:
        await wakeup.wait(future.done, deadline)
    finally:
        future.cancel()  # does something only if waiting for it has failed
