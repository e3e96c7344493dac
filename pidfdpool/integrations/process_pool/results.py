"""What apply_async and map_async return.

The futures of the executor are waited for by the thread that calls `get`, which then reads the answers itself. With a
callback, that is called in the thread that takes the result, mostly the pool's, and whoever waits goes on after it.
"""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.pool
import time
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

import pidfdpool
from pidfdpool import checks
from pidfdpool.integrations.process_pool.errors import translated
from pidfdpool.process import locks

if TYPE_CHECKING:
    from concurrent.futures import Future

_log = logging.getLogger("pidfdpool.multiprocessing")

Callback = Any  # Callable[[Any], object] | None


class AsyncResult(multiprocessing.pool.AsyncResult):  # type: ignore[type-arg]
    """The result of a call that may still be under way. Thread-safe."""

    def __init__(
        self,
        owner: object,
        futures: list[Future[Any]],
        callback: Callback = None,
        error_callback: Callback = None,
    ) -> None:
        """Do not call the constructor of the base class, which needs a pool of the standard library's.

        owner: kept until the result is there. futures: of the call, or of all chunks, in order.
        """
        self._owner: object = owner
        self._futures = futures
        self._outcome: tuple[bool, Any] | None = None
        self._lock = locks.plain()
        self._callback: Callback = callback
        self._error_callback: Callback = error_callback
        self._called: Future[None] | None = None  # done when the callback has returned
        if (callback or error_callback) and futures:
            self._called = pidfdpool.Future()
            self._left = len(futures)
            for future in list(futures):
                future.add_done_callback(self._count_down)

    def ready(self) -> bool:
        """Return whether the result, or an exception, is there."""
        if self._called is not None:
            return self._called.done()
        return all(future.done() for future in self._futures)

    def successful(self) -> bool:
        """Return whether there was no exception.

        Raises:
            ValueError: the result is not there yet.
        """
        if not self.ready():
            raise ValueError(f"{self!r} not ready")
        return self._settled()[0]

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the result is there, or for `timeout` seconds at most."""
        seconds = checks.wait_time("timeout", timeout)
        deadline = None if seconds is None else time.monotonic() + seconds
        for future in list(self._futures) if self._called is None else [self._called]:
            if not is_done_within(future, deadline):
                return

    def get(self, timeout: float | None = None) -> Any:
        """Return the result, or raise the exception of the call.

        Raises:
            multiprocessing.TimeoutError: it did not come within `timeout` seconds.
            WorkerCrashed: the worker died; the message says how.
            CancelledError: the pool was terminated before the call was begun.
        """
        self.wait(timeout)
        if not self.ready():
            raise multiprocessing.TimeoutError
        success, value = self._settled()
        if success:
            return value
        try:
            raise value
        finally:
            del self, value  # the traceback of the exception holds this frame, and this object the exception

    def _settled(self) -> tuple[bool, Any]:
        """Return whether there was no exception, and the result or the exception. All futures are done."""
        with self._lock:
            if self._outcome is None:
                try:
                    self._outcome = True, self._value_of(self._futures)
                except BaseException as error:
                    failure = translated(error)
                    BaseException.with_traceback(failure, None)  # it holds this frame, and this object the exception
                    self._outcome = False, failure
                self._futures = []
                self._owner = None
            return self._outcome

    def _value_of(self, futures: list[Future[Any]]) -> Any:
        return futures[0].result()

    def _count_down(self, _future: Future[Any]) -> None:
        with self._lock:
            self._left -= 1
            if self._left:
                return
        try:
            success, value = self._settled()
            callback = self._callback if success else self._error_callback
            if callback:
                callback(value)
        except Exception:
            _log.exception("exception calling callback for %r", self)
        finally:
            self._callback = self._error_callback = None
            assert self._called is not None
            self._called.set_result(None)


class MapResult(AsyncResult):
    """The result of a map that may still be under way: a list. Thread-safe.

    It is ready when all chunks are done, even if one has failed. The exception is that of the first of these in the
    order of the input.
    """

    def __init__(
        self,
        owner: object,
        futures: list[Future[Any]],
        chunksize: int,
        callback: Callback = None,
        error_callback: Callback = None,
    ) -> None:
        super().__init__(owner, futures, callback, error_callback)
        self._chunksize = chunksize

    @property
    def _number_left(self) -> int:
        """The chunks that are not done. Programs that show progress read it."""
        return sum(not future.done() for future in self._futures)

    def _value_of(self, futures: list[Future[Any]]) -> Any:
        value: list[Any] = []
        for future in futures:
            value += future.result()
        return value


def is_done_within(future: Future[Any], deadline: float | None) -> bool:
    """Wait for a future until time.monotonic() is `deadline`; return whether it is done."""
    if not future.done():
        try:
            future.exception(None if deadline is None else max(0.0, deadline - time.monotonic()))
        except CancelledError:
            pass
        except TimeoutError:
            if not future.done():
                if deadline is None or time.monotonic() < deadline:
                    raise  # by a signal handler
                return False
    return True
