"""The items of the iterables of an `amap` some of which are asynchronous, side by side.

For the task of the event loop that reads them (`async_inputs`, `serial_maps`). It needs nothing of Linux.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pidfdpool.executor.map_request import as_arguments, is_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from pidfdpool.executor.map_request import MapRequest

_END: Any = object()


class Items:
    """The items of several iterables, side by side, as `zip` takes them. For one task."""

    def __init__(self, request: MapRequest) -> None:
        """Begin to iterate.

        Raises:
            TypeError: one of them is not iterable.
        """
        self._star = request.star
        self._taken = 0
        self._iterators: list[tuple[bool, AsyncIterator[Any] | Iterator[Any]]] = [
            (True, aiter(each)) if is_async(each) else (False, iter(each)) for each in request.iterables
        ]

    async def next(self) -> tuple[Any, ...] | None:
        """Return the arguments of the next call. None: one of the iterables is at its end.

        Raises:
            BaseException: what one of them raises; or TypeError, if star=True and an item is no tuple.
        """
        items = []
        for is_asynchronous, iterator in self._iterators:
            item = await anext(iterator, _END) if is_asynchronous else next(iterator, _END)  # type: ignore[arg-type]
            if item is _END:
                return None
            items.append(item)
        index, self._taken = self._taken, self._taken + 1
        return as_arguments(items[0], index) if self._star else tuple(items)

    async def close(self) -> None:
        """Close the asynchronous ones, as far as they can be closed."""
        try:
            while self._iterators:
                is_asynchronous, iterator = self._iterators.pop()
                close = getattr(iterator, "aclose", None) if is_asynchronous else None
                if close is not None:
                    await close()
        finally:
            if self._iterators:
                await self.close()
