"""`amap`: what `map` does, with an asynchronous iterator over the results. All of it runs in the loop's thread."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any

from pidfdpool import chunks, mapping
from pidfdpool.awaiting import Awaited, Executor
from pidfdpool.guided import Guided, Refused, opened
from pidfdpool.typed import Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Callable, Iterable
    from concurrent.futures import Future

    from pidfdpool.policy import Policy


class Submitter(mapping.Submitter, Executor, Protocol):
    """What submits: an executor, or a view of one with options."""

    _policy: Policy


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

    Where `max_pending` tells how many tasks there may be, calls are submitted as there is room for them (`Feed`).
    """
    deadline, chunksize, buffersize = mapping.checked(timeout, chunksize, buffersize)
    if mapping.is_guided(submitter, chunksize, buffersize):
        return _guided(Guided(submitter, function, iterables, ordered=True), deadline)
    if submitter._policy.max_pending is not None:
        return Feed(submitter, function, iterables, chunksize or 1, buffersize).results(deadline)
    source = mapping.Source(submitter, function, iterables, chunksize or 1)
    return _fixed(source, deque(source.first(submitter, buffersize)), deadline, more=buffersize is not None)


async def _guided(guided: Guided, deadline: float | None) -> AsyncIterator[Any]:
    try:
        while (entry := guided.next_entry()) is not None:
            if isinstance(entry, Refused):
                raise entry.error
            results, error = opened(await _outcome(entry, deadline))
            del entry
            results.reverse()
            while results:
                yield results.pop()
            if error is not None:
                raise error
    finally:
        guided.abandon()


async def _fixed(
    source: mapping.Source, futures: deque[Future[Any]], deadline: float | None, *, more: bool
) -> AsyncIterator[Any]:
    try:
        while futures:
            following = source.next() if more else None
            if following is not None:
                futures.append(following)
            outcome = await _outcome(futures.popleft(), deadline)
            results = outcome if source.chunked else [outcome]
            results.reverse()
            while results:
                yield results.pop()
    finally:
        for future in futures:
            future.cancel()


async def _outcome(future: Future[Any], deadline: float | None) -> Any:
    """Return a future's result; if waiting for it ends otherwise, it is cancelled."""
    import asyncio

    left = None if deadline is None else max(0.0, deadline - time.monotonic())
    try:
        return await asyncio.wait_for(asyncio.wrap_future(future), left)
    except BaseException as error:  # GeneratorExit, too, of which asyncio tells no future
        future.cancel()
        chunks.describe(error)
        raise
    finally:
        del future  # an exception's traceback holds this frame, and the future holds the exception


class Feed:
    """The calls of one `amap`, which are submitted without ever waiting for room.

    So many are under way at a time as may be pending; those for which there is no room wait for it by themselves.
    Whenever one has ended, the arguments of the next are taken from the iterables, whether or not anybody takes
    results meanwhile. Where there is no running loop yet, that begins with the first result that is asked for.
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
        # With block=False none waits, and one that finds no room is refused, as in `map`.
        self._most = policy.max_pending if policy.block else None
        self._buffersize = buffersize
        self._under_way = 0
        self._entries: deque[Awaited | BaseException] = deque()  # to be taken in this order
        try:
            self._loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            self._loop = None
        else:
            self._begin()

    def _begin(self) -> None:
        self._go_on()
        last = self._entries[-1] if self._entries else None
        if isinstance(last, BaseException):
            self._abandon()
            raise last

    def _go_on(self) -> None:
        """Submit as many calls as may be under way now."""
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
        return (self._most is None or self._under_way < self._most) and (
            self._buffersize is None or len(self._entries) < self._buffersize
        )

    def _submit(self, submitter: Submitter, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        assert self._loop is not None
        awaited = Awaited(self._loop)
        submitter._submit_for(awaited, submitter._policy, function, arguments, {}, wait=False)
        self._under_way += 1
        self._entries.append(awaited)
        awaited.waiter.add_done_callback(self._one_ended)

    def _one_ended(self, _waiter: asyncio.Future[Any]) -> None:
        self._under_way -= 1
        self._go_on()

    async def results(self, deadline: float | None) -> AsyncIterator[Any]:
        """Return an asynchronous iterator over the results. Closing it withdraws what no worker has been given."""
        import asyncio

        try:
            if self._loop is None:
                self._loop = asyncio.get_running_loop()
                self._begin()
            while self._entries:
                entry = self._entries.popleft()
                self._go_on()
                if isinstance(entry, BaseException):
                    raise entry
                outcome = await _told(entry, deadline)
                del entry
                results = outcome if self._source.chunked else [outcome]
                del outcome
                results.reverse()
                while results:
                    yield results.pop()
        finally:
            self._abandon()

    def _abandon(self) -> None:
        self._submitter = None
        entries, self._entries = self._entries, deque()
        for entry in entries:
            if isinstance(entry, Awaited):
                entry.cancel()
                entry.waiter.cancel()  # also if it is done: then asyncio does not complain that nobody looks at it


async def _told(awaited: Awaited, deadline: float | None) -> Any:
    """Return the result of a call; if waiting for it ends otherwise, it is cancelled."""
    import asyncio

    left = None if deadline is None else max(0.0, deadline - time.monotonic())
    try:
        return await asyncio.wait_for(awaited.waiter, left)
    except BaseException as error:
        awaited.cancel()
        chunks.describe(error)
        raise
    finally:
        del awaited  # an exception's traceback holds this frame, and the waiter holds the exception
