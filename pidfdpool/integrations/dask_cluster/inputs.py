"""The input of a map: tuples of arguments, taken one by one, from ordinary or asynchronous iterables.

Used in the thread or the event loop that takes the results. What an iterable raises is kept, so that it comes behind
the results of what was taken before.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from typing import Any


def calls_of(iterables: tuple[Any, ...], *, star: bool) -> Iterator[tuple[Any, ...]]:
    """Return an iterator over tuples of arguments. star: there is one iterable, and each item is such a tuple.

    Raises:
        TypeError: there are several iterables though star is set, or one is not iterable.
    """
    if not star:
        return zip(*iterables, strict=False)
    _check_star(iterables)
    return (_starred(number, item) for number, item in enumerate(iterables[0]))


def are_asynchronous(iterables: tuple[Any, ...]) -> bool:
    """Return whether one of the iterables has to be awaited."""
    return any(isinstance(each, AsyncIterable) and not isinstance(each, Iterable) for each in iterables)


async def asynchronous_calls(iterables: tuple[Any, ...], *, star: bool) -> AsyncIterator[tuple[Any, ...]]:
    """As `calls_of`, where iterables may be asynchronous. Closes those when it is closed, or at its end."""
    if star:
        _check_star(iterables)
    iterators: list[Any] = [each.__aiter__() if are_asynchronous((each,)) else iter(each) for each in iterables]
    number = 0
    try:
        while True:
            call = []
            for iterator in iterators:
                if isinstance(iterator, AsyncIterator):
                    try:
                        call.append(await anext(iterator))
                    except StopAsyncIteration:
                        return
                else:
                    try:
                        call.append(next(iterator))
                    except StopIteration:
                        return
            yield _starred(number, call[0]) if star else tuple(call)
            number += 1
    finally:
        for iterator in iterators:
            close = getattr(iterator, "aclose", None)
            if close is not None:
                await close()


def _check_star(iterables: tuple[Any, ...]) -> None:
    if len(iterables) != 1:
        raise TypeError(f"with star=True a map takes one iterable, of tuples of arguments, not {len(iterables)}")


def _starred(number: int, item: Any) -> tuple[Any, ...]:
    try:
        return tuple(item)
    except TypeError:
        raise TypeError(f"with star=True each item is a tuple of arguments, and item {number} is {item!r}") from None


class Inputs:
    """What is left of the input of one map. Of its two forms of `take` the map uses one."""

    def __init__(self, calls: Any, add: Callable[[tuple[Any, ...]], None], complete: Callable[[], None]) -> None:
        """Take nothing yet.

        calls: an iterator or an asynchronous one. add: gets each call. complete: called when there are no more.
        """
        self._calls = calls
        self._add = add
        self._complete = complete
        self.are_over = False
        self._failure: BaseException | None = None

    def take(self, count: int | None) -> None:
        """Take a number of calls; None: all that there are."""
        while not self.are_over and count != 0:
            try:
                self._add(next(self._calls))
            except StopIteration:
                self.end(None)
            except Exception as error:
                self.end(error)
            count = None if count is None else count - 1

    async def take_asynchronously(self, count: int) -> None:
        """As `take`, of asynchronous calls."""
        while not self.are_over and count:
            try:
                self._add(await anext(self._calls))
            except StopAsyncIteration:
                self.end(None)
            except Exception as error:
                self.end(error)
            count -= 1

    def end(self, failure: BaseException | None) -> None:
        """Take no more. failure: what the map is to end with."""
        self.are_over = True
        self._failure = failure
        self._complete()

    def raise_failure(self) -> None:
        """Raise what has ended the input, if it was not its end."""
        failure, self._failure = self._failure, None
        try:
            if failure is not None:
                raise failure
        finally:
            del failure  # its traceback holds this frame

    async def close(self) -> None:
        """Close the asynchronous iterables."""
        self.are_over = True
        close = getattr(self._calls, "aclose", None)
        if close is not None:
            await close()
