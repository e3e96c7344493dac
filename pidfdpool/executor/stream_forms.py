"""The forms in which a stream is read and left: loops and blocks, ordinary and asynchronous ones.

What `stream.Stream` and `serial_stream.SerialStream` have in common. Has no state, and works on every system.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from types import TracebackType
from typing import Generic, NoReturn, Self, TypeVar

T = TypeVar("T")


class StreamForms(Iterator[T], AsyncIterator[T], Generic[T]):
    """Items for one reader. The class with these methods has `__next__`, `__anext__` and `close`."""

    def __iter__(self) -> Self:
        return self

    def __aiter__(self) -> Self:
        return self

    def close(self) -> None:
        """End the stream, and have the generator closed. Idempotent."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """As `close`. It never waits."""
        self.close()

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

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        raise TypeError(f"cannot copy or pickle {type(self).__name__!r} object: it is read where it was made")
