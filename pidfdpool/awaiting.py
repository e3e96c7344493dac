"""For asyncio: `run` and `amap`, which tell an event loop of results once per batch.

`loop.run_in_executor` works, too. It makes two futures for each call and wakes the loop for each result. Here a call
has the loop's own future only, and the results that come while the loop is busy share one wake-up: they lie in the
loop's mailbox until it looks.

The functions of this module run in the loop's thread, an `Awaited`'s underscored methods in whichever thread the pool
tells them something, mostly the pool thread.
"""

from __future__ import annotations

import time
import weakref
from collections import deque
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from pidfdpool import chunks, describing, mapping
from pidfdpool.errors import QueueFull
from pidfdpool.guided import Guided, Refused, opened
from pidfdpool.typed import Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Callable, Iterable
    from concurrent.futures import Future

    from pidfdpool.loop.outcomes import Recipient, WorkerName
    from pidfdpool.loop.pool import Pool
    from pidfdpool.policy import Policy


class Executor(Protocol):
    """What submits for a recipient of its own."""

    def _submit_for(
        self, recipient: Recipient, policy: Policy, fn: Callable[..., Any], args: Any, kwargs: Any, *, wait: bool
    ) -> None:
        """Submit a call whose outcome the recipient is told. wait: for room, if there is none."""


class Mailbox:
    """What has arrived for the futures of one event loop, and is not yet seen by it."""

    def __init__(self) -> None:
        self._letters: deque[tuple[asyncio.Future[Any], Any, BaseException | None]] = deque()
        self._called = False

    def post(self, waiter: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
        """Have the loop resolve a future of its own. Any thread."""
        self._letters.append((waiter, result, error))
        if not self._called:
            self._called = True
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                waiter.get_loop().call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._called = False  # before looking: who comes later calls again
        while self._letters:
            waiter, result, error = self._letters.popleft()
            if waiter.done():
                continue  # cancelled
            if error is None:
                waiter.set_result(result)
            elif issubclass(type(error), StopIteration):  # not isinstance, which may be code of the error's own
                # It would end whoever awaits as if that had returned; asyncio refuses it.
                raised = RuntimeError(f"the task raised {describing.repr_of(error)}")
                raised.__cause__ = error
                waiter.set_exception(raised)
            else:
                waiter.set_exception(error)


_mailboxes: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Mailbox] = weakref.WeakKeyDictionary()


class Awaited:
    """Takes the outcome of one task, in the place of a future."""

    __slots__ = ("_cancel_kills", "_mailbox", "_number", "_pool", "waiter")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.waiter: asyncio.Future[Any] = loop.create_future()
        self._mailbox = _mailboxes.get(loop) or _mailboxes.setdefault(loop, Mailbox())
        self._pool: Pool | None = None
        self._number = 0
        self._cancel_kills = False

    def cancel(self) -> None:
        """Withdraw the task if no worker has it; if one has, kill that worker where `cancel_kills` says so."""
        pool = self._pool
        if pool is not None:
            pool.cancel(self._number, self)
            if self._cancel_kills:
                pool.kill_task(self._number)

    # ---- for the pool --------------------------------------------------------------------------------------

    def _attach(self, pool: Pool, number: int, cancel_kills: bool) -> None:
        self._pool, self._number, self._cancel_kills = pool, number, cancel_kills

    def _begin(self) -> bool:
        return True  # who cancels takes the task out of the queue, under the pool's lock

    def _has_callbacks(self) -> bool:
        return False

    def _mark_cancelled(self) -> bool:
        return True  # it is the loop that has cancelled, and nobody else is to be told

    def _note_attempt(self, _worker: WorkerName, _attempt: int, _at: float) -> None:
        """Nobody can ask for it."""

    def _resolve(self, result: Any, error: BaseException | None) -> None:
        self._pool = None
        self._mailbox.post(self.waiter, result, error)

    def _resolve_cancelled(self) -> None:
        from asyncio import CancelledError

        self._resolve(None, CancelledError())

    def _fail_in_forked_child(self, _error: BaseException) -> None:
        self._pool = None  # the loop is the parent's


async def run(policy: Policy, executor: Executor, fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Submit a call and return its result. Cancelling the awaiting task cancels it as `Future.cancel` would."""
    import asyncio

    loop = asyncio.get_running_loop()
    awaited = Awaited(loop)
    try:
        executor._submit_for(awaited, policy, fn, args, kwargs, wait=False)
    except QueueFull:
        if not policy.block:
            raise
        # Waiting for room in this thread would stop the loop.
        await loop.run_in_executor(None, partial(executor._submit_for, awaited, policy, fn, args, kwargs, wait=True))
    try:
        return await awaited.waiter
    except asyncio.CancelledError:
        awaited.cancel()
        raise
    finally:
        del awaited  # an exception's traceback holds this frame, and what was awaited holds the exception


def amap(
    submitter: mapping.Submitter,
    function: Callable[..., Any],
    iterables: tuple[Iterable[Any], ...],
    *,
    timeout: float | None,
    chunksize: int | None,
    buffersize: int | None,
) -> AsyncIterator[Any]:
    """Submit as `map` does, and return an asynchronous iterator over the results, in order."""
    deadline, chunksize, buffersize = mapping.checked(timeout, chunksize, buffersize)
    if mapping.is_guided(submitter, chunksize, buffersize):
        return _guided(Guided(submitter, function, iterables, ordered=True), deadline)
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
    except Exception as error:
        chunks.describe(error)
        raise
