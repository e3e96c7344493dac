"""PidfdPoolExecutor: the front door.

It checks arguments, serializes calls, and keeps the one reference that a pool's life hangs on: when the executor is
collected, its pool finishes what was submitted and ends. Everything else is the pool's (`loop.pool`).

Thread-safe: any thread may submit, map and shut down. Fork-safe: the copy in a forked child starts a pool of its own
at its next submit, and leaves the parent's alone.
"""

from __future__ import annotations

import signal
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import CancelledError, process
from functools import partial
from multiprocessing.context import BaseContext
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, Unpack

import pidfdpool
from pidfdpool import checks
from pidfdpool.deaths import Death
from pidfdpool.executor import arguments, lifecycle
from pidfdpool.executor.futures import Future
from pidfdpool.executor.unsendable import explained
from pidfdpool.loop import death_reports, held_arguments, snapshots
from pidfdpool.loop.chunk_calls import Chunk
from pidfdpool.loop.pool import Pool
from pidfdpool.loop.snapshots import Stats, WorkerInfo
from pidfdpool.loop.task import nameable, unwrapped
from pidfdpool.scheduler.policy import Policy, PoolOptions, TaskOptions, check_names
from pidfdpool.scheduler.states import Phase, State
from pidfdpool.template.recipe import Recipe
from pidfdpool.worker import rebuild_guard

if TYPE_CHECKING:
    from pidfdpool.executor.adaptive_map import Guided
    from pidfdpool.loop.task import Recipient
    from pidfdpool.serialization import payload

P = ParamSpec("P")
T = TypeVar("T")


class PidfdPoolExecutor(process.ProcessPoolExecutor):
    """Runs calls in worker processes; a drop-in for `concurrent.futures.ProcessPoolExecutor`, and one by class.

    Args:
        max_workers: workers at most; they are started as they are needed. Default: the CPUs this process may use.
        mp_context: how the template, from which all workers are forked, comes into being: "spawn" or "forkserver"
            (the same here) start a fresh interpreter, "fork" forks the host, once; or a `multiprocessing` context.
            Default: a fresh interpreter, unless initargs hold `multiprocessing` objects that only a fork can share.
        initializer: called in each worker before its first task. If it raises, the pool breaks.
        initargs: its arguments. `multiprocessing` locks, queues, events, values and pipe ends are allowed.
        preload: what to have in the template before the first worker is forked, so that workers share it: names of
            modules to import, and at most one callable to call after that. A single one needs no tuple.
        options: the rules of the pool and the defaults for its tasks: on_crash, max_tasks_per_child, min_workers,
            timeout, retries and many others. `pidfdpool.Policy` tells all of them; `options()` refines them.

    Nothing is started before the first submit. What workers see of the host (sys.path, argv, environment, current
    directory) is what the host has at that moment; docs/environment.md tells all of it.

    Raises:
        ValueError, TypeError: an argument is not what it should be; the message names it and its value.
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
        self._pool: Pool | None = None
        self._shut_down = False
        self._lock = threading.RLock()  # guards the two above; reentrant, because signal handlers may shut down
        self._max_workers = arguments.checked_max_workers(max_workers)
        self._mp_context: Any = mp_context
        way = arguments.checked_way(mp_context)
        at_start = arguments.checked_initializer(initializer, initargs)
        modules, call = arguments.checked_preload(preload)
        check_names(type(self).__name__, options, PoolOptions.__annotations__)
        self._policy = Policy(self._max_workers, **options)
        if way == "fork":  # now, because nothing may be readable at the first submit
            import pidfdpool.template.preimports  # noqa: F401
        self._maps: weakref.WeakSet[Guided] = weakref.WeakSet()  # with calls that are not handed out
        self._subscribers: list[Callable[[Death], object]] = []
        self._make_recipe = partial(
            Recipe,
            way=way,
            preload=modules,
            preload_call=call,
            initializer=at_start,
            **self._policy.of_workers,
        )
        lifecycle.add_executor(self)

    # ---- the standard's interface --------------------------------------------------------------------------

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have fn(*args, **kwargs) run in a worker, and return its future.

        The call is serialized here and now: what is done to its arguments afterwards does not matter. If it cannot
        be serialized, the future holds that error.

        Raises:
            PoolBroken: the pool is broken; the message, `deaths` and `__cause__` tell why.
            QueueFull: max_pending tasks are pending, and block is False.
            RuntimeError: the executor, or the interpreter, is shut down; or a worker, while it imports a module to
                rebuild a task, comes upon the first use of a pool (see `rebuild_guard`).
        """
        future: Future[T] = Future()
        self._submit_for(future, self._policy, fn, args, kwargs, wait=True)
        return future

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """Return an iterator over fn(*call) for each call of zip(*iterables), in order.

        Args:
            fn: a callable that takes as many arguments as there are iterables.
            iterables: taken at once, or as results are taken if buffersize is given.
            timeout: seconds from now until the iterator raises TimeoutError. Default: never.
            chunksize: calls per task. None: as many as take a few milliseconds, measured as they run; but 1 where
                buffersize, or an option that is about each task (a timeout, say), is given.
            buffersize: tasks submitted ahead of what was taken from the iterator. Default: all of them.

        Raises:
            TypeError, ValueError: chunksize or buffersize is not what it should be.
        """
        from pidfdpool.executor import mapping

        return mapping.ordered(self, fn, iterables, timeout=timeout, chunksize=chunksize, buffersize=buffersize)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept no more tasks; let those that were accepted finish, then end every process.

        Args:
            wait: return when all that is done. It is done in any case. Only a signal handler that has interrupted a
                call of this pool's does not wait.
            cancel_futures: cancel the tasks that no worker has begun yet.
        """
        pool = self._close(cancel=cancel_futures)
        if pool is not None:
            pool.shutdown(cancel=cancel_futures)
            if wait:
                pool.join()

    def terminate_workers(self) -> None:
        """Shut down without waiting, cancel what is pending, and send SIGTERM to every worker.

        Futures of running tasks get WorkerCrashed. A task that blocks SIGTERM is finished first.
        """
        self._end_workers(signal.SIGTERM)

    def kill_workers(self) -> None:
        """Shut down without waiting, cancel what is pending, and send SIGKILL to every worker.

        Futures of running tasks get WorkerCrashed.
        """
        self._end_workers(signal.SIGKILL)

    def _end_workers(self, number: int) -> None:
        pool = self._close(cancel=True)
        if pool is not None:
            pool.kill(number)

    def _close(self, *, cancel: bool) -> Pool | None:
        """Accept no more tasks; return the pool, which is still to be told."""
        lifecycle.notice_fork()
        self._finish_maps(cancel=cancel)
        with self._lock:
            self._shut_down = True
            return self._pool

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> Literal[False]:
        """Shut down and wait; after Ctrl-C, which workers ignore, kill them rather than wait for their tasks."""
        try:
            if lifecycle.comes_of_ctrl_c(exc_type):
                self.kill_workers()
            self.shutdown(wait=True)
        except KeyboardInterrupt:
            self.kill_workers()
            self.shutdown(wait=True)
            raise
        return False

    def __repr__(self) -> str:
        """Tell the state, the workers and the pending tasks. Takes no lock."""
        try:
            pool, size, busy, pending = self._pool, self._max_workers, 0, 0
            state = "shut down" if self._shut_down else "not started" if pool is None else "open"
        except AttributeError:  # the constructor has failed
            return f"<{type(self).__name__} not initialized>"
        if pool is not None:
            busy, pending = pool.machine.counts[State.BUSY], len(pool.machine.tasks)
            state = "broken" if pool.machine.broken is not None else state
        return f"<{type(self).__name__} {state}, {busy} of {size} workers busy, {pending} tasks pending>"

    # ---- beyond the standard -------------------------------------------------------------------------------

    def options(self, **options: Unpack[TaskOptions]) -> pidfdpool.Options:
        """Return a view of this pool for tasks under other rules: `pool.options(timeout=5).submit(fn, x)`.

        Raises:
            TypeError, ValueError: there is no such option, or its value makes no sense; see `Policy`.
        """
        from pidfdpool.executor.options import Options

        return Options(self, self._policy.refined(options))

    def map_unordered(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """Return an iterator over the results of the same calls as `map`, as they come. Arguments as there.

        The first call that fails ends it with that exception; calls that no worker has been given are cancelled.
        """
        from pidfdpool.executor import mapping

        return mapping.unordered(self, fn, iterables, timeout=timeout, chunksize=chunksize, buffersize=buffersize)

    async def run(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Return fn(*args, **kwargs), run in a worker. For asyncio; quicker than `loop.run_in_executor`.

        Serializes the call at once, when it is awaited. The first call of a pool starts the template and holds up the
        loop for that long; waiting for room does not. Cancelling the task that awaits does what `Future.cancel` does.

        Raises:
            PoolBroken, QueueFull, RuntimeError: as `submit`; and what fn raises.
        """
        from pidfdpool.executor import async_calls

        result: T = await async_calls.run(self._policy, self, fn, args, kwargs)
        return result

    def amap(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
    ) -> AsyncIterator[T]:
        """Return an asynchronous iterator over the results of the same calls as `map`, in order. Arguments as there.

        The iterables are ordinary ones. The calls are submitted now, or where `max_pending` is given as there is room
        for them; leaving the iterator early (`aclose`) cancels those that no worker has been given.
        """
        from pidfdpool.executor import async_map

        return async_map.amap(self, fn, iterables, timeout=timeout, chunksize=chunksize, buffersize=buffersize)

    def prestart(self, workers: int | None = None, *, wait: bool = True, timeout: float | None = None) -> int:
        """Start the template and so many workers now, so that the first tasks need not wait for them.

        Args:
            workers: how many are to be there, with those that are there already. Default: max_workers.
            wait: return when they are ready to take tasks, their initializer done. Otherwise this returns when the
                template is there, which takes as long as an interpreter's start.
            timeout: seconds to wait at most. Default: as long as it takes.

        Returns:
            How many workers are ready: fewer without `wait`, after the timeout, or if the system allows no more.
            Calling it again does no harm. `idle_timeout` is for these workers, too.

        Raises:
            PoolBroken: the pool is broken, or breaks because the template, the preload or the initializer fails.
            RuntimeError: the executor, or the interpreter, is shut down.
            ValueError, TypeError: an argument makes no sense; the message names it and its value.
        """
        count, timeout = arguments.checked_prestart(workers, self._max_workers, wait, timeout)
        return self._open_pool().starter.prestart(count, wait=wait, timeout=timeout)

    def resize(self, max_workers: int) -> None:
        """Have so many workers at most from now on; idle ones leave first, busy ones after their task.

        Raises:
            ValueError, TypeError: max_workers is no integer, less than 1, or less than the pool's min_workers.
        """
        size = arguments.checked_max_workers(max_workers)
        checks.not_above("min_workers", self._policy.min_workers, "max_workers", size)
        lifecycle.notice_fork()
        with self._lock:
            self._max_workers, pool = size, self._pool
        if pool is not None:
            pool.resize(size)

    def subscribe(self, callback: Callable[[Death], object]) -> Callable[[], None]:
        """Have callback(death) called for every worker that ends, before the future of its task is told.

        It is called in the pool thread, mostly, and should be quick; what it raises is logged. The process that
        subscribes is the one that is told: a forked child's pool tells its copy.

        Returns:
            A function that ends the subscription; calling it again does nothing.
        """
        return death_reports.subscribe(self._subscribers, callback)

    def stats(self) -> Stats:
        """Return the pool's numbers at this moment. Cheap; any thread."""
        lifecycle.notice_fork()
        pool = self._pool
        return Stats(size=self._max_workers) if pool is None else snapshots.stats(pool.core)

    def workers(self) -> tuple[WorkerInfo, ...]:
        """Return the pool's workers at this moment, by slot. Cheap enough to be called each second; any thread."""
        lifecycle.notice_fork()
        pool = self._pool
        return () if pool is None else snapshots.workers(pool.core, time.monotonic())

    # ---- the pool behind it --------------------------------------------------------------------------------

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
        pool, call = self._open_pool(), unwrapped(fn, args, kwargs) if type(fn) is Chunk else (fn, args, kwargs)
        try:
            buffers = pool.leases.pickled(call, pool.recipe.shared_main)
        except Exception as error:  # anything else is not about the call: Ctrl-C, a handler that ends the program
            recipient._begin()
            recipient._resolve(None, explained(error, fn, args, kwargs, pool.recipe.shared_main))
            return
        pool.submit(recipient, buffers, nameable(fn), policy, held_arguments.held(call, buffers), wait=wait)

    def _sizes_chunks(self) -> bool:
        return self._policy.sizes_chunks and getattr(self.submit, "__func__", None) is _OWN_SUBMIT

    def _note_map(self, guided: Guided) -> tuple[int, payload.SharedMain | None]:
        pool = self._open_pool()
        self._maps.add(guided)
        return self._max_workers, pool.recipe.shared_main

    def _finish_maps(self, *, cancel: bool) -> None:
        """Have the calls of every map handed out, or cancelled, before nothing can be submitted any more."""
        for guided in list(self._maps):
            guided.halt(CancelledError()) if cancel else guided.finish()

    def _resubmitter(self) -> Callable[[], PidfdPoolExecutor | None]:
        return weakref.ref(self)

    def _open_pool(self) -> Pool:
        """Return the pool, made at the first use in each process. Raises if none may be used."""
        lifecycle.notice_fork()
        pool = self._pool
        if pool is not None and pool.machine.phase is Phase.OPEN and not (self._shut_down or lifecycle.is_exiting()):
            return pool
        with self._lock:
            pool = self._pool
            if pool is not None and pool.starter.stillborn:
                pool = self._pool = None
            if pool is not None and pool.machine.broken is not None:
                pool.check_open()
            if self._shut_down:
                raise RuntimeError("cannot schedule new futures after shutdown")
            lifecycle.check_not_exiting()
            if pool is None:
                rebuild_guard.check()
                pool = Pool(self._policy, self._make_recipe(), self._subscribers, self._max_workers)
                if self._shut_down:  # a signal handler has done that since
                    raise RuntimeError("cannot schedule new futures after shutdown")
                lifecycle.add_pool(pool)
                self._pool = pool
                pool.shut_down_with(self)
        return pool

    def _forget_pool_of_parent(self) -> None:
        """Begin anew in a forked child. The lock may have been copied while another thread held it."""
        self._lock = threading.RLock()
        self._pool = None
        for guided in list(self._maps):
            guided.forget_in_forked_child()
        self._maps.clear()


arguments.list_options(PidfdPoolExecutor.__init__, PoolOptions, Policy)
arguments.list_options(PidfdPoolExecutor.options, TaskOptions)
_OWN_SUBMIT = PidfdPoolExecutor.submit
ProcessPoolExecutor = PidfdPoolExecutor
