"""For asyncio: `run`, which tells an event loop of results once per batch.

`loop.run_in_executor` works, too. It makes two futures for each call and wakes the loop for each result. Here a call
has the loop's own future only, and the results that come while the loop is busy share one wake-up: they lie in the
loop's mailbox until it looks.

The functions of this module run in the loop's thread, an `Awaited`'s underscored methods in whichever thread the pool
tells them something, mostly the pool thread.
"""

from __future__ import annotations

import weakref
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pidfdpool.executor import lifecycle
from pidfdpool.process import describe
from pidfdpool.typed import Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from pidfdpool.loop.pool import Pool
    from pidfdpool.loop.task import Recipient, WorkerName
    from pidfdpool.scheduler.policy import Policy


class Executor(Protocol):
    """What submits for a recipient of its own."""

    def _submit_for(
        self, recipient: Recipient, policy: Policy, fn: Callable[..., Any], args: Any, kwargs: Any, *, wait: bool
    ) -> None:
        """Submit a call whose outcome the recipient is told. wait: until there is room, or leave that to the call."""


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
                raised = RuntimeError(f"the task raised {describe.repr_of(error)}")
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
        lifecycle.notice_fork()
        pool = self._pool
        if pool is not None:
            pool.cancel(self._number, self)
            if self._cancel_kills:
                pool.kill_task(self._number)

    # ---- for the pool --------------------------------------------------------------------------------------

    def _attach(self, pool: Pool, number: int, cancel_kills: bool) -> None:
        self._pool, self._number, self._cancel_kills = pool, number, cancel_kills

    def _is_wanted(self) -> bool:
        # It is cancelled a moment before whoever awaits it comes to cancel the task.
        return not (self.waiter.done() or self.waiter.get_loop().is_closed())

    def _begin(self) -> bool:
        return not self.waiter.done()

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
    """Submit a call and return its result. Cancelling the awaiting task cancels it as `Future.cancel` would.

    If there is no room for the call, it waits for that by itself: neither the loop nor a thread has to.
    """
    import asyncio

    awaited = Awaited(asyncio.get_running_loop())
    executor._submit_for(awaited, policy, fn, args, kwargs, wait=False)
    try:
        return await awaited.waiter
    except BaseException:  # GeneratorExit, too: nobody will ever go on with this coroutine
        awaited.cancel()
        raise
    finally:
        del awaited  # an exception's traceback holds this frame, and what was awaited holds the exception
