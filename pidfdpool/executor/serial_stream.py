"""The stream of a `SerialExecutor`: the generator runs in this process, in the thread that reads, item by item.

It has what `stream.Stream` has, and works on every system.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from pidfdpool.executor.stream_forms import StreamForms

T = TypeVar("T")


class SerialStream(StreamForms[T]):
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

    def close(self) -> None:
        """Close the generator. Idempotent."""
        items = self._items
        if items is not None:
            self._end()
            close = getattr(items, "close", None)
            if close is not None:
                close()

    def kill(self) -> bool:
        """Return False: there is no worker to kill."""
        return False

    def _end(self) -> None:
        self._items = None
        self._over()

    def __del__(self) -> None:
        if self.__dict__.get("_items") is not None:
            self.close()

    def __repr__(self) -> str:
        """Show whether it has ended."""
        return f"<{type(self).__name__} {'ended' if self._items is None else 'open'}>"
