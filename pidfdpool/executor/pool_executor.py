"""PidfdPoolExecutor: the class that users call.

It checks arguments, serializes calls, and holds the only reference to its pool (`own_pool`), which does everything
else. When the executor is garbage collected, the pool finishes the submitted tasks and ends.

Thread-safe: any thread may submit, map and shut down. Fork-safe: a copy in a forked child starts its own pool at its
next submit, and does not touch the parent's.
"""

from __future__ import annotations

import os
import signal
import time
import weakref
from collections.abc import Callable, Iterable
from concurrent.futures import process
from functools import partial
from multiprocessing.context import BaseContext
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, Self, TextIO, TypeVar, Unpack

import pidfdpool
from pidfdpool import checks
from pidfdpool.deaths import Death
from pidfdpool.executor import arguments, lifecycle, pool_submission
from pidfdpool.executor.futures import Future
from pidfdpool.executor.maps import Maps
from pidfdpool.executor.own_pool import OwnPool
from pidfdpool.loop import death_reports, snapshots
from pidfdpool.loop.pool import Pool
from pidfdpool.loop.snapshots import Stats, WorkerInfo
from pidfdpool.scheduler.policy import Policy, PoolOptions, TaskOptions, check_names
from pidfdpool.template.recipe import Recipe

if TYPE_CHECKING:
    from pidfdpool.executor.open_maps import Map
    from pidfdpool.loop.task import Recipient

P = ParamSpec("P")
T = TypeVar("T")


class PidfdPoolExecutor(Maps, process.ProcessPoolExecutor):
    """Runs calls in worker processes: a drop-in for `concurrent.futures.ProcessPoolExecutor`, and a subclass of it.

    Args:
        max_workers: the maximum number of workers, which are started when they are needed. Default: the number of
            CPUs that this process may use, or whose time its cgroups may take (a container's limit), if that is less.
        mp_context: how the template is started, from which all workers are forked. "spawn" and "forkserver" mean the
            same here: a fresh interpreter. "fork": the host is forked, once. Or a `multiprocessing` context.
            Default: a fresh interpreter, unless initargs hold `multiprocessing` objects that only a fork can share.
        initializer: called in each worker before its first task. If it raises, the pool breaks.
        initargs: its arguments. `multiprocessing` locks, queues, events, values and pipe ends are allowed.
        preload: what the template loads before the first worker is forked, so that workers share it: names of
            modules to import, and at most one callable to call after that. A single one needs no tuple.
        options: the options of the pool, and the defaults for its tasks: on_crash, max_tasks_per_child, min_workers,
            timeout, retries and many others. `pidfdpool.Policy` describes all; `options()` changes them for tasks.

    Nothing is started before the first submit. Workers see sys.path, argv, environment and current directory as the
    host has them at that moment; docs/environment.md has the details.

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
        **options: Unpack[PoolOptions],
    ) -> None:
        size = arguments.checked_max_workers(max_workers)
        self._mp_context: Any = mp_context
        start = arguments.checked_start(mp_context, initializer, initargs, preload)
        check_names(type(self).__name__, options, PoolOptions.__annotations__)
        self._policy = Policy(size, **options)
        arguments.load_for_fork(start)
        if self._policy.forward_logs:  # now, because at the first submit no file may be readable any more
            import pidfdpool.loop.log_relay
            import pidfdpool.worker.log_forwarding  # noqa: F401
        self._own = OwnPool(self._policy, partial(Recipe, **start, **self._policy.of_workers))

    # ---- the standard's interface --------------------------------------------------------------------------

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run fn(*args, **kwargs) in a worker, and return its future.

        The call is serialized before this returns: later changes of its arguments have no effect on it. If it cannot
        be serialized, the future has that error.

        Raises:
            PoolBroken: the pool is broken; the message, `deaths` and `__cause__` say why.
            QueueFull: max_pending tasks are pending, and block is False.
            RuntimeError: the executor, or the interpreter, is shut down; or a worker, which imports a module to
                rebuild a task, runs the first submit of a pool there (see `rebuild_guard`).
        """
        future: Future[T] = Future() if not self._policy.context_vars else pool_submission.context_future()
        pool_submission.submit(self._own.open(self), future, self._policy, (fn, args, kwargs), wait=True)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept no more tasks. When the accepted ones have finished, end every process.

        Args:
            wait: whether to return only when all that is done. It is done in any case. A signal handler that has
                interrupted a call of this pool does not wait.
            cancel_futures: whether to cancel the tasks that no worker has begun. No worker begins them any more. If
                they are many, the pool's thread cancels them, and without `wait` this may return before.
        """
        self._own.shutdown(wait=wait, cancel=cancel_futures)

    async def aclose(self, *, cancel_futures: bool = False) -> None:
        """Shut down as `shutdown` does, and wait without blocking the event loop. For asyncio.

        No thread waits along. Any number of coroutines may wait, in several event loops, and it may be called again.
        If one that waits is cancelled, only its wait ends: the pool finishes the accepted tasks and ends.

        Args:
            cancel_futures: as for `shutdown`.
        """
        await self._own.aclose(cancel=cancel_futures)

    def terminate_workers(self) -> None:
        """Shut down without waiting, cancel what is pending, and send SIGTERM to every worker.

        Futures of running tasks get WorkerCrashed. A task that blocks SIGTERM is finished first.
        """
        self._own.end_workers(signal.SIGTERM)

    def kill_workers(self) -> None:
        """Shut down without waiting, cancel what is pending, and send SIGKILL to every worker.

        Futures of running tasks get WorkerCrashed.
        """
        self._own.end_workers(signal.SIGKILL)

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> Literal[False]:
        """Shut down and wait. After Ctrl-C, which workers ignore, kill them instead of waiting for their tasks."""
        try:
            if lifecycle.is_caused_by_ctrl_c(exc_type):
                self.kill_workers()
            self.shutdown(wait=True)
        except KeyboardInterrupt:
            self.kill_workers()
            self.shutdown(wait=True)
            raise
        return False

    async def __aenter__(self) -> Self:
        """Return the executor, which `async with` closes without blocking the event loop."""
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> Literal[False]:
        """Shut down and wait, as `aclose`. After Ctrl-C kill the workers, as `__exit__` does."""
        try:
            if lifecycle.is_caused_by_ctrl_c(exc_type):
                self.kill_workers()
            await self.aclose()
        except BaseException as error:
            if lifecycle.is_caused_by_ctrl_c(type(error)):
                self.kill_workers()
                await self.aclose()
            raise
        return False

    def __repr__(self) -> str:
        """Show the state, the workers and the pending tasks. Takes no lock."""
        own = self.__dict__.get("_own")  # there is none if the constructor has failed
        return f"<{type(self).__name__} {'not initialized' if own is None else own.description()}>"

    # ---- beyond the standard -------------------------------------------------------------------------------

    def options(self, **options: Unpack[TaskOptions]) -> pidfdpool.Options:
        """Return a view of this pool that submits with other options: `pool.options(timeout=5).submit(fn, x)`.

        Raises:
            TypeError, ValueError: there is no such option, or its value makes no sense; see `Policy`.
        """
        from pidfdpool.executor.options import Options

        return Options(self, self._policy.refined(TaskOptions(**options)))

    async def run(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run fn(*args, **kwargs) in a worker and return its result. For asyncio; faster than `loop.run_in_executor`.

        The call is serialized when it is awaited. The first call of a pool starts the template, and blocks the loop
        for that time. Waiting for room does not block it. Cancelling the task that awaits this does what
        `Future.cancel` does.

        Raises:
            PoolBroken, QueueFull, RuntimeError: as `submit`; and what fn raises.
        """
        from pidfdpool.executor import async_calls

        result: T = await async_calls.run(self._policy, self, fn, args, kwargs)
        return result

    def stream(self, fn: Callable[..., Iterable[T]], /, *args: Any, buffersize: int = 1000) -> pidfdpool.Stream[T]:
        """Run the generator fn(*args) in a worker, and return a `Stream`: an iterator over its items as they come.

        Use it in a loop, `for row in pool.stream(read_rows, path)`, or in a coroutine with `async for`. The generator
        waits when the reader is `buffersize` items or 16 MB behind. An item is pickled when it is yielded, and is
        there within 5 ms. Items that come quickly travel together. The stream is one task, to which the options apply
        as to others, but it is not tried again. Time that the generator waits for its reader counts for a timeout.

        A `shutdown` that waits closes the streams that its thread reads. They give what had come, and then raise
        RuntimeError. With `cancel_futures` all are closed.

        Args:
            fn: a generator function, or another one that returns an iterable. For keywords use functools.partial.
            buffersize: items that the generator may be ahead of its reader.

        Raises:
            TypeError, ValueError: fn is not callable, or buffersize is no number of items.
            CallNotSendable: the call cannot be pickled.
            PoolBroken, QueueFull, RuntimeError: as `submit`. In a coroutine it does not wait for room here: reading
                does.
        """
        from pidfdpool.executor import stream

        return stream.open_stream(self, fn, args, buffersize)

    def prestart(self, workers: int | None = None, *, wait: bool = True, timeout: float | None = None) -> int:
        """Start the template and workers now, so that the first tasks need not wait for them.

        Args:
            workers: the number of workers to have, including those that exist. Default: max_workers.
            wait: whether to return only when they are ready for tasks, after their initializer. Otherwise this
                returns when the template is ready, which takes as long as the start of an interpreter.
            timeout: seconds to wait at most. Default: no limit.

        Returns:
            The number of workers that are ready: fewer without `wait`, after the timeout, or if the system allows no
            more. It may be called again. `idle_timeout` applies to these workers, too.

        Raises:
            PoolBroken: the pool is broken, or breaks because the template, the preload or the initializer fails.
            RuntimeError: the executor, or the interpreter, is shut down.
            ValueError, TypeError: an argument makes no sense; the message names it and its value.
        """
        count, timeout = arguments.checked_prestart(workers, self._max_workers, wait, timeout)
        return self._own.open(self).starter.prestart(count, wait=wait, timeout=timeout)

    def resize(self, max_workers: int) -> None:
        """Change the maximum number of workers. Idle ones leave first, busy ones after their task.

        Raises:
            ValueError, TypeError: max_workers is no integer, less than 1, or less than the pool's min_workers.
        """
        size = arguments.checked_max_workers(max_workers)
        checks.not_above("min_workers", self._policy.min_workers, "max_workers", size)
        self._own.resize(size)

    def subscribe(self, callback: Callable[[Death], object]) -> Callable[[], None]:
        """Call callback(death) for every worker that ends, before the future of its task is resolved.

        It is mostly called in the pool thread, and should be quick. What it raises is logged. A forked child has a
        copy of the subscription, for the deaths of its own pool.

        Returns:
            A function that ends the subscription. Calling it again does nothing.
        """
        return death_reports.subscribe(self._own.subscribers, callback)

    def observe(self, observer: pidfdpool.Observer) -> Callable[[], None]:
        """Tell an observer what happens from now on: each attempt of a task with its times, workers, template.

        `pidfdpool.Observer` is what it has to be like, and says what it is told. There may be several, and they may
        come and go at any time, also before the first submit. An observer must not keep this executor alive.

        Returns:
            A function that ends this. Before it returns, the observer has been told all that was noted. Calling it
            again does nothing.

        Raises:
            TypeError: observer has not all the methods of `pidfdpool.Observer`.
        """
        return self._own.observe(observer)

    def trace(self, path: str | os.PathLike[str] | TextIO, *, max_events: int = 1_000_000) -> pidfdpool.Trace:
        """Write what happens in the pool to a file, in a `with` block: `with pool.trace("run.json"): ...`.

        Perfetto (ui.perfetto.dev) shows such a file, and `python -m pidfdpool report` makes a page of it. It has a
        track for each worker with every task, its queue time and sizes, starts, deaths and retries; docs/tracing.md
        describes it. It is written while the pool runs, so it can be read after a crash of this process, too. The
        block may begin before the first submit or at any other time, and there may be several traces of a pool. Tasks
        that are running when the block ends are not in the file.

        What cannot be written later on (a full disk) is logged as a warning, and ends the trace, nothing else.

        Args:
            path: the file, which is overwritten; or a text file that is open for writing, which is written when the
                block ends and not closed.
            max_events: the limit of events in the file. A task has 6, of some 100 bytes each. Of tasks beyond that
                the file has only the number.

        Raises:
            ValueError, TypeError: an argument makes no sense; the message names it and its value. Entering the block
                raises what `Trace.__enter__` says.
        """
        from pidfdpool.executor.tracing.trace import Trace

        return Trace(self, path, checks.integer("max_events", max_events, least=1))

    def stats(self) -> Stats:
        """Return the pool's current numbers. Takes microseconds; any thread. Observers are told what is new."""
        lifecycle.detect_fork()
        pool = self._pool
        if pool is not None:
            pool.tell_observers()
        return Stats(size=self._max_workers) if pool is None else snapshots.stats(pool.core)

    def workers(self) -> tuple[WorkerInfo, ...]:
        """Return the pool's current workers, by slot. Reads two files of proc(5) for each; any thread."""
        lifecycle.detect_fork()
        pool = self._pool
        return () if pool is None else snapshots.workers(pool.core, time.monotonic())

    # ---- the pool behind it --------------------------------------------------------------------------------

    @property
    def _pool(self) -> Pool | None:
        return self._own.pool

    def _is_open(self) -> bool:
        return self._own.is_open

    @property
    def _max_workers(self) -> int:  # libraries read it, as they do of the standard's executors
        return self._own.max_workers

    def _submit_for(
        self,
        recipient: Recipient,
        policy: Policy,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        wait: bool,
    ) -> None:
        pool_submission.submit(self._own.open(self), recipient, policy, (fn, args, kwargs), wait=wait)

    def _sizes_chunks(self) -> bool:
        return self._policy.sizes_chunks and getattr(self.submit, "__func__", None) is _OWN_SUBMIT

    def _register_map(self, adaptive_map: Map) -> tuple[int, Pool]:
        pool = self._own.open(self)
        self._own.maps.add(adaptive_map)
        return self._own.max_workers, pool

    def _submitter_ref(self, lost: Callable[[Any], object] | None = None) -> Callable[[], PidfdPoolExecutor | None]:
        return weakref.ref(self, lost)


arguments.list_options(PidfdPoolExecutor.__init__, PoolOptions, Policy)
arguments.list_options(PidfdPoolExecutor.options, TaskOptions)
_OWN_SUBMIT = PidfdPoolExecutor.submit
ProcessPoolExecutor = PidfdPoolExecutor
