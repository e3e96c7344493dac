"""What every pool that is compared looks like to the scenarios, and two interfaces that several of them share.

Their modules are loaded by `prepare` only, so that no measurement includes that.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from importlib import import_module, metadata
from importlib.util import find_spec
from itertools import islice
from math import inf
from typing import Any, ClassVar


class UnsupportedError(Exception):
    """This contender has no way to do that; the message says what is missing."""


class Contender:
    """A pool with so many workers. Futures that it returns have `result(timeout)`, which raises TimeoutError."""

    name: ClassVar[str]
    title: ClassVar[str]
    module: ClassVar[str]
    distribution: ClassVar[str | None] = None  # None: it comes with Python
    loaded: ClassVar[Any] = None
    most_pending: ClassVar[float] = inf  # tasks after which submit blocks

    pool: Any

    @classmethod
    def installed(cls) -> bool:
        """Return whether its module can be found."""
        return find_spec(cls.module.partition(".")[0]) is not None

    @classmethod
    def version(cls) -> str | None:
        """Return the version of its distribution, if it has one of its own."""
        return None if cls.distribution is None else metadata.version(cls.distribution)

    @classmethod
    def prepare(cls) -> None:
        """Load its module, so that no measurement includes that."""
        cls.loaded = import_module(cls.module)

    def submit(self, _fn: Callable[..., Any], *_args: Any) -> Any:
        """Submit a call and return a future."""
        raise UnsupportedError("there is no submit")

    def call(self, fn: Callable[..., Any], *args: Any) -> Any:
        """Run one call and wait for it."""
        return self.submit(fn, *args).result()

    def map(self, fn: Callable[[Any], Any], items: Any, chunksize: int | None = None) -> Iterable[Any]:
        """Return the results for items that have a length, in order. No chunksize: the contender's default."""
        raise NotImplementedError

    def lazy_map(self, fn: Callable[[Any], Any], items: Iterator[Any], _count: int) -> Iterable[Any]:
        """Return the results for an iterator's items, in order, by the laziest way that the contender offers."""
        return self.map(fn, items)

    def bounded_map(self, fn: Callable[[Any], Any], items: Iterator[Any], ahead: int) -> Iterable[Any]:
        """Return the results for an iterator's items, in order, while at most so many are taken ahead of them.

        Where map knows no such bound, by what its users write instead: a window of futures.
        """
        pending = deque(self.submit(fn, item) for item in islice(items, ahead))
        while pending:
            result = pending.popleft().result()
            pending.extend(self.submit(fn, item) for item in islice(items, 1))
            yield result

    def timed_map(self, _fn: Callable[[Any], Any], _items: Any, _seconds: float) -> Iterable[Any]:
        """Return the results for items, in order, where each call is ended if it takes longer than that."""
        raise UnsupportedError("no call is ended after a time by itself")

    def awaitable(self, _fn: Callable[..., Any], *_args: Any) -> Awaitable[Any]:
        """Submit a call from an event loop, in the way that is usual with this contender."""
        raise UnsupportedError("there is no way to wait for it in an event loop")

    def native_awaitable(self, _fn: Callable[..., Any], *_args: Any) -> Awaitable[Any]:
        """Submit a call from an event loop by the contender's own support for that."""
        raise UnsupportedError("it has no support for asyncio of its own")

    def close(self) -> None:
        """Let tasks finish, and wait until all is gone."""
        raise NotImplementedError

    def drop(self) -> None:
        """Begin to end it: tasks that wait are cancelled, and nothing is waited for."""
        raise UnsupportedError("the end of a pool cannot cancel what waits and let the rest finish")

    def kill(self) -> None:
        """End everything, tasks that run included, and wait until all is gone."""
        raise UnsupportedError("tasks that run cannot be ended")


class ExecutorContender(Contender):
    """What has the interface of concurrent.futures.Executor."""

    def submit(self, fn: Callable[..., Any], *args: Any) -> Any:
        return self.pool.submit(fn, *args)

    def map(self, fn: Callable[[Any], Any], items: Any, chunksize: int | None = None) -> Iterable[Any]:
        return self.pool.map(fn, items, **({} if chunksize is None else {"chunksize": chunksize}))

    def bounded_map(self, fn: Callable[[Any], Any], items: Iterator[Any], ahead: int) -> Iterable[Any]:
        if "buffersize" in inspect.signature(self.pool.map).parameters:  # the standard library's since Python 3.14
            return self.pool.map(fn, items, buffersize=ahead)
        return super().bounded_map(fn, items, ahead)

    def awaitable(self, fn: Callable[..., Any], *args: Any) -> Awaitable[Any]:
        return asyncio.get_running_loop().run_in_executor(self.pool, fn, *args)

    def close(self) -> None:
        self.pool.shutdown()

    def drop(self) -> None:
        if "cancel_futures" not in inspect.signature(self.pool.shutdown).parameters:
            super().drop()
        self.pool.shutdown(wait=False, cancel_futures=True)

    def kill(self) -> None:
        if not hasattr(self.pool, "kill_workers"):  # the standard library's has it since Python 3.14
            super().kill()
        self.pool.kill_workers()
        self.pool.shutdown()


class AsyncResult:
    """A future made of what `apply_async` returns."""

    def __init__(self, pending: Any, timeout_error: type[Exception]) -> None:
        self._pending = pending
        self._timeout_error = timeout_error

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the result."""
        try:
            return self._pending.get(timeout)
        except self._timeout_error as error:
            raise TimeoutError from error


class PoolContender(Contender):
    """What has the interface of multiprocessing.Pool."""

    timeout_error: type[Exception] = TimeoutError

    def submit(self, fn: Callable[..., Any], *args: Any) -> Any:
        return AsyncResult(self.pool.apply_async(fn, args), self.timeout_error)

    def map(self, fn: Callable[[Any], Any], items: Any, chunksize: int | None = None) -> Iterable[Any]:
        return self.pool.map(fn, items, chunksize)

    def lazy_map(self, fn: Callable[[Any], Any], items: Iterator[Any], _count: int) -> Iterable[Any]:
        return self.pool.imap(fn, items, 100)

    def awaitable(self, fn: Callable[..., Any], *args: Any) -> Awaitable[Any]:
        loop = asyncio.get_running_loop()
        future = loop.create_future()

        def done(value: Any) -> None:
            loop.call_soon_threadsafe(future.set_result, value)

        def failed(error: BaseException) -> None:
            loop.call_soon_threadsafe(future.set_exception, error)

        self.pool.apply_async(fn, args, callback=done, error_callback=failed)
        return future

    def close(self) -> None:
        self.pool.close()
        self.pool.join()

    def kill(self) -> None:
        self.pool.terminate()
        self.pool.join()
