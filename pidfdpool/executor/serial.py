"""SerialExecutor: makes calls in this process, at submit, with the interface of `PidfdPoolExecutor`.

For debugging (breakpoints, profilers and tracebacks are those of one process), for tests, and for systems on which
there are no pools. It starts no process and no thread, and needs nothing of Linux.

Users call it in any of their threads, and each call is made in the thread that submits it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from multiprocessing.context import BaseContext
from typing import Any, Unpack

import pidfdpool
from pidfdpool import checks
from pidfdpool.deaths import Death
from pidfdpool.executor import arguments
from pidfdpool.executor.serial_calls import SerialCalls
from pidfdpool.executor.serial_view import SerialView
from pidfdpool.loop.snapshots import Stats, WorkerInfo
from pidfdpool.scheduler.policy import Policy, PoolOptions, check_names


class SerialExecutor(SerialView):
    """Makes each call at its submit, in the thread that submits it. An executor of the standard library's kind.

    Args:
        max_workers, mp_context, initializer, initargs, preload, options: those of `PidfdPoolExecutor`, and checked by
            the same code. The preload and the initializer run once in this process, at the first submit.
        check_pickling: whether calls and results are pickled and rebuilt, as on their way to a worker and back. Then
            a call works on a copy of its arguments, its result is a copy, and what cannot be sent to a worker fails
            here, too, with the same error.

    `retries`, `retry_on` and the pauses between attempts have their effect. All other options have none, because they
    concern workers, or would need another process to watch: timeouts, memory limits. `current_task()` tells a call
    its number, attempt and deadline. An exception of a call is the outcome of its future, and that includes
    SystemExit. What a signal handler raises, such as KeyboardInterrupt for Ctrl-C, is raised by `submit`.

    Raises:
        ValueError, TypeError: an argument makes no sense; the message names it and its value.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: BaseContext | str | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        *,
        preload: str | Callable[[], object] | Iterable[str | Callable[[], object]] = (),
        check_pickling: bool = False,
        **options: Unpack[PoolOptions],
    ) -> None:
        size = arguments.checked_max_workers(max_workers)
        start = arguments.checked_start(mp_context, initializer, initargs, preload)
        checks.boolean("check_pickling", check_pickling)
        check_names(type(self).__name__, options, PoolOptions.__annotations__)
        policy = Policy(size, **options)
        round_trip = None
        if check_pickling:
            from pidfdpool.executor.round_trip import RoundTrip

            round_trip = RoundTrip(forked=start["way"] == "fork")
        SerialView.__init__(self, SerialCalls(start, round_trip), policy)  # super() would hide the list of options
        self._size = size

    def __setattr__(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)  # unlike a view, it may be changed

    def prestart(self, workers: int | None = None, *, wait: bool = True, timeout: float | None = None) -> int:
        """Run the preload and the initializer now. Return the number of workers that a pool would have ready.

        Raises:
            PoolBroken: one of the two has failed.
            RuntimeError: the executor is shut down.
            ValueError, TypeError: an argument makes no sense; the message names it and its value.
        """
        count, _ = arguments.checked_prestart(workers, self._size, wait, timeout)
        self._calls.check_open()
        self._calls.prepare()
        return count

    def resize(self, max_workers: int) -> None:
        """Change the number that `stats()` tells. There are no workers.

        Raises:
            ValueError, TypeError: as for a pool.
        """
        size = arguments.checked_max_workers(max_workers)
        checks.not_above("min_workers", self._policy.min_workers, "max_workers", size)
        self._size = size

    def subscribe(self, callback: Callable[[Death], object]) -> Callable[[], None]:
        """Return a function that does nothing: no worker will ever end. The callback is never called."""
        if not callable(callback):
            raise TypeError(f"callback must be a callable, not {checks.short_repr(callback)}")
        return _do_nothing

    def observe(self, observer: pidfdpool.Observer) -> Callable[[], None]:  # noqa: ARG002
        """Return a function that does nothing: there are no workers, and the observer is told nothing."""
        return _do_nothing

    def trace(self, path: object, *, max_events: int = 1_000_000) -> pidfdpool.Trace:  # noqa: ARG002
        """Raise RuntimeError: there are no workers to trace."""
        raise RuntimeError(
            f"a SerialExecutor makes each call in the thread that submits it, so there is nothing to trace to "
            f"{checks.short_repr(path)}. Use a PidfdPoolExecutor."
        )

    def stats(self) -> Stats:
        """Return the present numbers. What runs is what this call is made in the middle of, or other threads run."""
        calls = self._calls
        return Stats(
            state="CLOSED" if calls.closed or calls.broken is not None else "OPEN" if calls.submitted else "IDLE",
            broken=calls.broken,
            size=self._size,
            submitted=calls.submitted,
            pending=calls.running,
            running=calls.running,
            finished=calls.finished,
            retries=calls.retries,
        )

    def workers(self) -> tuple[WorkerInfo, ...]:
        """Return an empty tuple."""
        return ()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002
        """Accept no more calls. All others are done, but for those that other threads make at the moment."""
        self._calls.closed = True

    def terminate_workers(self) -> None:
        """Accept no more calls. There are no workers to terminate."""
        self.shutdown()

    def kill_workers(self) -> None:
        """Accept no more calls. There are no workers to kill."""
        self.shutdown()

    def _is_open(self) -> bool:
        return not self._calls.closed and self._calls.broken is None

    @property
    def _max_workers(self) -> int:  # libraries read it, as they do of the standard's executors
        return self._size

    def __repr__(self) -> str:
        """Show the state, and how many calls were made."""
        if "_calls" not in self.__dict__:  # the constructor has failed
            return f"<{type(self).__name__} not initialized>"
        state = "broken" if self._calls.broken is not None else "shut down" if self._calls.closed else "open"
        return f"<{type(self).__name__} {state}, {self._calls.finished} calls made>"


def _do_nothing() -> None:
    pass


arguments.list_options(SerialExecutor.__init__, PoolOptions, Policy)
