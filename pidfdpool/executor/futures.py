"""The Future that a pool returns: a `concurrent.futures.Future` which knows of its task.

`wait`, `as_completed` and `asyncio.wrap_future` work on it as on any other. Thread-safe as the base class is.
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
from pidfdpool.loop.poller import Poller
from pidfdpool.loop.pool import Pool
from pidfdpool.process import describe, interruptible, safe_logging

T = TypeVar("T")

_log = logging.getLogger("pidfdpool")


class WorkerName(NamedTuple):
    """Which worker: its slot, its generation, which none of the last billions of others had, and its process id."""

    slot: int
    generation: int
    pid: int | None


class _WhenAsked:
    """A list that a future gets when somebody first asks for it: most are resolved before anybody does."""

    def __init__(self, kind: type[list[Any]]) -> None:
        self._kind = kind

    def __set_name__(self, _owner: type, name: str) -> None:
        self._name = name

    def __get__(self, future: Any, _owner: type) -> Any:
        if future is None:
            return self
        return future.__dict__.setdefault(self._name, self._kind())  # one step: all get the same


_NOBODY_WAITS: Any = object()  # in the place of a condition
_PENDING, _RUNNING, _CANCELLED, _FINISHED = "PENDING", "RUNNING", "CANCELLED", "FINISHED"
_UNDONE = (_PENDING, _RUNNING)


class Future(concurrent.futures.Future[T], Generic[T]):
    """The outcome of one task. Made by the pool only.

    Most futures are resolved before anybody waits for them. So a future has a condition only from the moment on when
    somebody asks for it. Whoever resolves one that has none puts a mark in its place, in one step, and sets the
    outcome; whoever asks for the condition then finds the mark, and that there is nothing to wait for. What has a
    condition is resolved with its lock, because `concurrent.futures.wait` counts what is done when it begins.

    Callbacks do without it: whoever resolves sets the state first and looks for callbacks afterwards, whoever adds
    one says so first and looks at the state afterwards. One of the two always sees the other.
    """

    _state = _PENDING
    _result: T | None = None
    _exception: BaseException | None = None
    _own_condition: interruptible.Condition | None = None
    _done_callbacks = _WhenAsked(list)
    _waiters = _WhenAsked(interruptible.Waiters)
    _calls_back = False  # whether a callback was ever added
    _pool: Pool | None = None
    _leader: Poller | None = None  # of who reads the channels to get this future's outcome
    _number = 0
    _cancel_kills = False
    _ran_in: tuple[int, int, int | None] | None = None
    _attempt = 0
    _started_at: float | None = None

    def __init__(self) -> None:
        """Make a future that waits. The base class's fields come when they are asked for."""

    if not TYPE_CHECKING:  # for type checkers it stays an attribute, which as_completed() asks for

        @property
        def _condition(self) -> interruptible.Condition:
            """What the base class locks and waits with."""
            made = self._own_condition
            if made is None:
                made = self.__dict__.setdefault(
                    "_own_condition", interruptible.Condition()
                )  # one step: all get the same
            if made is _NOBODY_WAITS:
                while not self.done():
                    time.sleep(0)  # another thread is about to set the state
                made = self._own_condition = interruptible.Condition()
            return made

    @property
    def worker(self) -> WorkerName | None:
        """The worker that runs the task, or ran it last; None: no worker has begun it, for all that is known."""
        return None if self._ran_in is None else WorkerName(*self._ran_in)

    @property
    def attempt(self) -> int:
        """The number of the task's current or last attempt, from 1; 0 before the first."""
        return self._attempt

    @property
    def started_at(self) -> float | None:
        """When that attempt began, as far as the host can tell, in time.time()'s seconds; None before the first."""
        return self._started_at

    def result(self, timeout: float | None = None) -> T:
        """Return the result, waiting for it. As in the base class, with its errors.

        Raises:
            RuntimeError: without a timeout, it would wait for itself: it was called by a callback, by a signal
                handler, or while a result was rebuilt, amid the very work that brings results.
        """
        try:
            if self._state in _UNDONE:
                self._wait(timeout if timeout is None else checks.wait("timeout", timeout))
            if self._state != _FINISHED:
                super().exception(0)  # raises what there is to raise; its result would ask whether an error is true
            if self._exception is not None:
                raise self._exception
            return self._result  # type: ignore[return-value]
        finally:
            del self  # an exception's traceback holds this frame, and the future holds the exception

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return the exception that was raised instead of a result, waiting for it, as `result` does."""
        if not self.done():
            self._wait(checks.wait("timeout", timeout))
        return super().exception(0)

    def _wait(self, timeout: float | None) -> None:
        """Wait until the future is done, or for so many seconds; by reading the channels, if possible."""
        pool = self._pool
        if pool is not None and (timeout is None or timeout > 0):
            began = time.monotonic()
            pool.leadership.wait(self, timeout)
            if self._state not in _UNDONE:
                return
            if timeout is not None:
                timeout = max(0.0, timeout - (time.monotonic() - began))
        interruptible.wait(self.done, self._condition, timeout)

    def done(self) -> bool:
        """Return whether the future is resolved or cancelled."""
        return self._state not in _UNDONE

    def add_done_callback(self, fn: Callable[[concurrent.futures.Future[T]], object]) -> None:
        """Have fn(self) called when the future is done; at once if it is. As in the base class."""
        self._calls_back = True
        self._done_callbacks.append(fn)
        if self.done():
            self._invoke_callbacks()

    def cancel(self) -> bool:
        """Cancel the task if no worker has begun it; return whether it is cancelled.

        Unlike in the standard pool, that is possible for every such task, also for one that was sent ahead, and the
        task's arguments are let go of at once. With the option `cancel_kills` a running task is cancelled, too: the
        future is cancelled at once, and the worker is killed. asyncio cancels in this way what it awaits.
        """
        lifecycle.notice_fork()
        pool = self._pool
        if self._cancel_waiting(pool):
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
        if self._cancel_waiting(pool):
            return True
        if pool is None:
            return False
        pool.kill_task(self._number)
        return True

    def _cancel_waiting(self, pool: Pool | None) -> bool:
        """Do as the standard's cancel; a task's pool is asked, because it alone knows whether that has begun."""
        if pool is None or self._state != _PENDING:
            return super().cancel()
        if not pool.cancel(self._number, self):
            return False
        self._notify()
        return True

    def _notify(self) -> None:
        """Wake who waits for the future, which is done, and call back."""
        condition = self._own_condition
        if condition is not None:
            with condition:
                condition.notify_all()
        self._invoke_callbacks()

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

    def __repr__(self) -> str:
        """Tell state, outcome, task and worker. Takes no lock.

        The name of the function is told until the task is done. After that nobody remembers it.
        """
        told = [f"state={self._state.partition('_')[0].lower()}"]
        if self._state == _FINISHED:
            failed = self._exception is not None
            outcome = describe.type_name(self._exception if failed else self._result)
            told[0] += f" {'raised' if failed else 'returned'} {outcome}"
        pool, ran_in = self._pool, self._ran_in
        if self._number:
            task = None if pool is None else pool.core.tasks.get(self._number)
            told.append(f"task {self._number}{f' ({task.label})' if task is not None else ''}")
        if ran_in is not None:
            told.append(f"attempt {self._attempt} in worker {ran_in[0]} (pid {ran_in[2]})")
        return f"<{type(self).__name__} at {id(self):#x} {', '.join(told)}>"

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        """Refuse to be copied and pickled, as the standard's does: nobody would tell a copy anything."""
        raise TypeError(
            f"cannot copy or pickle {type(self).__name__!r} object: it belongs to the process that submitted the "
            "task, and only there it is told the outcome. Copy or send its result() instead."
        )

    # ---- for the pool --------------------------------------------------------------------------------------

    def _attach(self, pool: Pool, number: int, cancel_kills: bool) -> None:
        """Set whom to tell of a cancellation, until the future is resolved."""
        self._pool = pool
        self._number = number
        self._cancel_kills = cancel_kills

    def _note_attempt(self, worker: tuple[int, int, int | None], attempt: int, at: float) -> None:
        """Take note of the worker that is given the task."""
        self._ran_in = worker
        self._attempt = attempt
        self._started_at = at

    def _is_wanted(self) -> bool:
        return self._state == _PENDING

    def _begin(self) -> bool:
        """Mark the task as handed to a worker; False: there is nothing to hand over any more."""
        if self._state == _PENDING:
            self._state = _RUNNING
            return True
        if self._state == _CANCELLED:
            with suppress(RuntimeError):  # its owner has told those who wait, by hand
                self.set_running_or_notify_cancel()
        return self._state == _RUNNING  # or its owner has resolved it by hand

    def _has_callbacks(self) -> bool:
        """Return whether telling this future calls something of the user's."""
        return self._calls_back and bool(self._done_callbacks)

    def _mark_cancelled(self) -> bool:
        """Make this a cancelled future, if it still waits; return whether it is one. Nobody is told yet."""
        if self._state == _PENDING:
            self._state = _CANCELLED
        return self._state == _CANCELLED

    def _resolve(self, result: T | None, error: BaseException | None) -> None:
        """Set the outcome, and tell who waits. Whoever was interrupted in this may do it again."""
        self._pool = None
        if self._state not in _UNDONE or self._cancel_kills:
            self._resolve_if_wanted(result, error)
            return
        condition = self.__dict__.setdefault("_own_condition", _NOBODY_WAITS)
        if condition is _NOBODY_WAITS:
            self._result, self._exception = result, error
            self._state = _FINISHED
        else:
            with condition:
                self._result, self._exception = result, error
                self._state = _FINISHED
                self._tell_waiters(condition)
        if self._leader is not None or self._calls_back:
            self._invoke_callbacks()

    def _tell_waiters(self, condition: interruptible.Condition) -> None:
        condition.notify_all()
        for waiter in self._waiters:
            if self._exception is None:
                waiter.add_result(self)
            else:
                waiter.add_exception(self)

    def _resolve_if_wanted(self, result: T | None, error: BaseException | None) -> None:
        """Do the same for a future that others may resolve or cancel at the same time, or have."""
        if self._state == "CANCELLED_AND_NOTIFIED":
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
            self._notify()  # or by who was interrupted before all were told
        except BaseException as failure:
            if interruptible.is_exit_request(failure):
                raise
            safe_logging.log(_log, logging.ERROR, "resolving a future failed", exc_info=True)

    def _resolve_cancelled(self) -> None:
        """Tell those who wait that the task will not run."""
        self._pool = None
        try:
            if self._mark_cancelled():
                self._notify()
                self.set_running_or_notify_cancel()
        except BaseException as failure:
            if interruptible.is_exit_request(failure):
                raise
            safe_logging.log(_log, logging.ERROR, "cancelling a future failed", exc_info=True)

    def _fail_in_forked_child(self, error: BaseException) -> None:
        """Resolve this copy of a future in a process that was forked while it was pending.

        Whoever asked to be called back lives in the parent, and so does who waits, unless it is a greenlet: those are
        copied with the thread that forked. The lock may have been copied while another thread held it.
        """
        self._leader = None
        self._done_callbacks.clear()
        condition = self._own_condition
        if condition is _NOBODY_WAITS:
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
        # Here come all ways in which a future can be resolved or cancelled, the base class's too.
        if self._leader is not None:
            self._leader.wake_leader()
        # The base class lets SystemExit and KeyboardInterrupt through, which would skip the remaining callbacks and
        # end the pool thread. In the main thread they may come of a signal, and are raised when all are called.
        asked: BaseException | None = None
        callbacks = self._done_callbacks
        while callbacks:
            try:
                callback = callbacks.pop(0)
            except IndexError:
                break  # another thread was quicker
            try:
                callback(self)
            except BaseException as error:
                if interruptible.is_exit_request(error):
                    asked = error
                else:
                    safe_logging.log(_log, logging.ERROR, "exception calling callback for %r", self, exc_info=True)
        try:
            if asked is not None:
                raise asked
        finally:
            del asked  # its traceback holds this frame


__all__ = ["Future", "WorkerName"]
