"""The calls of an `amap` that are submitted one by one, and whose outcomes an event loop gets, not a thread.

Each is an `AwaitedTask`. None waits for room in a thread: those for which the pool has no room wait for it by
themselves. A *feed* takes the calls from the inputs: a `Feed` here from ordinary iterables, an `async_inputs.Reader`
from asynchronous ones. All of it runs in the event loop's thread.
"""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

from pidfdpool.executor import mapping
from pidfdpool.executor.async_calls import AwaitedTask, Executor
from pidfdpool.executor.chunk_outcomes import ends_map
from pidfdpool.executor.outcome import Outcome
from pidfdpool.executor.wakeup import Wakeup
from pidfdpool.loop import chunk_calls
from pidfdpool.typed import Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from concurrent.futures import Future

    from pidfdpool.executor.map_request import MapRequest


class Submitter(mapping.Submitter, Executor, Protocol):
    """What submits calls: an executor, or a view of one with options."""


class SubmittedCall:
    """A call that a subclass with its own `submit` has submitted: the same to an `amap` as an `AwaitedTask`."""

    def __init__(self, future: Future[Any]) -> None:
        self.cancel = future.cancel
        self.waiter: asyncio.Future[Any] = asyncio.wrap_future(future)


class _Feed(Protocol):
    """What takes calls from the inputs of a map, and submits them.

    Attributes:
        is_refused: the pool did not accept a call.
    """

    is_refused: bool

    def more(self) -> None:
        """Take as many as there is room for."""

    async def close(self) -> None:
        """Take no more."""


class AwaitedCalls:
    """The calls of one map: those that were submitted, and whose outcomes the consumer has not been given.

    Attributes:
        counts_asked: whether the call whose outcome the consumer waits for is one of those that are taken ahead.
        is_over: there are no more to be submitted.
        failure: why, if an error is the reason. It comes behind all outcomes.
    """

    def __init__(
        self, submitter: Submitter, request: MapRequest, *, ordered: bool, buffersize: int | None, counts_asked: bool
    ) -> None:
        """Note how they are submitted. buffersize: how many tasks are taken ahead; None: any number."""
        policy = submitter._policy
        # With block=False no call waits: one for which there is no room raises QueueFull, as in `map`.
        self._max_pending = policy.max_pending if policy.block else None
        self._submitter: Submitter | None = submitter  # None: all calls are submitted
        self._submits_itself = policy.max_pending is None and not submitter._sizes_chunks()
        self._ordered = ordered
        self._outcomes = request.outcomes
        self._chunked = request.calls_per_task > 1
        self._buffersize = buffersize
        self.counts_asked: bool = counts_asked
        self.is_over: bool = False
        self.failure: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._calls: dict[int, AwaitedTask | SubmittedCall] = {}  # by number, until the consumer is given its outcome
        self._submitted = self._given = self._pending = 0
        self._done: deque[int] = deque()  # those that have come to their end, if order does not matter
        self._asked = False
        self._come = Wakeup()

    # ---- for the feed --------------------------------------------------------------------------------------

    def has_room(self) -> bool:
        """Return whether one more call may be submitted."""
        if self._max_pending is not None and self._pending >= self._max_pending:
            return False
        ahead = len(self._calls) - (self._asked and not self.counts_asked)
        return self._buffersize is None or ahead < self._buffersize

    def submit(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        """Submit a call, or a chunk of them.

        Raises:
            PoolBroken, QueueFull, RuntimeError: as `submit` of the executor.
        """
        submitter = self._submitter
        assert submitter is not None
        call: AwaitedTask | SubmittedCall
        if self._submits_itself:
            call = SubmittedCall(submitter.submit(function, *arguments))
        else:
            assert self._loop is not None
            call = AwaitedTask(self._loop)
            submitter._submit_for(call, submitter._policy, function, arguments, {}, wait=False)
        number, self._submitted = self._submitted, self._submitted + 1
        self._pending += 1
        self._calls[number] = call
        call.waiter.add_done_callback(partial(self._call_ended, number))

    def end(self, failure: BaseException | None = None) -> None:
        """Note that there are no more calls, and why."""
        self.is_over, self._submitter = True, None
        self.failure = self.failure or failure
        self._come.tell_here()

    def _call_ended(self, number: int, _waiter: asyncio.Future[Any]) -> None:
        self._pending -= 1
        if not self._ordered:
            self._done.append(number)
        self._come.tell_here()
        self._feed.more()

    # ---- for the consumer ----------------------------------------------------------------------------------

    def begin(self, feed: _Feed) -> None:
        """Have the first calls submitted. In a running loop.

        Raises:
            BaseException: what has prevented one of these from being submitted, or from being taken.
        """
        self._loop = asyncio.get_running_loop()
        self._feed = feed
        feed.more()
        # With a buffersize, what an input raises comes in its turn.
        if self.failure is not None and (self._buffersize is None or feed.is_refused):
            failure, self.failure = self.failure, None
            self._close()
            raise failure

    async def results(self, feed: _Feed, deadline: float | None) -> AsyncIterator[Any]:
        """Return an asynchronous iterator over the results, or outcomes.

        Closing it cancels the calls that no worker has begun. feed: for a map that has not begun.
        """
        try:
            if self._loop is None:
                self.begin(feed)
            while True:
                self._asked = True
                feed.more()
                await self._come.wait(self._has_next, deadline)
                self._asked = False
                if not self._calls:
                    if self.failure is not None:
                        raise self.failure
                    return
                results = self._take(self._given if self._ordered else self._done.popleft())
                self._given += 1
                feed.more()
                while results:
                    yield results.pop()
                del results  # a last step that is protected, see `process.locks`
        finally:
            self.failure = None  # its traceback holds this frame
            self._close()
            await feed.close()

    def _has_next(self) -> bool:
        if not self._calls:
            return self.is_over
        return self._calls[self._given].waiter.done() if self._ordered else bool(self._done)

    def _take(self, number: int) -> list[Any]:
        """Return what a call is to give: results, the last one first.

        Raises:
            BaseException: what it has raised, or what ends the map.
        """
        waiter = self._calls.pop(number).waiter
        error = waiter.exception()  # raises if it was cancelled
        try:
            if error is None:
                result = waiter.result()
                if self._chunked:
                    result.reverse()
                    return result  # type: ignore[no-any-return]
                return [Outcome(number, result) if self._outcomes else result]
            chunk_calls.describe(error)
            # The pool cancels with an error that has no cause. What a call raises has: where it was raised.
            cancelled = isinstance(error, asyncio.CancelledError) and error.__cause__ is None
            if self._outcomes and not (cancelled or ends_map(error)):
                cause = error.__cause__
                # asyncio refuses a StopIteration, so it came as the cause of another error.
                wrapped = type(error) is RuntimeError and isinstance(cause, StopIteration)
                return [Outcome(number, None, cause if wrapped else error)]
            if not self._outcomes or self._ordered or cancelled:
                raise error
            self.end(error)  # behind the outcomes that are there, or come now
            return []
        finally:
            cause = None
            del waiter, error  # the error's traceback holds this frame

    def _close(self) -> None:
        self.is_over, self._submitter = True, None
        self._done.clear()
        calls, self._calls = self._calls, {}
        for call in calls.values():
            call.cancel()
            call.waiter.cancel()  # also if it is done: then asyncio does not complain that nobody looks at it


class Feed:
    """Takes the calls from ordinary iterables, when there is room for them."""

    def __init__(self, source: mapping.Source, calls: AwaitedCalls) -> None:
        self._source, self._calls = source, calls
        self.is_refused: bool = False

    def more(self) -> None:
        """Submit as many calls as there is room for. What taking one raises ends them."""
        calls = self._calls
        while not calls.is_over and calls.has_room():
            call = None
            try:
                call = self._source.next_call()
                if call is None:
                    calls.end()
                else:
                    calls.submit(*call)
            except BaseException as error:
                self.is_refused = call is not None
                calls.end(error)
                if not isinstance(error, Exception):
                    raise
            del call  # the map keeps no argument longer than it is needed

    async def close(self) -> None:
        """Do nothing: no more is taken anyway."""
