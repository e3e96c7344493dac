"""What a worker runs for a chunk. Loaded in workers, so it imports nothing."""

from __future__ import annotations

TYPE_CHECKING = bool()  # noqa: UP018
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any


class EachOf:
    """Calls a function with each item of a chunk. Messages name the function, as they do for a partial."""

    __slots__ = ("func",)

    def __init__(self, func: Callable[..., Any]) -> None:
        self.func: Callable[..., Any] = func

    def __call__(self, items: Iterable[Any]) -> list[Any]:
        """Return func(item) for each. The first exception ends the chunk, as in `multiprocessing.Pool`."""
        func = self.func
        return [func(item) for item in items]


class EachUnpackedOf(EachOf):
    """Calls a function with the unpacked items of a chunk."""

    __slots__ = ()

    def __call__(self, items: Iterable[Any]) -> list[Any]:
        """Return func(*item) for each."""
        func = self.func
        return [func(*item) for item in items]
