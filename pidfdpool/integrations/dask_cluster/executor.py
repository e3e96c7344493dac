"""`DaskExecutor`: what users call, and its views with other options.

Thread-safe. It belongs to the process that made it: dask's client cannot be used in a forked child.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from pidfdpool.integrations.dask_cluster import options as option_rules
from pidfdpool.integrations.dask_cluster import payloads
from pidfdpool.integrations.dask_cluster.chunks import dump
from pidfdpool.integrations.dask_cluster.futures import ClusterFuture
from pidfdpool.integrations.dask_cluster.mapping import ClusterMap
from pidfdpool.integrations.dask_cluster.submission import Submission
from pidfdpool.process import locks

if TYPE_CHECKING:
    from types import TracebackType

    from distributed import Client

    from pidfdpool.integrations.dask_cluster.options import Rules

P = ParamSpec("P")
T = TypeVar("T")


class Submitter(concurrent.futures.Executor):
    """The ways to submit calls, which an executor and its views have in common."""

    _rules: Rules
    _options: dict[str, Any]  # for tasks

    def _executor(self) -> DaskExecutor:
        """Return the executor itself."""
        raise NotImplementedError

    @property
    def _max_workers(self) -> int:  # libraries read it, as they do of the standard's executors
        return self._executor()._submission.threads

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> ClusterFuture[T]:
        """Run fn(*args, **kwargs) on the cluster, and return its future.

        The call is pickled before this returns: later changes of its arguments have no effect on it. If it cannot be
        pickled, the future has that error.

        Raises:
            PoolBroken: the scheduler has gone away, or the client is closed.
            RuntimeError: the executor is shut down, or this is a forked child.
        """
        return self._executor()._submit(self._rules, fn, args, kwargs)

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        return_exceptions: bool = False,
        star: bool = False,
    ) -> Iterator[Any]:
        """Return an iterator over fn(*call) for each call of zip(*iterables), in order.

        Args:
            fn: a callable that takes as many arguments as there are iterables.
            iterables: read now; with a buffersize, as results are taken: then what one raises comes in its turn.
            timeout: seconds from now until the iterator raises TimeoutError. Default: never.
            chunksize: calls per request. None: as many as take a twentieth of a second, as measured. Each call
                fails for itself in any case, and options apply to each.
            buffersize: calls (or chunks, with a chunksize) to take ahead of the next result. Default: all.
            return_exceptions: yield a `pidfdpool.Outcome` for each call, instead of ending at the first that fails.
            star: there is one iterable, and each item is a tuple of arguments.

        Raises:
            TypeError, ValueError: an argument is not what it should be.
            CallNotSendable: fn cannot be pickled.
            PoolBroken, RuntimeError: as `submit`.
        """
        return self._executor()._begin_map(
            self._rules, fn, iterables, ordered=True, timeout=timeout, chunksize=chunksize, buffersize=buffersize,
            return_exceptions=return_exceptions, star=star,
        ).results()  # fmt: skip

    def map_unordered(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        return_exceptions: bool = False,
        star: bool = False,
    ) -> Iterator[Any]:
        """As `map`, but the iterator yields the results in the order in which they come."""
        return self._executor()._begin_map(
            self._rules, fn, iterables, ordered=False, timeout=timeout, chunksize=chunksize, buffersize=buffersize,
            return_exceptions=return_exceptions, star=star,
        ).results()  # fmt: skip

    async def run(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run fn(*args, **kwargs) on the cluster and return its result. For asyncio, in any event loop.

        Cancelling the task that awaits this does what `ClusterFuture.cancel` does.
        """
        return await asyncio.wrap_future(self.submit(fn, *args, **kwargs))

    def amap(
        self,
        fn: Callable[..., T],
        *iterables: Any,
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        return_exceptions: bool = False,
        star: bool = False,
    ) -> AsyncIterator[Any]:
        """As `map`, but return an asynchronous iterator over the results, in order.

        The iterables may be asynchronous ones. These are read as results are taken, 1000 items ahead if no
        buffersize is given. Closing the iterator early (`aclose`) closes them, and cancels what has not begun.
        """
        return self._executor()._begin_map(
            self._rules, fn, iterables, ordered=True, timeout=timeout, chunksize=chunksize, buffersize=buffersize,
            return_exceptions=return_exceptions, star=star, asynchronous=True,
        ).asynchronous_results()  # fmt: skip

    def amap_unordered(
        self,
        fn: Callable[..., T],
        *iterables: Any,
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        return_exceptions: bool = False,
        star: bool = False,
    ) -> AsyncIterator[Any]:
        """As `amap`, but the iterator yields the results in the order in which they come."""
        return self._executor()._begin_map(
            self._rules, fn, iterables, ordered=False, timeout=timeout, chunksize=chunksize, buffersize=buffersize,
            return_exceptions=return_exceptions, star=star, asynchronous=True,
        ).asynchronous_results()  # fmt: skip

    def options(self, **options: Any) -> ClusterOptions:
        """Return a view of the executor that submits with other options: `executor.options(timeout=5).submit(f, x)`.

        Raises:
            TypeError, ValueError: there is no such option, it makes no sense on a cluster, or its value makes none.
        """
        option_rules.check_names("options", options, option_rules.OF_EXECUTOR, for_tasks=True)
        option_rules.check_refinement(self._options, options)
        return ClusterOptions(self._executor(), _refined(self._options, options))


class DaskExecutor(Submitter):
    """Runs calls on a dask cluster, with the interface of `PidfdPoolExecutor`.

    Each dask worker, here called a node, makes the calls in the workers of a pool of ours. So a call that crashes,
    leaks or hangs costs that call, and not the dask worker with its data. pidfdpool has to be installed, in the same
    version, on the scheduler and on all nodes.

    Args:
        client: a `distributed.Client`, which stays open when the executor is shut down. It must not be one with
            asynchronous=True; `run` and `amap` work in any event loop all the same.
        options: those of `PidfdPoolExecutor` that make sense on a cluster, for the pool of each node and for calls.
            Refused are: deadline, max_pending, block, on_crash, max_workers.

    A call runs at most once, unless `retries` allows more. If a dask worker is lost, the calls that it had been given
    are tried again on another node as far as `retries` and `retry_on` (WorkerCrashed) allow. Otherwise they fail with
    WorkerCrashed. Everything else goes on. If the scheduler goes away, all pending calls fail with PoolBroken.

    Errors of the pool are those that it has locally, and have an attribute `node`, the address of the dask worker.

    Raises:
        TypeError, ValueError: an argument makes no sense, or not on a cluster; the message names it and its value.
        PoolBroken: the client is closed.
    """

    def __init__(self, client: Client, **options: Any) -> None:
        self._check_client(client)
        option_rules.check_names(type(self).__name__, options, option_rules.OF_EXECUTOR)
        option_rules.check_values(None, options)
        self._options = option_rules.of_tasks(options)
        self._rules = option_rules.rules(self._options)
        settings = payloads.dumps(option_rules.of_pool(options))
        self._lock = locks.plain()
        self._is_shut_down = False
        self._closing: Callable[[], None] | None = None  # of a client that is ours
        self._maps: weakref.WeakSet[ClusterMap] = weakref.WeakSet()
        self._submission = Submission(client, settings)
        self._ended: concurrent.futures.Future[None] | None = None  # of what has to be done at the end
        self._finalizer = weakref.finalize(self, _end, self._submission, None)
        self._finalizer.atexit = False

    def _close_with(self, closing: Callable[[], None]) -> None:
        """Close the client, too, when this is shut down."""
        self._closing = closing
        self._finalizer.detach()
        self._finalizer = weakref.finalize(self, _end, self._submission, closing)
        self._finalizer.atexit = False

    def _executor(self) -> DaskExecutor:
        return self

    def _check_client(self, client: Any) -> None:
        from distributed import Client

        if not isinstance(client, Client):
            raise TypeError(f"client must be a distributed.Client, not {client!r}")
        if client._asynchronous:
            raise TypeError(
                "client must be one with a thread of its own, Client(address), and this one has asynchronous=True. "
                "With such a one, run() and amap() work in any event loop"
            )

    def _submit(self, rules: Rules, fn: Any, args: Any, kwargs: Any) -> ClusterFuture[Any]:
        self._check_open()
        submission = self._submission
        future: ClusterFuture[Any] = ClusterFuture(submission, cancel_kills=rules.cancel_kills)
        name = f"{getattr(fn, '__module__', '')}.{getattr(fn, '__qualname__', type(fn).__qualname__)}"
        try:
            call = dump((fn, args, kwargs), name, "the function or an argument")
        except Exception as error:
            submission.check()
            future.set_exception(error)
            return future
        submission.send(future, rules, name, None, (call,))
        return future

    def _begin_map(
        self, rules: Rules, fn: Callable[..., Any], iterables: tuple[Any, ...], **arguments: Any
    ) -> ClusterMap:
        self._check_open()
        self._submission.check()
        self._submission.count_threads(wait=not arguments.get("asynchronous"))
        begun = ClusterMap(self._submission, rules, fn, iterables, **arguments)
        self._maps.add(begun)
        return begun

    def _check_open(self) -> None:
        if self._is_shut_down:
            raise RuntimeError("cannot schedule new futures after shutdown")

    # ---- the end -------------------------------------------------------------------------------------------

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept no more calls. When the accepted ones have ended, end the pools on the nodes.

        The client stays open, and so do the cluster and its data.

        Args:
            wait: whether to return only when all that is done. It is done in any case.
            cancel_futures: whether to cancel the calls that have not begun, as far as is known here.
        """
        ended = self._begin_end(cancel=cancel_futures)
        if wait:
            ended.result()

    async def aclose(self, *, cancel_futures: bool = False) -> None:
        """As `shutdown`, without blocking the event loop."""
        ended = self._begin_end(cancel=cancel_futures)
        await asyncio.wait([asyncio.ensure_future(asyncio.shield(asyncio.wrap_future(ended)))])

    def kill_workers(self) -> None:
        """Shut down without waiting, cancel what has not begun, and kill what runs.

        Futures of running calls get TaskKilled.
        """
        pending = self._submission.pending()
        self._begin_end(cancel=True)
        self._submission.kill_all([key for key, _ in pending])

    def _begin_end(self, *, cancel: bool) -> concurrent.futures.Future[None]:
        with self._lock:
            self._is_shut_down = True
            is_first = self._ended is None
            if self._ended is None:
                self._ended = concurrent.futures.Future()
            ended = self._ended
        for each in list(self._maps):
            each.finish(cancel=cancel)
        if cancel:
            for _, recipient in self._submission.pending():
                if isinstance(recipient, ClusterFuture) and not recipient.running():
                    recipient._cancel()
        if is_first:
            self._finalizer.detach()
            _end(self._submission, self._closing, ended)
        return ended

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        """Shut down and wait. After Ctrl-C, kill what runs instead of waiting for it."""
        try:
            if exc_type is not None and issubclass(exc_type, KeyboardInterrupt):
                self.kill_workers()
            self.shutdown(wait=True)
        except KeyboardInterrupt:
            self.kill_workers()
            self.shutdown(wait=True)
            raise

    async def __aenter__(self) -> DaskExecutor:
        """Return the executor."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Shut down, without blocking the event loop."""
        await self.aclose()

    def __repr__(self) -> str:
        """Show the cluster, and how many requests are pending."""
        submission = self.__dict__.get("_submission")  # there is none if the constructor has failed
        if submission is None:
            return f"<{type(self).__name__} not initialized>"
        state = "shut down" if self._is_shut_down else "open"
        return (
            f"<{type(self).__name__} on {submission.address}, {state}, {len(submission.pending())} requests pending>"
        )


class ClusterOptions(Submitter):
    """The same executor, with other options for the calls that are submitted through this view. Made by `options()`.

    Thread-safe. It does not own the executor, so it cannot shut it down.
    """

    def __init__(self, owner: DaskExecutor, options: dict[str, Any]) -> None:
        self._owner = owner  # which this keeps alive
        self._options = options
        self._rules = option_rules.rules(options)

    def _executor(self) -> DaskExecutor:
        return self._owner

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Do nothing: a view does not own the executor."""

    def __repr__(self) -> str:
        """Show the options."""
        shown = ", ".join(f"{name}={value!r}" for name, value in self._options.items())
        return f"<options({shown}) of {self._owner!r}>"


def _refined(base: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Return options with changes. As in the pool, a shorter timeout shortens the grace of all tasks for these."""
    changed = {**base, **given}
    if given.get("timeout") is not None and "grace" not in given and base.get("grace") is not None:
        changed["grace"] = min(base["grace"], given["timeout"])
    return changed


def _end(
    submission: Submission,
    closing: Callable[[], None] | None,
    ended: concurrent.futures.Future[None] | None = None,
) -> None:
    """End an executor: when its calls have ended, its pools do, and then its client if that is not the user's.

    ended: resolved when all that is done.
    """
    ended = ended or concurrent.futures.Future()
    if closing is None:
        submission.end(ended)
        return

    def close() -> None:
        try:
            closing()
        finally:
            ended.set_result(None)

    # In a thread, because the client cannot be closed from its own.
    pools_ended: concurrent.futures.Future[None] = concurrent.futures.Future()
    pools_ended.add_done_callback(lambda _: threading.Thread(target=close, name="pidfdpool-dask-close").start())
    submission.end(pools_ended)
