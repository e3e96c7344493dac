"""Makes the calls of one `SerialExecutor`, one after the other, in the threads that submit them.

It holds what the executor and its views share: whether calls are accepted, whether the preload and the initializer
have run, and the numbers for `stats()`. It needs nothing of Linux. Thread-safe; calls of several threads run beside
each other. A forked child goes on with its copy.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pidfdpool import checks
from pidfdpool.errors import PoolBroken
from pidfdpool.executor.serial_future import SerialFuture
from pidfdpool.executor.serial_stream import SerialStream
from pidfdpool.loop import outcomes
from pidfdpool.process import describe, locks
from pidfdpool.worker import context, tracebacks

if TYPE_CHECKING:
    from pidfdpool.executor.round_trip import RoundTrip, SentCall
    from pidfdpool.loop.held_arguments import Call
    from pidfdpool.scheduler.policy import Policy

_of_thread = threading.local()  # `task`: the fields of the CurrentTask that the thread runs


def _task_of_thread() -> tuple[int, int, float | None] | None:
    return getattr(_of_thread, "task", None)


context.task_of_thread = _task_of_thread


class SerialCalls:
    """The calls of one executor.

    Attributes:
        closed: the executor is shut down.
        broken: why no call is accepted, if the preload or the initializer has failed.
        submitted, running, finished, retries: how many calls; as in `Stats`.
    """

    def __init__(self, start: dict[str, Any], round_trip: RoundTrip | None) -> None:
        """start: what `arguments.checked_start` has returned. round_trip: None: calls are not pickled."""
        self.closed = False
        self.broken: str | None = None
        self.submitted = self.running = self.finished = self.retries = 0
        self._start = start
        self._round_trip = round_trip
        self._cause: BaseException | None = None
        self._prepared = False
        self._owner = os.getpid()
        # Reentrant, because a signal handler may submit a call, too.
        self._counting, self._preparing = locks.reentrant(), locks.reentrant()

    def check_open(self) -> None:
        """Raise PoolBroken or RuntimeError if no call is accepted."""
        if self.broken is not None:
            raise self._broken_error()
        if self.closed:
            raise RuntimeError("cannot schedule new futures after shutdown")

    def prepare(self) -> None:
        """Run the preload and the initializer, if this is the first call.

        Raises:
            PoolBroken: one of them has failed.
        """
        if not self._prepared:
            self._renew_locks_after_fork()
            with self._preparing:
                if not self._prepared:
                    self._prepared = True  # before they run, because they may submit calls
                    try:
                        self._run_preload()
                        if self.broken is None:
                            self._run_initializer()
                    except BaseException:  # a signal handler raised it, and the program may go on
                        self._prepared = False
                        raise
        if self.broken is not None:
            raise self._broken_error()

    def submit(self, policy: Policy, call: Call) -> SerialFuture[Any]:
        """Make a call, and return its future, which is done.

        Raises:
            PoolBroken, RuntimeError: no call is accepted.
            KeyboardInterrupt: Ctrl-C has interrupted the call; or what another signal handler has raised.
        """
        self.check_open()
        future: SerialFuture[Any] = SerialFuture()
        future.set_running_or_notify_cancel()
        number = self._count(submitted=1, running=1)
        try:
            result, failure = self._outcome_of(policy, call, number, future)
        finally:
            self._count(running=-1)
        if failure is None:
            self._count(finished=1)
            future.set_result(result)
        else:
            self._count(finished=1 if future.attempt else 0)
            future.set_exception(failure)
        return future

    def stream(self, call: Call) -> SerialStream[Any]:
        """Return the items of a call that returns an iterable. They are made when they are asked for.

        Raises:
            PoolBroken, RuntimeError: no call is accepted.
            CallNotSendable: with a round trip, the call cannot be pickled.
            TypeError: what it returns is not iterable.
        """
        self.check_open()
        self.prepare()
        trip = self._round_trip
        function, arguments, keywords = call if trip is None else trip.sent(call).load()
        items = checks.iterator(call[0], function(*arguments, **keywords))
        self._count(submitted=1, running=1)
        return SerialStream(
            items, None if trip is None else trip.result, partial(self._count, running=-1, finished=1)
        )

    def _outcome_of(
        self, policy: Policy, call: Call, number: int, future: SerialFuture[Any]
    ) -> tuple[Any, BaseException | None]:
        sent: SentCall | None = None
        try:
            self.prepare()
            if self._round_trip is not None:
                sent = self._round_trip.sent(call)
        except Exception as error:  # PoolBroken, or it cannot be pickled
            if _is_of_handler(error):
                raise
            return None, tracebacks.cut(error)
        waited_until = None if policy.deadline is None else time.monotonic() + policy.deadline
        while True:
            future.attempt += 1
            future.started_at = time.time()
            deadline = waited_until if policy.timeout is None else time.monotonic() + policy.timeout
            result, raised = self._attempt(call, sent, (number, future.attempt, deadline))
            may_retry = policy.retries_errors and future.attempt <= policy.retries
            if raised is None or not may_retry or not outcomes.matches(raised, policy):
                return result, raised
            self._count(retries=1)
            time.sleep(policy.retry_pause(future.attempt))

    def _attempt(
        self, call: Call, sent: SentCall | None, task: tuple[int, int, float | None]
    ) -> tuple[Any, BaseException | None]:
        before = _task_of_thread()
        _of_thread.task = task
        try:
            function, arguments, keywords = call if sent is None else sent.load()
            result = function(*arguments, **keywords)
        except BaseException as error:
            if _is_of_handler(error):
                raise
            cut = tracebacks.cut(error)
            return None, cut if self._round_trip is None else self._round_trip.error(cut)
        finally:
            _of_thread.task = before
        if self._round_trip is None:
            return result, None
        try:
            return self._round_trip.result(result), None
        except BaseException as error:
            if _is_of_handler(error):
                raise
            return None, tracebacks.cut(error)

    # ---- before the first call -----------------------------------------------------------------------------

    def _run_preload(self) -> None:
        try:
            for name in self._start["preload"]:
                import_module(name)
            if self._start["preload_call"] is not None:
                self._start["preload_call"]()
        except BaseException as error:
            if _is_of_handler(error):
                raise
            self._break(f"the preload failed: {describe.repr_of(error)}", error)

    def _run_initializer(self) -> None:
        if self._start["initializer"] is None:
            return None
        if self._round_trip is not None:
            try:
                self._round_trip.check_start(self._start["initializer"])
            except Exception as error:
                reason = f"the initializer or preload cannot be sent to workers: {describe.repr_of(error)}"
                return self._break(reason, error)
        function, arguments = self._start["initializer"]
        try:
            function(*arguments)
        except BaseException as error:
            if _is_of_handler(error):
                raise
            # By the same logger, and with the same message, as in workers.
            logging.getLogger("concurrent.futures").critical("Exception in initializer:", exc_info=True)
            self._break(f"the initializer raised: {describe.repr_of(error)}", error)
        return None

    def _break(self, reason: str, cause: BaseException) -> None:
        self.broken, self._cause = reason, tracebacks.cut(cause)

    def _broken_error(self) -> PoolBroken:
        error = PoolBroken(f"the pool is broken and runs no more tasks: {self.broken}")
        error.__cause__ = self._cause
        return error

    # ---- numbers -------------------------------------------------------------------------------------------

    def _count(self, **more: int) -> int:
        """Add to the numbers of these names; return how many calls were submitted."""
        self._renew_locks_after_fork()
        with self._counting:
            for name, number in more.items():
                setattr(self, name, getattr(self, name) + number)
            return self.submitted

    def _renew_locks_after_fork(self) -> None:
        if self._owner != os.getpid():  # another thread may have held them when this process was forked
            self._counting, self._preparing = locks.reentrant(), locks.reentrant()
            self._owner = os.getpid()


def _is_of_handler(error: BaseException) -> bool:
    """Return whether a signal handler has raised this, and not the call that it has interrupted."""
    if sys.platform == "linux":
        from pidfdpool.process import interruptible

        return interruptible.is_of_handler(error)
    return isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread()
