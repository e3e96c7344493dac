"""A pool in a dask worker, which is replaced when it is broken. And the errors that name the node.

Used on the event loop of the dask worker. dask closes it as it closes its other executors.
"""

from __future__ import annotations

import concurrent.futures
from typing import TYPE_CHECKING, Any

import pidfdpool
from pidfdpool.process import locks

if TYPE_CHECKING:
    from collections.abc import Callable

_VIEWS = 100  # with other options, kept at most
_NAMED = (pidfdpool.PidfdPoolError, concurrent.futures.BrokenExecutor)


class _TaskOfDask:
    """The function by which dask runs a task. Errors of the pool name the task's key instead."""

    def __init__(self, function: Callable[..., Any], key: str) -> None:
        self._function = function
        self.__qualname__ = key
        self.__module__ = ""

    def __reduce__(self) -> tuple[Any, ...]:
        """Be the function in the worker."""
        return _itself, (self._function,)

    def __call__(self, *arguments: Any) -> Any:
        """Do what the function does."""
        return self._function(*arguments)


def _itself(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


class NodePool(concurrent.futures.Executor):
    """Runs calls in a pool of ours. What fails in the pool names the node. Thread-safe."""

    def __init__(self, node: str, workers: int, settings: dict[str, Any]) -> None:
        """Start nothing yet.

        node: the address of the dask worker. settings: other arguments of `PidfdPoolExecutor`.
        """
        self._node = node
        self._workers = workers
        self._settings = settings
        if settings.get("min_workers"):  # for dask workers of any size
            self._settings = {**settings, "min_workers": min(settings["min_workers"], workers)}
        self._lock = locks.plain()
        self._is_shut_down = False
        self._pool = self._made()
        self._views: dict[tuple[Any, ...], Any] = {}  # of the pool, by their options: to make one takes a while

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[Any]:
        """Run a call, as dask has its tasks run."""
        self.replace_if_broken()
        key = getattr(args[0], "key", None) if args else None
        return self.submit_with({}, fn if key is None else _TaskOfDask(fn, str(key)), *args, **kwargs)

    def submit_with(
        self, options: dict[str, Any], fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> pidfdpool.Future[Any]:
        """Run a call with options for tasks, and return the pool's future for it.

        Raises:
            PoolBroken: the pool broke since it was looked at.
            RuntimeError: it is shut down.
        """
        future: pidfdpool.Future[Any] = self._view(options).submit(fn, *args, **kwargs)
        future.add_done_callback(self._name_node)  # before any other callback, so dask sees it with its name
        return future

    async def run_with(self, options: dict[str, Any], fn: Callable[[], Any]) -> Any:
        """As `submit_with`, but return the result. Takes less time."""
        try:
            return await self._view(options).run(fn)
        except Exception as error:
            name_node(error, self._node)
            raise

    def replace_if_broken(self) -> None:
        """Use another pool from now on, if this one is broken."""
        if self._pool.stats().broken is None:
            return
        with self._lock:
            broken = self._pool
            if broken.stats().broken is not None and not self._is_shut_down:
                broken.shutdown(wait=False)  # nothing of it is left soon
                self._pool = self._made()
                self._views = {}

    def _view(self, options: dict[str, Any]) -> Any:
        pool, views = self._pool, self._views
        if not options:
            return pool
        key = tuple(options.items())
        if key not in views:
            if len(views) >= _VIEWS:
                views.clear()
            views[key] = pool.options(**options)
        return views[key]

    def _made(self) -> pidfdpool.PidfdPoolExecutor:
        return pidfdpool.PidfdPoolExecutor(self._workers, **self._settings)

    def _name_node(self, future: concurrent.futures.Future[Any]) -> None:
        if not future.cancelled():
            error = future.exception()
            if error is not None:
                name_node(error, self._node)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Shut the pool down."""
        with self._lock:
            self._is_shut_down = True
            pool = self._pool
        pool.shutdown(wait=wait, cancel_futures=cancel_futures)

    def kill(self) -> None:
        """Shut the pool down, and end at once what runs in it. Waits until its processes are gone."""
        with self._lock:
            self._is_shut_down = True
            pool = self._pool
        pool.kill_workers()
        pool.shutdown()

    def __repr__(self) -> str:
        """Show the pool. dask tells executors apart by their text, and looks for one of threads in it."""
        return f"<pidfdpool in {self._node}: {self._pool!r}>"


def name_node(error: BaseException, node: str) -> None:
    """Have an error of the pool say on which node it came about: in its text, and as the attribute `node`."""
    if not isinstance(error, _NAMED) or getattr(error, "node", None) is not None:
        return
    named: Any = error
    named.node = node
    text = getattr(error, "message", None) or (error.args[0] if error.args else "")
    if isinstance(text, str):
        text = f"on the node {node}: {text}"
        error.args = (text, *error.args[1:])
        if hasattr(error, "message"):
            named.message = text


def lost(name: str, key: int, nodes: list[str]) -> pidfdpool.WorkerCrashed:
    """Return the error of a call whose node was lost, for the last time."""
    node = nodes[-1] or "whose address is not known"
    text = (
        f"{name} was lost with its node: the dask worker {node} left the cluster before the call's result had come "
        "from there. Whether the call had begun is not known. If nobody ended that worker, look at its log, and for "
        "the out-of-memory killer in the kernel's log."
    )
    if len(nodes) > 1:
        text += f" It was lost {len(nodes)} times: {', '.join(each or 'unknown' for each in nodes)}."
    error: Any = pidfdpool.WorkerCrashed(text, task=name, task_id=key, attempt=len(nodes))
    error.node = nodes[-1] or None
    return error  # type: ignore[no-any-return]
