"""The pools that are compared, each behind the interface of `Contender`.

Each is used as its own documentation has it, with its defaults. Where there is a choice, workers are forked from the
host, which is what all of them have; "ours" and "standard" are there in a second way. And there is ours with one
trick left out, for each trick; these are compared with the complete one alone.
"""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Awaitable, Callable, Iterable, Iterator
from importlib import import_module
from typing import Any, ClassVar

from benchmarks.contender import Contender, ExecutorContender, PoolContender, UnsupportedError
from benchmarks.tricks import TRICKS, Trick


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
        return self.bounded_map(fn, items, 1000)

    def timed_map(self, fn: Callable[[Any], Any], items: Any, seconds: float) -> Iterable[Any]:
        return self.pool.options(timeout=seconds).map(fn, items)

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

    def timed_map(self, fn: Callable[[Any], Any], items: Any, seconds: float) -> Iterable[Any]:
        for future in [self.pool.submit(fn, item, deadpool_timeout=seconds) for item in items]:
            yield future.result()


class Pebble(Contender):
    name = title = module = "pebble"
    distribution = "Pebble"

    def __init__(self, workers: int) -> None:
        self.pool = self.loaded.ProcessPool(workers, context=multiprocessing.get_context("fork"))

    def submit(self, fn: Callable[..., Any], *args: Any) -> Any:
        return self.pool.schedule(fn, args=args)

    def map(self, fn: Callable[[Any], Any], items: Any, chunksize: int | None = None) -> Iterable[Any]:
        return self.pool.map(fn, items, **({} if chunksize is None else {"chunksize": chunksize})).result()

    def timed_map(self, fn: Callable[[Any], Any], items: Any, seconds: float) -> Iterable[Any]:
        return self.pool.map(fn, items, timeout=seconds).result()

    def awaitable(self, fn: Callable[..., Any], *args: Any) -> Awaitable[Any]:
        return asyncio.wrap_future(self.submit(fn, *args))

    def close(self) -> None:
        self.pool.close()
        self.pool.join()

    def kill(self) -> None:
        self.pool.stop()
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

    def timed_map(self, fn: Callable[[Any], Any], items: Any, seconds: float) -> Iterable[Any]:
        for pending in [self.pool.apply_async(fn, (item,), timeout=seconds) for item in items]:
            yield pending.get()


class Mpire(PoolContender):
    name = title = module = distribution = "mpire"

    def __init__(self, workers: int) -> None:
        self.pool = self.loaded.WorkerPool(workers, start_method="fork", keep_alive=True)

    def map(self, fn: Callable[[Any], Any], items: Any, chunksize: int | None = None) -> Iterable[Any]:
        return self.pool.map(fn, items, chunk_size=chunksize)

    def lazy_map(self, fn: Callable[[Any], Any], items: Iterator[Any], count: int) -> Iterable[Any]:
        return self.pool.imap(fn, items, iterable_len=count)

    def bounded_map(self, fn: Callable[[Any], Any], items: Iterator[Any], ahead: int) -> Iterable[Any]:
        return self.pool.imap(fn, items, max_tasks_active=ahead, chunk_size=1)

    def timed_map(self, fn: Callable[[Any], Any], items: Any, seconds: float) -> Iterable[Any]:
        return self.pool.map(fn, items, task_timeout=seconds)

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

    def bounded_map(self, fn: Callable[[Any], Any], items: Iterator[Any], ahead: int) -> Iterable[Any]:
        delayed = self.loaded.delayed
        parallel = self.loaded.Parallel(self._workers, return_as="generator", pre_dispatch=ahead, batch_size=1)
        return parallel(delayed(fn)(item) for item in items)

    def close(self) -> None:
        self.pool.__exit__(None, None, None)
        # Its workers outlive it, to be found again by the next.
        import_module("joblib.externals.loky").get_reusable_executor().shutdown()


def _without(trick: Trick) -> type[Ours]:
    names = {"name": f"without-{trick.name}", "title": f"without {trick.title}", "trick": trick}
    way = OursFork if trick.beside == OursFork.name else Ours
    return type("OursWithout", (way,), names)


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
