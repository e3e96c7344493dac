"""Pool: `multiprocessing.Pool` on the engine of `PidfdPoolExecutor`.

A pool owns one executor. Each call of apply, and each chunk of map and imap, is one task of it. So
`maxtasksperchild` counts chunks, and a worker that dies fails its chunk only.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.pool
import warnings
from typing import TYPE_CHECKING, Any, NoReturn, Unpack

import pidfdpool
from pidfdpool import checks
from pidfdpool.integrations.process_pool import at_exit
from pidfdpool.integrations.process_pool.requests import Requests, Root
from pidfdpool.integrations.process_pool.workers import Worker
from pidfdpool.process import locks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from multiprocessing.context import BaseContext
    from types import TracebackType

    from pidfdpool.integrations.process_pool.inputs import Inputs
    from pidfdpool.integrations.process_pool.iterators import IMapIterator


class Pool(Requests, multiprocessing.pool.Pool):  # type: ignore[misc]
    """Worker processes that calls are submitted to: a drop-in for `multiprocessing.Pool`, and a subclass of it.

    Args:
        processes: the number of workers. Default: the number of CPUs that this process may use.
        initializer, initargs: called in each worker before its first call. If it raises, the pool breaks, and every
            call gets PoolBroken.
        maxtasksperchild: a worker is replaced after so many calls of apply or chunks of map. Default: never.
        context: a `multiprocessing` context. Its start method says how the template is started, from which all
            workers are forked. Default: the start method that `multiprocessing` uses.
        options: those of `PidfdPoolExecutor`: timeout, retries, max_memory_per_child and others.

    The workers are started at once, as in the standard library. The pool is to be closed or terminated; that is also
    what leaving a `with` block does (`terminate`).

    Thread-safe. Fork-safe: in a forked child the pool has workers of its own from its next call on.

    Raises:
        ValueError, TypeError: an argument makes no sense; the message names it and its value.
    """

    _state: str = multiprocessing.pool.INIT

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        context: BaseContext | None = None,
        **options: Unpack[pidfdpool.PoolOptions],
    ) -> None:
        if processes is not None and checks.integer("processes", processes) < 1:
            raise ValueError(f"Number of processes must be at least 1, not {processes}")
        if maxtasksperchild is not None and (type(maxtasksperchild) is not int or maxtasksperchild < 1):
            raise ValueError(
                f"maxtasksperchild must be a positive int or None, not {checks.short_repr(maxtasksperchild)}"
            )
        if maxtasksperchild is not None:
            options["max_tasks_per_child"] = checks.integer("maxtasksperchild", maxtasksperchild)
        self._ctx: BaseContext = context or multiprocessing.get_context(_usual_start_method())
        self._executor = pidfdpool.PidfdPoolExecutor(processes, self._ctx, initializer, initargs, **options)
        self._submit = self._executor.submit
        self._root = self
        self._processes: int = self._executor.stats().size
        self._inputs: dict[Inputs, IMapIterator] = {}  # of imap, where something is left to submit
        self._lock = locks.reentrant()  # guards the one above, and the state
        self._executor.prestart(wait=False)
        self._state = multiprocessing.pool.RUN
        at_exit.add(self)

    def options(self, **options: Unpack[pidfdpool.TaskOptions]) -> PoolView:
        """Return a view of this pool that calls with other options: `pool.options(timeout=5).map(f, items)`.

        An option applies to a call of apply, or to a chunk.

        Raises:
            TypeError, ValueError: there is no such option, or its value makes no sense; see `pidfdpool.Policy`.
        """
        return PoolView(self, self._executor.options(**options))

    def close(self) -> None:
        """Accept no more calls. What was accepted is finished, and then the workers leave."""
        with self._lock:
            if self._state != multiprocessing.pool.RUN:
                return
            self._state = multiprocessing.pool.CLOSE
        self._shut_down_if_done()

    def terminate(self) -> None:
        """End the workers at once, by SIGKILL. What they ran gets WorkerCrashed, what had to wait CancelledError."""
        with self._lock:
            self._state = multiprocessing.pool.TERMINATE
            unread = list(self._inputs)
        for inputs in unread:
            inputs.end()
        self._executor.kill_workers()
        self._executor.shutdown(wait=True)

    def join(self) -> None:
        """Wait until all workers have left. What is left of the inputs of imap is read for that.

        Raises:
            ValueError: the pool was neither closed nor terminated.
        """
        if self._state == multiprocessing.pool.RUN:
            raise ValueError("Pool is still running")
        while self._inputs:
            with self._lock:
                opened = next(iter(self._inputs.values()), None)
            if opened is not None:
                opened.submit_rest()
        self._executor.shutdown(wait=True)

    def __enter__(self) -> Pool:
        """Return the pool.

        Raises:
            ValueError: it is closed or terminated.
        """
        self._check_running()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        """Terminate."""
        self.terminate()

    def __reduce__(self) -> NoReturn:
        """Refuse: a pool belongs to its process."""
        raise NotImplementedError("pool objects cannot be passed between processes or pickled")

    def __del__(self) -> None:
        """Warn of a pool that was neither closed nor terminated, and let its workers leave."""
        if self._state == multiprocessing.pool.RUN:
            warnings.warn(
                f"unclosed running multiprocessing pool {self!r}", ResourceWarning, source=self, stacklevel=2
            )
            self._executor.shutdown(wait=False)

    def __repr__(self) -> str:
        """Show the state and the number of workers."""
        kind = type(self)
        size = getattr(self, "_processes", 0)
        return f"<{kind.__module__}.{kind.__qualname__} state={self._state} pool_size={size}>"

    # ---- what others read ----------------------------------------------------------------------------------

    @property
    def _pool(self) -> list[Worker]:
        """The workers. Waits until they are started."""
        if self._state == multiprocessing.pool.RUN:
            self._executor.prestart()
        return [Worker(info) for info in self._executor.workers() if info.pid is not None]

    def _repopulate_pool(self) -> None:
        """Start the workers that are missing."""
        self._executor.prestart()

    # ---- for what belongs to it ----------------------------------------------------------------------------

    def _check_running(self) -> None:
        if self._state != multiprocessing.pool.RUN:
            raise ValueError("Pool not running")

    def _keep(self, inputs: Inputs, opened: IMapIterator) -> None:
        """Stay open until all inputs were submitted."""
        with self._lock:
            if not inputs.ended:
                self._inputs[inputs] = opened

    def _forget(self, inputs: Inputs) -> None:
        with self._lock:
            self._inputs.pop(inputs, None)
        self._shut_down_if_done()

    def _shut_down_if_done(self) -> None:
        with self._lock:
            is_done = self._state == multiprocessing.pool.CLOSE and not self._inputs
        if is_done:
            self._executor.shutdown(wait=False)


class PoolView(Requests):
    """The same pool, with other options for the calls that are made through this view. Made by `Pool.options`."""

    def __init__(self, root: Root, options: pidfdpool.Options) -> None:
        self._root = root
        self._options = options
        self._submit = options.submit

    def options(self, **options: Unpack[pidfdpool.TaskOptions]) -> PoolView:
        """Return another view. Options that are not given stay as they are in this one."""
        return PoolView(self._root, self._options.options(**options))


def _usual_start_method() -> str:
    """Return the start method that `multiprocessing` uses, without settling it."""
    chosen: str | None = multiprocessing.get_start_method(allow_none=True)
    return chosen or multiprocessing.get_all_start_methods()[0]
