"""The stream of a `SerialExecutor`: the generator runs in this process, in the thread that reads, item by item.

It has what `stream.Stream` has, and works on every system.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from types import TracebackType
from typing import Any, Generic, NoReturn, Self, TypeVar

T = TypeVar("T")


class SerialStream(Iterator[T], AsyncIterator[T], Generic[T]):
    """The items of a generator. As `pidfdpool.Stream`, but each item is made when it is asked for. For one reader."""

    def __init__(self, items: Iterator[Any], copy: Callable[[Any], Any] | None, over: Callable[[], object]) -> None:
        """copy: what makes of an item what a reader would get from a worker. over: called once, at the end."""
        self._items: Iterator[Any] | None = items
        self._copy = copy
        self._over = over

    def __next__(self) -> T:
        """Return the next item, which the generator makes now."""
        if self._items is None:
            raise StopIteration
        try:
            item = next(self._items)
        except BaseException:
            self._end()
            raise
        made: T = item if self._copy is None else self._copy(item)
        return made

    async def __anext__(self) -> T:
        """Return the next item. The event loop waits meanwhile."""
        try:
            return next(self)
        except StopIteration:
            pass
        raise StopAsyncIteration

    def __iter__(self) -> Self:
        return self

    def __aiter__(self) -> Self:
        return self

    def close(self) -> None:
        """Close the generator. Idempotent."""
        items = self._items
        if items is not None:
            self._end()
            close = getattr(items, "close", None)
            if close is not None:
                close()

    async def aclose(self) -> None:
        """As `close`."""
        self.close()

    def kill(self) -> bool:
        """Return False: there is no worker to kill."""
        return False

    def _end(self) -> None:
        self._items = None
        self._over()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if self.__dict__.get("_items") is not None:
            self.close()

    def __repr__(self) -> str:
        """Show whether it has ended."""
        return f"<{type(self).__name__} {'ended' if self._items is None else 'open'}>"

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        raise TypeError(f"cannot copy or pickle {type(self).__name__!r} object: it is read where it was made")
