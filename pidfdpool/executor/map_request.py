"""What one map was asked for: its arguments, checked before anything is submitted.

Made in the thread that calls `map` or one of its kin. It is not kept, because it holds the iterables.
"""

from __future__ import annotations

import time
from itertools import count
from typing import TYPE_CHECKING, Any

from pidfdpool import checks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


class MapRequest:
    """The arguments of a map.

    Attributes:
        function: what is called.
        iterables: as they were given.
        deadline: of the map, as time.monotonic() tells it; None: it has none.
        chunksize, buffersize: as they were given.
        outcomes: the consumer wants an `Outcome` of each call.
        star: the only iterable has tuples of arguments.
        reads: some of the iterables are asynchronous, so that a task has to read them.
        starred: each of `calls()` is a tuple of arguments; otherwise it is the one argument.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        iterables: tuple[Any, ...],
        *,
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        return_exceptions: bool = False,
        star: bool = False,
    ) -> None:
        """Check them.

        Raises:
            TypeError, ValueError: an argument makes no sense; the message names it and its value.
        """
        self.chunksize: int | None = checks.integer("chunksize", chunksize, least=1, optional=True, boolean=True)
        self.buffersize: int | None = checks.integer("buffersize", buffersize, optional=True, boolean=True)
        if self.buffersize is not None and self.buffersize < 1:
            raise ValueError(f"buffersize must be None or > 0, not {self.buffersize}")
        timeout = checks.wait_time("timeout", timeout)
        self.deadline: float | None = None if timeout is None else time.monotonic() + timeout
        checks.boolean("return_exceptions", return_exceptions)
        checks.boolean("star", star)
        if star and len(iterables) != 1:
            raise TypeError(f"star=True takes one iterable, of tuples of arguments, not {len(iterables)} iterables")
        self.function: Callable[..., Any] = function
        self.iterables: tuple[Any, ...] = iterables
        self.outcomes: bool = return_exceptions
        self.star: bool = star
        self.reads: bool = any(map(is_async, iterables))
        self.starred: bool = star or len(iterables) != 1

    def refuse_async(self) -> None:
        """Raise TypeError if an iterable cannot be read without an event loop."""
        for number, iterable in enumerate(self.iterables, 1) if self.reads else ():
            if is_async(iterable) and not hasattr(type(iterable), "__iter__"):
                raise TypeError(
                    f"iterable {number} is asynchronous ({checks.short_repr(iterable)}): use amap or amap_unordered"
                )

    @property
    def calls_per_task(self) -> int:
        """The number of calls in each task, where the pool does not make the chunks."""
        # Outcomes are of single calls, and only chunks of the pool's can tell what became of each.
        return 1 if self.outcomes else self.chunksize or 1

    def calls(self) -> Iterable[Any]:
        """Return the calls: tuples of arguments, or if `starred` is false the only iterable as it was given."""
        if self.star:
            return map(as_arguments, self.iterables[0], count())
        return zip(*self.iterables, strict=False) if self.starred else self.iterables[0]

    def tuples(self) -> Iterator[tuple[Any, ...]]:
        """Return an iterator over the calls, each as a tuple of arguments."""
        return iter(self.calls()) if self.star else zip(*self.iterables, strict=False)


def is_async(iterable: object) -> bool:
    """Return whether an iterable can be read asynchronously."""
    return hasattr(type(iterable), "__aiter__")


def as_arguments(item: Any, index: int) -> tuple[Any, ...]:
    """Return an item of the iterable of a map with star=True, as a tuple of arguments.

    index: which item it is, counted from 0.

    Raises:
        TypeError: it is not iterable.
    """
    if type(item) is tuple:
        return item
    try:
        items = iter(item)
    except TypeError:
        raise TypeError(
            f"star=True takes tuples of arguments, and item {index} of the iterable is {checks.short_repr(item)}"
        ) from None
    return tuple(items)
