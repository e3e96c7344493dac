"""The future of a call that a `SerialExecutor` has made. It is done when anybody gets it.

It has what `executor.futures.Future` has, and works on every system: that one knows the pool, which needs Linux.
Thread-safe, as the base class.
"""

from __future__ import annotations

import concurrent.futures
from typing import Generic, NoReturn, TypeVar

from pidfdpool.process import describe

T = TypeVar("T")


class SerialFuture(concurrent.futures.Future[T], Generic[T]):
    """The outcome of one call that was made in this process. As `pidfdpool.Future`, but no worker has run it.

    Attributes:
        attempt: the number of the attempt that this is the outcome of, from 1; 0: the call was not made.
        started_at: when that attempt began, in time.time()'s seconds; None: the call was not made.
    """

    attempt: int = 0
    started_at: float | None = None

    @property
    def worker(self) -> None:
        """The worker that has run the task: there is none."""
        return None

    def kill(self) -> bool:
        """Return False: the future is done, and there is nothing to kill."""
        return False

    def __repr__(self) -> str:
        """Show state, type of the outcome, and attempt. Takes no lock."""
        state = self._state.partition("_")[0].lower()
        if self._state == "FINISHED":
            failed = self._exception is not None
            outcome = describe.type_name(self._exception if failed else self._result)
            state += f" {'raised' if failed else 'returned'} {outcome}"
        return f"<{type(self).__name__} at {id(self):#x} state={state}, attempt {self.attempt} in this process>"

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        """Raise TypeError, as every future does."""
        raise TypeError(
            f"cannot copy or pickle {type(self).__name__!r} object: it belongs to the process that submitted the "
            "task. Copy or send its result() instead."
        )
