"""The Future that a pool returns: a `concurrent.futures.Future` that can also kill its task and tell its worker.

`wait`, `as_completed` and `asyncio.wrap_future` work with it as with any other. Thread-safe, as the base class.
"""

from __future__ import annotations

import concurrent.futures
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, NoReturn, TypeVar

from pidfdpool import checks
from pidfdpool.executor import lifecycle
from pidfdpool.executor.lazy_list import LazyList
from pidfdpool.loop.poller import Poller
from pidfdpool.loop.pool import Pool
from pidfdpool.process import describe, interruptible, safe_logging

T = TypeVar("T")

_log = logging.getLogger("pidfdpool")


class WorkerName(NamedTuple):
    """A worker: its slot, its generation (unique among the last 2**32 workers of the pool) and its process id."""

    slot: int
    generation: int
    pid: int | None


_NO_WAITERS: Any = object()  # takes the place of the condition of a future that was resolved without one
_PENDING, _RUNNING, _CANCELLED, _FINISHED = "PENDING", "RUNNING", "CANCELLED", "FINISHED"
_NOTIFIED = "CANCELLED_AND_NOTIFIED"
_NOT_DONE = (_PENDING, _RUNNING)


class Future(concurrent.futures.Future[T], Generic[T]):
    """The outcome of one task. Made by the pool only.

    Most futures are resolved before anybody waits for them. So the condition that waiters use is made at its first
    access. A thread that resolves a future without one stores `_NO_WAITERS` in its place, in one atomic step, and
    then sets the outcome. A thread that needs the condition later finds `_NO_WAITERS`, and need not wait. A future
    that has a condition is resolved under its lock, because `concurrent.futures.wait` counts, under that lock, the
    futures that are done.

    Callbacks need no lock. The thread that resolves sets the state first, and looks for callbacks afterwards. A
    thread that adds a callback sets `_had_callbacks` first, and looks at the state afterwards. So one of the two
    always sees what the other has done.
    """

    _state = _PENDING
    _result: T | None = None
    _exception: BaseException | None = None
    _own_condition: interruptible.Condition | None = None
    _done_callbacks = LazyList(list)
    _waiters = LazyList(interruptible.Waiters)
    _had_callbacks = False  # whether a callback was ever added
    _pool: Pool | None = None
    _leader: Poller | None = None  # of the thread that waits for this future by reading the channels
    _number = 0
    _cancel_kills = False
    _worker: tuple[int, int, int | None] | None = None
    _attempt = 0
    _started_at: float | None = None

    if not TYPE_CHECKING:
        # All fields are made at their first access. An empty method of ours would be one call more for each task.
        __init__ = object.__init__

        # For type checkers it stays an attribute, which as_completed() asks for.
        @property
        def _condition(self) -> interruptible.Condition:
            """The condition that the base class uses."""
            made = self._own_condition
            if made is None:
                made = self.__dict__.setdefault("_own_condition", interruptible.Condition())  # atomic
                if (pool := self._pool) is not None:
                    pool.note_observer()
            if made is _NO_WAITERS:
                if self._state == _CANCELLED:
                    self._state = _NOTIFIED  # so does the thread that cancels, which this one may have interrupted
                while not self._is_done():
                    time.sleep(0)  # another thread is about to set the state
                made = self._own_condition = interruptible.Condition()
            return made

    @property
    def worker(self) -> WorkerName | None:
        """The worker that runs the task, or ran it last. None: as far as the host knows, no worker has begun it."""
        return None if self._worker is None else WorkerName(*self._worker)

    @property
    def attempt(self) -> int:
        """The number of the task's current or last attempt, from 1; 0 before the first."""
        return self._attempt

    @property
    def started_at(self) -> float | None:
        """When that attempt began, as far as the host knows, in time.time()'s seconds. None before the first."""
        return self._started_at

    def result(self, timeout: float | None = None) -> T:
        """Return the result, and wait for it if necessary, for `timeout` seconds at most. As in the base class.

        Raises:
            TimeoutError, CancelledError: as in the base class; and whatever the task has raised.
            RuntimeError: no timeout was given, and the call would wait for itself: a callback, a signal handler, or
                code that runs while a result is rebuilt has interrupted the work that resolves futures.
        """
        try:
            if self._state in _NOT_DONE:
                self._wait(timeout if timeout is None else checks.wait_time("timeout", timeout))
            if self._state != _FINISHED:
                super().exception(0)  # raises; super().result() would ask for the truth value of an error
            if self._exception is not None:
                raise self._exception
            return self._result  # type: ignore[return-value]
        finally:
            del self  # an exception's traceback holds this frame, and the future holds the exception

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return the exception that the task has raised, None for a result, and wait for it as `result` does."""
        if not self._is_done():
            self._wait(checks.wait_time("timeout", timeout))
        return super().exception(0)

    def _wait(self, timeout: float | None) -> None:
        """Wait until the future is done, for `timeout` seconds at most, by reading the channels if possible."""
        pool = self._pool
        if pool is not None and (timeout is None or timeout > 0):
            began = time.monotonic()
            pool.leadership.wait(self, timeout)
            if self._state not in _NOT_DONE:
                return
            if timeout is not None:
                timeout = max(0.0, timeout - (time.monotonic() - began))
        interruptible.wait(self._is_done, self._condition, timeout)

    def done(self) -> bool:
        """Return whether the future is resolved or cancelled."""
        if self._state not in _NOT_DONE:
            return True
        if (pool := self._pool) is not None:
            pool.note_observer()  # who asks again and again waits for the answer, too
        return False

    def _is_done(self) -> bool:
        return self._state not in _NOT_DONE

    def add_done_callback(self, fn: Callable[[concurrent.futures.Future[T]], object]) -> None:
        """Call fn(self) when the future is done, at once if it is. As in the base class."""
        self._had_callbacks = True
        self._done_callbacks.append(fn)
        if (pool := self._pool) is not None:
            pool.note_observer()
        if self._is_done():
            self._invoke_callbacks()

    def cancel(self) -> bool:
        """Cancel the task if no worker has begun it; return whether it is cancelled.

        Unlike in the standard pool, a task that was sent to a worker ahead can be cancelled, too, and the task's
        arguments are released at once. With the option `cancel_kills` a running task is cancelled, too: the future
        is cancelled at once, and the worker is killed. asyncio calls this for a future that it awaits.
        """
        lifecycle.detect_fork()
        pool = self._pool
        if self._cancel_waiting(pool):
            return True
        if self._cancel_kills and self._cancel_running():
            if pool is not None:
                pool.kill_task(self._number)
            return True
        return False

    def kill(self) -> bool:
        """End the task: cancel it if no worker has begun it, otherwise kill its worker with SIGKILL.

        The future of a killed task gets TaskKilled a moment later, unless its result was written before. The task is
        not retried. Return False if the future was done already. Any thread may call it.
        """
        lifecycle.detect_fork()
        pool = self._pool
        if self.done():
            return False
        if self._cancel_waiting(pool):
            return True
        if pool is not None:
            pool.kill_task(self._number)
        return pool is not None

    def _cancel_waiting(self, pool: Pool | None) -> bool:
        """Cancel a pending task. The pool is asked, because it alone knows whether the task has begun."""
        if pool is None or self._state != _PENDING:
            return super().cancel()
        if not pool.cancel(self._number, self):
            return False
        if self._state != _NOTIFIED:  # the pool thread does the rest in a moment
            self._notify()
        return True

    def _notify(self) -> None:
        """Wake the threads that wait for this future, which is done, and call its callbacks."""
        condition = self._own_condition
        if condition is not None and condition is not _NO_WAITERS:
            how = "add_result" if self._exception is None else "add_exception"
            with condition:
                condition.notify_all()
                self._waiters.tell(self, how, again=True)
        if self._leader is not None or self._had_callbacks:
            self._invoke_callbacks()

    def _cancel_running(self) -> bool:
        """Cancel this future though its task runs. Waiting threads are woken at once; the outcome will be dropped."""
        with self._condition:
            if self._state != "RUNNING":
                return False
            self._state = _CANCELLED
            self._condition.notify_all()
            self.set_running_or_notify_cancel()
        self._invoke_callbacks()
        return True

    def __repr__(self) -> str:
        """Show state, type of the outcome, task, until it is done its function, and worker. Takes no lock."""
        parts = [f"state={self._state.partition('_')[0].lower()}"]
        if self._state == _FINISHED:
            failed = self._exception is not None
            outcome = describe.type_name(self._exception if failed else self._result)
            parts[0] += f" {'raised' if failed else 'returned'} {outcome}"
        pool, worker = self._pool, self._worker
        if self._number:
            task = None if pool is None else pool.core.tasks.get(self._number)
            parts.append(f"task {self._number}{f' ({task.label})' if task is not None else ''}")
        if worker is not None:
            parts.append(f"attempt {self._attempt} in worker {worker[0]} (pid {worker[2]})")
        return f"<{type(self).__name__} at {id(self):#x} {', '.join(parts)}>"

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        """Raise TypeError: as in the standard library, a copy would never be resolved."""
        raise TypeError(
            f"cannot copy or pickle {type(self).__name__!r} object: it belongs to the process that submitted the "
            "task, and only there it is resolved. Copy or send its result() instead."
        )

    # ---- for the pool: see `Recipient` ----------------------------------------------------------------------

    def _attach(self, pool: Pool, number: int, cancel_kills: bool) -> None:
        self._pool, self._number = pool, number
        if cancel_kills:
            self._cancel_kills = True

    def _note_attempt(self, worker: tuple[int, int, int | None], attempt: int, at: float) -> None:
        self._worker = worker
        self._attempt = attempt
        self._started_at = at

    def _is_wanted(self) -> bool:
        return self._state == _PENDING

    def _begin(self) -> bool:
        if self._state == _PENDING:
            self._state = _RUNNING
            return True
        if self._state == _CANCELLED:
            with suppress(RuntimeError):  # the user has called that before
                self.set_running_or_notify_cancel()
        return self._state == _RUNNING  # False: the user has resolved it

    def _has_callbacks(self) -> bool:
        return self._had_callbacks and bool(self._done_callbacks)

    def _is_observed(self) -> bool:
        return self._had_callbacks or self._own_condition is not None

    def _mark_cancelled(self) -> bool:
        if self._state == _PENDING:
            self._state = _CANCELLED
        return self._state == _CANCELLED

    def _resolve(self, result: T | None, error: BaseException | None) -> None:
        """Set the outcome, and notify waiting threads. If this was interrupted, it may be called again."""
        self._pool = None
        if self._state not in _NOT_DONE or self._cancel_kills:
            self._resolve_if_wanted(result, error)
            return
        condition = self.__dict__.setdefault("_own_condition", _NO_WAITERS)
        if condition is _NO_WAITERS:
            if error is not None:
                self._exception = error
            self._result = result
            self._state = _FINISHED
        else:
            with condition:
                self._waiters.told = []
                self._result, self._exception = result, error
                self._state = _FINISHED
                condition.notify_all()
                self._waiters.tell(self, "add_result" if error is None else "add_exception")
        if self._leader is not None or self._had_callbacks:
            self._invoke_callbacks()

    def _resolve_if_wanted(self, result: T | None, error: BaseException | None) -> None:
        """As `_resolve`, for a future that the user may have resolved or cancelled, or does at this moment."""
        if self._state == _NOTIFIED:
            return  # by cancel(), while its task ran
        if self._state == _CANCELLED:
            self._resolve_cancelled()
            return
        try:
            if error is not None:
                self.set_exception(error)
            else:
                self.set_result(result)  # type: ignore[arg-type]
        except concurrent.futures.InvalidStateError:
            safe_logging.log(_log, logging.DEBUG, "a future was resolved by its owner before its task ended")
            self._notify()  # perhaps it was `_resolve` that was interrupted before all were notified
        except BaseException as failure:
            if interruptible.is_exit_request(failure):
                raise
            safe_logging.log(_log, logging.ERROR, "resolving a future failed", exc_info=True)

    def _resolve_cancelled(self) -> None:
        """Cancel, and notify waiting threads: the task will not run. It may be called again, as `_resolve`."""
        self._pool = None
        try:
            if self._state in (_PENDING, _CANCELLED):  # as in `_mark_cancelled`
                self._state = _CANCELLED
                if self.__dict__.setdefault("_own_condition", _NO_WAITERS) is _NO_WAITERS:
                    self._state = _NOTIFIED
                    if self._leader is None and not self._had_callbacks:
                        return  # there is nobody to notify
                else:
                    self.set_running_or_notify_cancel()
            if self._state == _NOTIFIED:
                self._notify()
        except BaseException as failure:
            if interruptible.is_exit_request(failure):
                raise
            safe_logging.log(_log, logging.ERROR, "cancelling a future failed", exc_info=True)

    def _fail_in_forked_child(self, error: BaseException) -> None:
        """Resolve this copy of a future in a process that was forked while it was pending.

        Callbacks are left to the parent. So are waiting threads; but greenlets that wait are copied with the thread
        that has forked. The lock may have been copied while another thread held it.
        """
        self._leader = None
        self._done_callbacks.clear()
        condition = self._own_condition
        if condition is _NO_WAITERS:
            self._own_condition = interruptible.Condition()
        elif condition is not None:
            if condition.acquire(blocking=False):
                condition.release()
            else:
                self._own_condition = interruptible.Condition()
                self._waiters.clear()
        if self._state == _CANCELLED:
            self._resolve_cancelled()
        else:
            self._resolve(None, error)

    def _invoke_callbacks(self) -> None:
        # However a future is resolved or cancelled, also by the base class, this is called.
        if self._leader is not None:
            self._leader.wake_leader()
        # With the base class, SystemExit or KeyboardInterrupt would skip the remaining callbacks and end the pool
        # thread. In the main thread a signal handler may have raised it. Here it is raised when all were called.
        raised: BaseException | None = None
        callbacks = self._done_callbacks
        while callbacks:
            try:
                callback = callbacks.pop(0)
            except IndexError:
                break  # another thread has taken it
            try:
                callback(self)
            except BaseException as error:
                if interruptible.is_exit_request(error):
                    raised = error
                else:
                    safe_logging.log(_log, logging.ERROR, "exception calling callback for %r", self, exc_info=True)
        try:
            if raised is not None:
                raise raised
        finally:
            del raised  # its traceback holds this frame


__all__ = ["Future", "WorkerName"]
