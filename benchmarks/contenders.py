"""The pools that are compared, each behind the same small interface. Their modules are loaded by `prepare` only.

Each is used as its own documentation has it, with its defaults. Where there is a choice, workers are forked from the
host, which is what all of them have; "ours" and "standard" are there in a second way. And there is ours with one
trick left out, for each trick; these are compared with ours alone.
"""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Awaitable, Callable, Iterable, Iterator
from importlib import import_module, metadata
from importlib.util import find_spec
from math import inf
from typing import Any, ClassVar

from benchmarks.tricks import TRICKS, Trick


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

    def awaitable(self, _fn: Callable[..., Any], *_args: Any) -> Awaitable[Any]:
        """Submit a call from an event loop, in the way that is usual with this contender."""
        raise UnsupportedError("there is no way to wait for it in an event loop")

    def native_awaitable(self, _fn: Callable[..., Any], *_args: Any) -> Awaitable[Any]:
        """Submit a call from an event loop by the contender's own support for that."""
        raise UnsupportedError("it has no support for asyncio of its own")

    def close(self) -> None:
        """Let tasks finish, and wait until all is gone."""
        raise NotImplementedError

    def kill(self) -> None:
        """End everything, tasks that run included, and wait until all is gone."""
        raise UnsupportedError("tasks that run cannot be ended")


class ExecutorContender(Contender):
    """What has the interface of concurrent.futures.Executor."""

    def submit(self, fn: Callable[..., Any], *args: Any) -> Any:
        return self.pool.submit(fn, *args)

    def map(self, fn: Callable[[Any], Any], items: Any, chunksize: int | None = None) -> Iterable[Any]:
        return self.pool.map(fn, items, **({} if chunksize is None else {"chunksize": chunksize}))

    def awaitable(self, fn: Callable[..., Any], *args: Any) -> Awaitable[Any]:
        return asyncio.get_running_loop().run_in_executor(self.pool, fn, *args)

    def close(self) -> None:
        self.pool.shutdown()

    def kill(self) -> None:
        if not hasattr(self.pool, "kill_workers"):  # the standard library's has it since Python 3.14
            super().kill()
        self.pool.kill_workers()
        self.pool.shutdown()


class Ours(ExecutorContender):
    name, title = "ours", "pidfdpool"
    module, distribution = "pidfdpool", "pidfdpool"
    method: ClassVar[str | None] = None
    trick: ClassVar[Trick | None] = None  # this one is left out

    @classmethod
    def prepare(cls) -> None:
        super().prepare()
        assert cls.loaded.PidfdPoolExecutor  # names are loaded at their first use
        if cls.trick is not None:
            cls.trick.leave_out()

    def __init__(self, workers: int) -> None:
        options = {} if self.trick is None else self.trick.options
        self.pool = self.loaded.PidfdPoolExecutor(workers, mp_context=self.method, **options)

    def lazy_map(self, fn: Callable[[Any], Any], items: Iterator[Any], _count: int) -> Iterable[Any]:
        return self.pool.map(fn, items, buffersize=1000)

    def native_awaitable(self, fn: Callable[..., Any], *args: Any) -> Awaitable[Any]:
        if not hasattr(self.pool, "run"):
            return super().native_awaitable(fn, *args)
        return self.pool.run(fn, *args)


class OursFork(Ours):
    name, title = "ours-fork", "pidfdpool (fork)"
    method = "fork"


class Standard(ExecutorContender):
    name, title = "standard", "ProcessPoolExecutor (fork)"
    module = "concurrent.futures.process"
    method: ClassVar[str] = "fork"

    def __init__(self, workers: int) -> None:
        context = multiprocessing.get_context(self.method)
        self.pool = self.loaded.ProcessPoolExecutor(workers, mp_context=context)


class StandardForkserver(Standard):
    name, title = "standard-forkserver", "ProcessPoolExecutor (forkserver)"
    method = "forkserver"


class Loky(ExecutorContender):
    name = title = module = distribution = "loky"

    def __init__(self, workers: int) -> None:
        self.pool = self.loaded.ProcessPoolExecutor(workers)

    def kill(self) -> None:
        self.pool.shutdown(kill_workers=True)


class Deadpool(ExecutorContender):
    name = title = module = "deadpool"
    distribution = "deadpool-executor"
    most_pending = 1000

    def __init__(self, workers: int) -> None:
        self.pool = self.loaded.Deadpool(workers, mp_context="fork")


class Pebble(Contender):
    name = title = module = "pebble"
    distribution = "Pebble"

    def __init__(self, workers: int) -> None:
        self.pool = self.loaded.ProcessPool(workers, context=multiprocessing.get_context("fork"))

    def submit(self, fn: Callable[..., Any], *args: Any) -> Any:
        return self.pool.schedule(fn, args=args)

    def map(self, fn: Callable[[Any], Any], items: Any, chunksize: int | None = None) -> Iterable[Any]:
        return self.pool.map(fn, items, **({} if chunksize is None else {"chunksize": chunksize})).result()

    def awaitable(self, fn: Callable[..., Any], *args: Any) -> Awaitable[Any]:
        return asyncio.wrap_future(self.submit(fn, *args))

    def close(self) -> None:
        self.pool.close()
        self.pool.join()

    def kill(self) -> None:
        self.pool.stop()
        self.pool.join()


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


class MultiprocessingPool(PoolContender):
    name, title = "mp-pool", "multiprocessing.Pool (fork)"
    module = "multiprocessing.pool"
    timeout_error = multiprocessing.TimeoutError

    def __init__(self, workers: int) -> None:
        self.pool = multiprocessing.get_context("fork").Pool(workers)


class Billiard(PoolContender):
    name = title = distribution = "billiard"
    module = "billiard.pool"

    def __init__(self, workers: int) -> None:
        self.timeout_error = import_module("billiard.exceptions").TimeoutError
        self.pool = self.loaded.Pool(workers)


class Mpire(PoolContender):
    name = title = module = distribution = "mpire"

    def __init__(self, workers: int) -> None:
        self.pool = self.loaded.WorkerPool(workers, start_method="fork", keep_alive=True)

    def map(self, fn: Callable[[Any], Any], items: Any, chunksize: int | None = None) -> Iterable[Any]:
        return self.pool.map(fn, items, chunk_size=chunksize)

    def lazy_map(self, fn: Callable[[Any], Any], items: Iterator[Any], count: int) -> Iterable[Any]:
        return self.pool.imap(fn, items, iterable_len=count)

    def close(self) -> None:
        self.pool.stop_and_join()

    def kill(self) -> None:
        self.pool.terminate()


class Joblib(Contender):
    name = title = module = distribution = "joblib"

    def __init__(self, workers: int) -> None:
        if workers == 1:
            raise UnsupportedError("with one worker it runs everything in the host")
        self._workers = workers
        self.pool = self.loaded.Parallel(workers).__enter__()

    def call(self, fn: Callable[..., Any], *args: Any) -> Any:
        return self.pool([self.loaded.delayed(fn)(*args)])[0]

    def map(self, fn: Callable[[Any], Any], items: Any, chunksize: int | None = None) -> Iterable[Any]:
        delayed = self.loaded.delayed
        parallel = self.pool if chunksize is None else self.loaded.Parallel(self._workers, batch_size=chunksize)
        return parallel(delayed(fn)(item) for item in items)

    def lazy_map(self, fn: Callable[[Any], Any], items: Iterator[Any], _count: int) -> Iterable[Any]:
        delayed = self.loaded.delayed
        return self.loaded.Parallel(self._workers, return_as="generator")(delayed(fn)(item) for item in items)

    def close(self) -> None:
        self.pool.__exit__(None, None, None)
        # Its workers outlive it, to be found again by the next.
        import_module("joblib.externals.loky").get_reusable_executor().shutdown()


def _without(trick: Trick) -> type[Ours]:
    names = {"name": f"without-{trick.name}", "title": f"without {trick.title}", "trick": trick}
    return type("OursWithout", (Ours,), names)


POOLS: dict[str, type[Contender]] = {
    kind.name: kind
    for kind in (
        Ours,
        OursFork,
        Standard,
        StandardForkserver,
        MultiprocessingPool,
        Loky,
        Pebble,
        Mpire,
        Joblib,
        Billiard,
        Deadpool,
    )
}
OURS, BASELINE = Ours.name, Standard.name
LEFT_OUT: dict[str, type[Contender]] = {kind.name: kind for kind in map(_without, TRICKS)}
CONTENDERS = {**POOLS, **LEFT_OUT}
