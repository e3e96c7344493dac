"""The Future that a pool returns: a `concurrent.futures.Future` which knows of its task.

`wait`, `as_completed` and `asyncio.wrap_future` work on it as on any other. Thread-safe as the base class is.
"""

from __future__ import annotations

import concurrent.futures
import logging
import threading
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_log = logging.getLogger("pidfdpool")


class Future(concurrent.futures.Future[T], Generic[T]):
    """The outcome of one task. Made by the pool only."""

    _done_callbacks: list[Callable[[concurrent.futures.Future[T]], object]]

    def __init__(self) -> None:
        super().__init__()
        self._withdraw: Callable[[], None] | None = None

    def cancel(self) -> bool:
        """Cancel the task if no worker has been given it yet; return whether it is cancelled.

        Unlike in the standard pool, that is possible for every task that has not been handed to a worker, and the
        task's arguments are let go of at once.
        """
        if not super().cancel():
            return False
        withdraw = self._withdraw
        if withdraw is not None:
            withdraw()
        return True

    # ---- for the pool --------------------------------------------------------------------------------------

    def _attach(self, withdraw: Callable[[], None] | None) -> None:
        """Set what tells the pool of a cancellation; None once the future is resolved."""
        self._withdraw = withdraw

    def _begin(self) -> bool:
        """Mark the task as handed to a worker; False: there is nothing to hand over any more."""
        try:
            return self.set_running_or_notify_cancel()
        except RuntimeError:  # its owner has resolved it by hand
            return False

    def _resolve(self, result: T | None, error: BaseException | None) -> None:
        """Set the outcome. Never raises: one strange future must not cost the others theirs."""
        self._withdraw = None
        try:
            if error is not None:
                self.set_exception(error)
            else:
                self.set_result(result)  # type: ignore[arg-type]
        except concurrent.futures.InvalidStateError:
            _log.debug("a future was resolved by its owner before its task ended")
        except BaseException:
            _log.exception("resolving a future failed")

    def _resolve_cancelled(self) -> None:
        """Tell those who wait that the task will not run."""
        self._withdraw = None
        try:
            concurrent.futures.Future.cancel(self)
            self.set_running_or_notify_cancel()
        except BaseException:
            _log.exception("cancelling a future failed")

    def _fail_in_forked_child(self, error: BaseException) -> None:
        """Resolve this copy of a future in a process that was forked while it was pending.

        Whoever waits on it, or asked to be called back, lives in the parent; locks may have been copied while held.
        """
        self._condition = threading.Condition()
        self._waiters.clear()
        self._done_callbacks.clear()
        self._resolve(None, error)

    def _invoke_callbacks(self) -> None:
        # The base class lets SystemExit and KeyboardInterrupt through, which would skip the remaining callbacks and
        # end the pool thread.
        for callback in self._done_callbacks:
            try:
                callback(self)
            except BaseException:
                _log.exception("exception calling callback for %r", self)


__all__ = ["Future"]
