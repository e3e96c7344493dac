"""The four forms of map, as methods that an executor and its views have in common.

`mapping` and `async_map` do the work. They are loaded by the first map of a process, because an executor that only
submits needs neither. Thread-safe, but one iterator over results is for one consumer.

This file must not import the package itself: `typing` keeps overloaded functions, and so what their file refers to,
until the interpreter ends. Then maps that are left would be closed when half of the modules are gone.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

if TYPE_CHECKING:
    from pidfdpool.executor.outcome import Outcome

T = TypeVar("T")


class Maps:
    """Maps a function over iterables, in workers. Has no state: the class with these methods submits the calls."""

    @overload
    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        return_exceptions: Literal[False] = False,
        star: bool = False,
    ) -> Iterator[T]: ...
    @overload
    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        return_exceptions: Literal[True],
        star: bool = False,
    ) -> Iterator[Outcome[T]]: ...

    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        return_exceptions: bool = False,
        star: bool = False,
    ) -> Iterator[Any]:
        """Return an iterator over fn(*call) for each call of zip(*iterables), in order.

        An option, such as `timeout` of `options()`, applies to each call; with a chunksize it applies to a whole
        chunk, unless return_exceptions is set.

        Args:
            fn: a callable that takes as many arguments as there are iterables.
            iterables: read now; with a buffersize, as results are taken: then what one raises comes in its turn.
            timeout: seconds from now until the iterator raises TimeoutError. Default: never.
            chunksize: calls per task. None: the pool decides, by the times that it measures; with max_pending it
                is 1.
            buffersize: calls (or chunks, with a chunksize) to take ahead of the next result. Default: all.
            return_exceptions: whether to yield an `Outcome` of each call, which has its index and its value or error.
                Then a call that fails does not end the iterator, whatever it fails of, and costs no other call
                anything. What prevents all further calls still ends it: a broken pool (PoolBroken), a shutdown that
                cancels, the timeout, and an iterable that raises. With max_pending, each call is a task.
                Default: results, up to the first failure, which is raised.
            star: whether there is one iterable, of tuples of arguments: `map(pow, [(2, 5), (3, 2)], star=True)`.

        Raises:
            TypeError, ValueError: an argument is not what it should be.
        """
        from pidfdpool.executor import mapping

        return mapping.in_order(
            self,  # type: ignore[arg-type]
            fn,
            iterables,
            timeout=timeout,
            chunksize=chunksize,
            buffersize=buffersize,
            return_exceptions=return_exceptions,
            star=star,
        )

    @overload
    def map_unordered(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        return_exceptions: Literal[False] = False,
        star: bool = False,
    ) -> Iterator[T]: ...
    @overload
    def map_unordered(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        return_exceptions: Literal[True],
        star: bool = False,
    ) -> Iterator[Outcome[T]]: ...

    def map_unordered(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        return_exceptions: bool = False,
        star: bool = False,
    ) -> Iterator[Any]:
        """As `map`, but the iterator yields the results in the order in which they come.

        The first call that fails ends the iterator with its exception, and calls that no worker has begun are
        cancelled. With return_exceptions none does, and the index of an outcome tells which input it is of.
        """
        from pidfdpool.executor import mapping

        return mapping.as_they_come(
            self,  # type: ignore[arg-type]
            fn,
            iterables,
            timeout=timeout,
            chunksize=chunksize,
            buffersize=buffersize,
            return_exceptions=return_exceptions,
            star=star,
        )

    @overload
    def amap(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any] | AsyncIterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        return_exceptions: Literal[False] = False,
        star: bool = False,
    ) -> AsyncIterator[T]: ...
    @overload
    def amap(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any] | AsyncIterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        return_exceptions: Literal[True],
        star: bool = False,
    ) -> AsyncIterator[Outcome[T]]: ...

    def amap(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any] | AsyncIterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        return_exceptions: bool = False,
        star: bool = False,
    ) -> AsyncIterator[Any]:
        """As `map`, but return an asynchronous iterator over the results, in order. For asyncio.

        Iterables may be asynchronous, some of them or all. If all are ordinary ones, the calls are submitted now, or
        with `max_pending` when there is room for them. (Outside of a running loop, a map with `max_pending`, a
        chunksize or a small buffersize begins when the first result is asked for.) Asynchronous ones are read by a
        task of the loop from when the first result is asked for: one item at a time, and no more than `buffersize`
        calls ahead of the results that were given. Default there: 4 calls for each worker; without a chunksize each
        call is a task. What one raises comes behind the results of what it yielded before.

        Closing the iterator early (`aclose`), or cancelling the task that waits for a result, cancels the calls that
        no worker has begun, and closes asynchronous iterables.
        """
        from pidfdpool.executor import async_map

        return async_map.in_order(
            self,  # type: ignore[arg-type]
            fn,
            iterables,
            timeout=timeout,
            chunksize=chunksize,
            buffersize=buffersize,
            return_exceptions=return_exceptions,
            star=star,
        )

    @overload
    def amap_unordered(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any] | AsyncIterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        return_exceptions: Literal[False] = False,
        star: bool = False,
    ) -> AsyncIterator[T]: ...
    @overload
    def amap_unordered(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any] | AsyncIterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        return_exceptions: Literal[True],
        star: bool = False,
    ) -> AsyncIterator[Outcome[T]]: ...

    def amap_unordered(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any] | AsyncIterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        return_exceptions: bool = False,
        star: bool = False,
    ) -> AsyncIterator[Any]:
        """As `amap`, but the iterator yields the results in the order in which they come."""
        from pidfdpool.executor import async_map

        return async_map.as_they_come(
            self,  # type: ignore[arg-type]
            fn,
            iterables,
            timeout=timeout,
            chunksize=chunksize,
            buffersize=buffersize,
            return_exceptions=return_exceptions,
            star=star,
        )
