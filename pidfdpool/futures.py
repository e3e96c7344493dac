"""The Future that a pool returns: a `concurrent.futures.Future` which knows of its task.

`wait`, `as_completed` and `asyncio.wrap_future` work on it as on any other. Thread-safe as the base class is.
"""

from __future__ import annotations

import concurrent.futures
import logging
import threading
import time
from operator import attrgetter
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from pidfdpool import journal, lifecycle

if TYPE_CHECKING:
    from collections.abc import Callable

    from pidfdpool.loop.pool import Pool

T = TypeVar("T")

_log = logging.getLogger("pidfdpool")


class WorkerName(NamedTuple):
    """Which worker: its slot, its generation, which no other worker ever has, and its process id."""

    slot: int
    generation: int
    pid: int | None


class _Condition(threading.Condition):
    """A condition whose lock cannot be left held by a signal handler that raises.

    Condition enters and leaves its lock in methods of its own. An exception that comes there, out of a handler, after
    the lock was taken or before it was given back, leaves it locked for good; and the pool thread, which resolves all
    futures, would wait for it. What `with` gets here are the lock's own methods, and in those no handler runs.
    """

    __enter__ = property(attrgetter("_lock.__enter__"))
    __exit__ = property(attrgetter("_lock.__exit__"))


class Future(concurrent.futures.Future[T], Generic[T]):
    """The outcome of one task. Made by the pool only."""

    _done_callbacks: list[Callable[[concurrent.futures.Future[T]], object]]

    def __init__(self) -> None:
        super().__init__()
        self._condition.__class__ = _Condition
        self._pool: Pool | None = None
        self._number = 0
        self._cancel_kills = False
        self._begun_as: tuple[int, int, int | None, int, float] | None = None

    @property
    def worker(self) -> WorkerName | None:
        """The worker that runs the task, or ran it last; None: no worker was given it yet."""
        return None if self._begun_as is None else WorkerName(*self._begun_as[:3])

    @property
    def attempt(self) -> int:
        """The number of the task's current or last attempt, from 1; 0 before the first."""
        return 0 if self._begun_as is None else self._begun_as[3]

    @property
    def started_at(self) -> float | None:
        """When that attempt was handed to the worker, as time.time() tells it; None before the first."""
        return None if self._begun_as is None else self._begun_as[4]

    def cancel(self) -> bool:
        """Cancel the task if no worker has been given it yet; return whether it is cancelled.

        Unlike in the standard pool, that is possible for every task that has not been handed to a worker, and the
        task's arguments are let go of at once. With the option `cancel_kills` a running task is cancelled, too: the
        future is cancelled at once, and the worker is killed. asyncio cancels in this way what it awaits.
        """
        lifecycle.notice_fork()
        pool = self._pool
        if self._cancel_waiting():
            return True
        if self._cancel_kills and self._cancel_running():
            if pool is not None:
                pool.kill_task(self._number)
            return True
        return False

    def kill(self) -> bool:
        """End the task: cancel it if no worker has it, otherwise kill its worker with SIGKILL.

        A killed task's future gets TaskKilled a moment later, unless its result was written before. It is not tried
        again. Return whether there was something to end; False: the future is done. Any thread may call it.
        """
        lifecycle.notice_fork()
        pool = self._pool
        if self.done():
            return False
        if self._cancel_waiting():
            return True
        if pool is None:
            return False
        pool.kill_task(self._number)
        return True

    def _cancel_waiting(self) -> bool:
        """Do as the standard's cancel, and tell the pool."""
        pool = self._pool
        if not super().cancel():
            return False
        if pool is not None:
            pool.withdraw(self._number)
        return True

    def _cancel_running(self) -> bool:
        """Cancel this future though its task runs. Whoever waits is told at once; the outcome will be dropped."""
        with self._condition:
            if self._state != "RUNNING":
                return False
            self._state = "CANCELLED"
            self._condition.notify_all()
            self.set_running_or_notify_cancel()
        self._invoke_callbacks()
        return True

    # ---- for the pool --------------------------------------------------------------------------------------

    def _attach(self, pool: Pool, number: int, cancel_kills: bool) -> None:
        """Set whom to tell of a cancellation, until the future is resolved."""
        self._pool = pool
        self._number = number
        self._cancel_kills = cancel_kills

    def _note_attempt(self, slot: int, generation: int, pid: int | None, attempt: int) -> None:
        """Take note of the worker that is given the task."""
        self._begun_as = slot, generation, pid, attempt, time.time()

    def _begin(self) -> bool:
        """Mark the task as handed to a worker; False: there is nothing to hand over any more."""
        try:
            return self.set_running_or_notify_cancel()
        except RuntimeError:  # its owner has resolved it by hand
            return False

    def _resolve(self, result: T | None, error: BaseException | None) -> None:
        """Set the outcome. Never raises: one strange future must not cost the others theirs."""
        self._pool = None
        if self._state == "CANCELLED_AND_NOTIFIED":
            return  # by cancel(), while its task ran
        try:
            if error is not None:
                self.set_exception(error)
            else:
                self.set_result(result)  # type: ignore[arg-type]
        except concurrent.futures.InvalidStateError:
            journal.write(_log, logging.DEBUG, "a future was resolved by its owner before its task ended")
        except BaseException:
            journal.write(_log, logging.ERROR, "resolving a future failed", exc_info=True)

    def _resolve_cancelled(self) -> None:
        """Tell those who wait that the task will not run."""
        self._pool = None
        try:
            concurrent.futures.Future.cancel(self)
            self.set_running_or_notify_cancel()
        except BaseException:
            journal.write(_log, logging.ERROR, "cancelling a future failed", exc_info=True)

    def _fail_in_forked_child(self, error: BaseException) -> None:
        """Resolve this copy of a future in a process that was forked while it was pending.

        Whoever asked to be called back lives in the parent, and so does who waits, unless it is a greenlet: those are
        copied with the thread that forked. The lock may have been copied while another thread held it.
        """
        self._done_callbacks.clear()
        if self._condition.acquire(blocking=False):
            self._condition.release()
        else:
            self._condition = _Condition()
            self._waiters.clear()
        if self._state == "CANCELLED":
            self._resolve_cancelled()
        else:
            self._resolve(None, error)

    def _invoke_callbacks(self) -> None:
        # The base class lets SystemExit and KeyboardInterrupt through, which would skip the remaining callbacks and
        # end the pool thread.
        for callback in self._done_callbacks:
            try:
                callback(self)
            except BaseException:
                journal.write(_log, logging.ERROR, "exception calling callback for %r", self, exc_info=True)


__all__ = ["Future", "WorkerName"]
