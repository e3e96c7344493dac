"""What a map gives for one call when it is asked for outcomes (`return_exceptions=True`).

Made in the thread that takes the results of a map. Immutable, so any thread may use it, in a forked process, too.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Outcome(NamedTuple, Generic[T]):
    """What became of one call of a map: its value, or the error that it has ended with.

    It can be unpacked (`index, value, error = outcome`), compared, and pickled as far as its value and its error can.

    Attributes:
        index: which input the call was made with, counted from 0. With several iterables: which item of each.
        value: what the call returned; None if it has an error.
        error: why there is no value: what the call raised, or an error of the pool's, such as WorkerCrashed or
            TaskTimeout. None if the call has returned.
    """

    index: int  # type: ignore[assignment]  # a tuple has a method of this name
    value: T | None = None
    error: BaseException | None = None

    @property
    def ok(self) -> bool:
        """Whether the call has returned."""
        return self.error is None

    def result(self) -> T:
        """Return the value, or raise the error."""
        try:
            if self.error is not None:
                raise self.error
            return self.value  # type: ignore[return-value]
        finally:
            del self  # the error's traceback holds this frame, and the outcome holds the error


# Makes an outcome of a tuple with all fields, in half of the time that the constructor takes.
from_tuple: Callable[[tuple[int, Any, BaseException | None]], Outcome[Any]] = partial(tuple.__new__, Outcome)
