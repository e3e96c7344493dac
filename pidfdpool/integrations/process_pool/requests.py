"""What can be asked of a pool: apply, map, starmap, imap, and their forms that do not wait.

`Pool` and the view that `Pool.options` returns have these in common. They differ in how a call is submitted.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from pidfdpool import checks
from pidfdpool.integrations.process_pool.calls import EachOf, EachUnpackedOf
from pidfdpool.integrations.process_pool.inputs import AHEAD, Inputs
from pidfdpool.integrations.process_pool.iterators import IMapIterator, IMapUnorderedIterator
from pidfdpool.integrations.process_pool.results import AsyncResult, MapResult
from pidfdpool.typed import Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from concurrent.futures import Future


class Root(Protocol):
    """What the requests need of the pool."""

    _processes: int

    def _check_running(self) -> None:
        """Raise ValueError if the pool is closed or terminated."""

    def _keep(self, inputs: Inputs, opened: IMapIterator, /) -> None:
        """Stay open until all inputs were submitted."""

    def _forget(self, inputs: Inputs, /) -> None:
        """Take note that they were."""


class Requests:
    """The requests of `multiprocessing.Pool`, by its names and with its signatures. Thread-safe."""

    _root: Root
    _submit: Callable[..., Future[Any]]

    def apply(self, func: Callable[..., Any], args: Iterable[Any] = (), kwds: Mapping[str, Any] | None = None) -> Any:
        """Return func(*args, **kwds), computed in a worker."""
        return self.apply_async(func, args, kwds).get()

    def apply_async(
        self,
        func: Callable[..., Any],
        args: Iterable[Any] = (),
        kwds: Mapping[str, Any] | None = None,
        callback: Callable[[Any], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> AsyncResult:
        """Run func(*args, **kwds) in a worker, and return its AsyncResult.

        callback, error_callback: called with the result, or with the exception, before `get` returns. Mostly in the
        pool's thread, so they should be quick. What they raise is logged.
        """
        self._root._check_running()
        future = self._submit(func, *args, **({} if kwds is None else kwds))
        return AsyncResult(self._root, [future], callback, error_callback)

    def map(self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int | None = None) -> list[Any]:
        """Return [func(item) for item in iterable], computed in workers."""
        return self.map_async(func, iterable, chunksize).get()  # type: ignore[no-any-return]

    def map_async(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callable[[list[Any]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> MapResult:
        """As `map`, but return a MapResult at once; callbacks as in `apply_async`.

        chunksize: items that one worker gets at a time. Default: a quarter of its share. An exception ends its chunk,
        and is that of the whole map when all other chunks are done.
        """
        return self._map_async(EachOf(func), iterable, chunksize, callback, error_callback)

    def starmap(
        self, func: Callable[..., Any], iterable: Iterable[Iterable[Any]], chunksize: int | None = None
    ) -> list[Any]:
        """As `map`, but call func(*item)."""
        return self.starmap_async(func, iterable, chunksize).get()  # type: ignore[no-any-return]

    def starmap_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callable[[list[Any]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> MapResult:
        """As `map_async`, but call func(*item)."""
        return self._map_async(EachUnpackedOf(func), iterable, chunksize, callback, error_callback)

    def imap(self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int = 1) -> Iterator[Any]:
        """Return an iterator over func(item), in order; with chunksize 1 it has `next(timeout)`.

        The iterable is read as results are taken: 16 chunks for each worker ahead of them, and the rest by
        `Pool.join`.
        """
        return self._imap(IMapIterator, func, iterable, chunksize)

    def imap_unordered(
        self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int = 1
    ) -> Iterator[Any]:
        """As `imap`, but in the order in which results come."""
        return self._imap(IMapUnorderedIterator, func, iterable, chunksize)

    def _map_async(
        self,
        each: EachOf,
        iterable: Iterable[Any],
        chunksize: int | None,
        callback: Callable[[list[Any]], object] | None,
        error_callback: Callable[[BaseException], object] | None,
    ) -> MapResult:
        root, submit = self._root, self._submit
        root._check_running()
        # Not list(iterable), which asks it how long it is, believes that, and raises what it raises.
        items: Any = iterable if hasattr(iterable, "__len__") else [item for item in iterable]  # noqa: C416
        if chunksize is None:
            chunksize = -(-len(items) // (root._processes * 4))
        else:
            chunksize = checks.integer("chunksize", chunksize, least=1)
        futures: list[Future[Any]] = []
        source = iter(items)
        while chunk := tuple(islice(source, chunksize)):
            futures.append(submit(each, chunk))
        return MapResult(root, futures, chunksize, callback, error_callback)

    def _imap(
        self, kind: type[IMapIterator], func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int
    ) -> Iterator[Any]:
        root, submit = self._root, self._submit
        root._check_running()
        size = checks.integer("chunksize", chunksize, least=1)
        ahead = AHEAD * root._processes
        if size == 1:
            return self._open(kind, Inputs(iterable, None, lambda item: submit(func, item), ahead, root._forget))
        each = EachOf(func)
        inputs = Inputs(iterable, size, lambda chunk: submit(each, chunk), ahead, root._forget)
        return (item for chunk in self._open(kind, inputs) for item in chunk)

    def _open(self, kind: type[IMapIterator], inputs: Inputs) -> IMapIterator:
        opened = kind(self._root, inputs)
        self._root._keep(inputs, opened)
        return opened
