"""For asyncio: `run`, which wakes an event loop once for all results that have come meanwhile.

`loop.run_in_executor` works, too. It makes two futures for each call, and wakes the loop for each result. Here a call
has one future, the loop's own. Results that come while the loop is busy share one wake-up: they lie in the loop's
mailbox until the loop looks. A loop that is woken often reads the workers' channels itself (`LoopReader`), and
then needs no wake-up at all.

The functions of this module run in the loop's thread. The pool calls the underscored methods of an `AwaitedTask` in
any thread, mostly in the pool thread or the loop's own.
"""

from __future__ import annotations

import weakref
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pidfdpool.executor import lifecycle
from pidfdpool.loop.loop_reader import LoopReader
from pidfdpool.process import describe
from pidfdpool.typed import Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from pidfdpool.loop.pool import Pool
    from pidfdpool.loop.task import Recipient, WorkerName
    from pidfdpool.scheduler.policy import Policy


OFTEN = 16  # wake-ups of a loop; where there are fewer it does not pay that the loop reads


class Executor(Protocol):
    """What submits a call whose outcome another object than a future gets."""

    def _submit_for(
        self, recipient: Recipient, policy: Policy, fn: Callable[..., Any], args: Any, kwargs: Any, *, wait: bool
    ) -> None:
        """Submit a call for a recipient. wait: whether to wait here for room, or to let the call wait by itself."""


class Mailbox:
    """The outcomes for the futures of one event loop that the loop has not taken yet."""

    def __init__(self) -> None:
        self._outcomes: deque[tuple[asyncio.Future[Any], Any, BaseException | None]] = deque()
        self._wakeup_pending = False
        self._wakeups = 0
        self.reader: LoopReader | None = None  # by which the loop can read the workers' channels itself

    def post(self, waiter: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
        """Have the loop resolve a future of the loop. Any thread."""
        self._outcomes.append((waiter, result, error))
        if self.reader is not None and self.reader.reads_here:
            self._take()
        elif not self._wakeup_pending:
            self._wakeup_pending = True
            with suppress(RuntimeError):  # the loop is closed, so nobody waits any more
                waiter.get_loop().call_soon_threadsafe(self._deliver)

    def make_reader(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have the loop be able to read the channels, if it is woken often."""
        if self._wakeups >= OFTEN:
            self._wakeups = 0
            with suppress(NotImplementedError, OSError):  # for some loops nobody can watch a descriptor
                self.reader = LoopReader(loop)

    def _deliver(self) -> None:
        self._wakeup_pending = False  # before looking: a later post wakes the loop again
        self._wakeups += 1
        self._take()

    def _take(self) -> None:
        while self._outcomes:
            waiter, result, error = self._outcomes.popleft()
            if waiter.done():
                continue  # cancelled
            if error is None:
                waiter.set_result(result)
            elif issubclass(type(error), StopIteration):  # not isinstance, which may run the error's own code
                # asyncio refuses it: raised in a coroutine, it would mean that the coroutine has returned.
                raised = RuntimeError(f"the task raised {describe.repr_of(error)}")
                raised.__cause__ = error
                waiter.set_exception(raised)
            else:
                waiter.set_exception(error)


_mailboxes: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Mailbox] = weakref.WeakKeyDictionary()


class AwaitedTask:
    """Gets the outcome of one task, in the place of a future."""

    __slots__ = ("_cancel_kills", "_mailbox", "_number", "_pool", "waiter")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.waiter: asyncio.Future[Any] = loop.create_future()
        self._mailbox = mailbox = _mailboxes.get(loop) or _mailboxes.setdefault(loop, Mailbox())
        if mailbox.reader is None or mailbox.reader.closed:
            mailbox.make_reader(loop)
        self._pool: Pool | None = None
        self._number = 0
        self._cancel_kills = False

    def cancel(self) -> None:
        """Cancel the task if no worker has begun it. If one has, and `cancel_kills` is set, kill that worker."""
        lifecycle.detect_fork()
        pool = self._pool
        if pool is not None:
            pool.cancel(self._number, self)
            if self._cancel_kills:
                pool.kill_task(self._number)

    # ---- for the pool --------------------------------------------------------------------------------------

    def _attach(self, pool: Pool, number: int, cancel_kills: bool) -> None:
        self._pool, self._number, self._cancel_kills = pool, number, cancel_kills
        pool.note_observer()

    def _is_wanted(self) -> bool:
        # The waiter is cancelled a moment before the coroutine that awaits it cancels the task.
        return not (self.waiter.done() or self.waiter.get_loop().is_closed())

    def _begin(self) -> bool:
        return not self.waiter.done()

    def _has_callbacks(self) -> bool:
        return False

    def _is_observed(self) -> bool:
        return True

    def _mark_cancelled(self) -> bool:
        return True  # the loop itself has cancelled it, and nobody else waits

    def _note_attempt(self, _worker: WorkerName, _attempt: int, _at: float) -> None:
        """Do nothing: an awaited call has no object to ask for the attempt."""

    def _resolve(self, result: Any, error: BaseException | None) -> None:
        pool, self._pool = self._pool, None
        reader = self._mailbox.reader
        if reader is not None and pool is not None:
            pool.core.watchdog.offered = reader
        self._mailbox.post(self.waiter, result, error)

    def _resolve_cancelled(self) -> None:
        from asyncio import CancelledError

        self._resolve(None, CancelledError())

    def _fail_in_forked_child(self, _error: BaseException) -> None:
        self._pool = None  # the loop belongs to the parent


async def run(policy: Policy, executor: Executor, fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Submit a call and return its result. Cancelling the task that awaits does what `Future.cancel` does.

    If there is no room for the call, the call waits for room by itself: neither the loop nor a thread waits.
    """
    import asyncio

    awaited = AwaitedTask(asyncio.get_running_loop())
    executor._submit_for(awaited, policy, fn, args, kwargs, wait=False)
    try:
        return await awaited.waiter
    except BaseException:  # GeneratorExit, too: this coroutine was closed
        awaited.cancel()
        raise
    finally:
        del awaited  # an exception's traceback holds this frame, and `awaited` holds the exception
