"""What imap and imap_unordered return. Each `next` takes a result, and submits more inputs in its place."""

from __future__ import annotations

import multiprocessing
import multiprocessing.pool
import queue
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from pidfdpool import checks
from pidfdpool.integrations.process_pool.errors import translated
from pidfdpool.integrations.process_pool.results import is_done_within
from pidfdpool.process import locks

if TYPE_CHECKING:
    from concurrent.futures import Future

    from pidfdpool.integrations.process_pool.inputs import Inputs


class IMapIterator(multiprocessing.pool.IMapIterator):  # type: ignore[type-arg]
    """The results in the order of the inputs. Thread-safe: each result goes to one of the threads that ask."""

    def __init__(self, owner: object, inputs: Inputs) -> None:
        """Submit the first inputs. Do not call the constructor of the base class, which needs a standard pool.

        owner: kept until the last result was taken.
        """
        self._owner: object = owner
        self._inputs = inputs
        self._pending: deque[Future[Any]] = deque()
        self._lock = locks.reentrant()
        self._submit_some()

    def next(self, timeout: float | None = None) -> Any:
        """Return the next result, or raise the exception of its call. The iterator goes on after an exception.

        Raises:
            multiprocessing.TimeoutError: it did not come within `timeout` seconds.
            StopIteration: there was a result for each input.
        """
        seconds = checks.wait_time("timeout", timeout)
        deadline = None if seconds is None else time.monotonic() + seconds
        while True:
            self._submit_some()
            with self._lock:
                if not self._pending:
                    self._owner = None
                    raise StopIteration
                future = self._pending[0]
            if not is_done_within(future, deadline):
                raise multiprocessing.TimeoutError
            with self._lock:
                if not self._pending or self._pending[0] is not future:
                    continue  # another thread has taken it
                self._pending.popleft()
            self._submit_some()
            try:
                return _value_of(future)
            finally:
                del future  # the traceback of an exception holds this frame, and the future the exception

    __next__ = next  # noqa: A003

    def submit_rest(self) -> None:
        """Submit all inputs that are left: the pool is to be joined."""
        self._inputs.submit_rest(self._pending.append)

    def _submit_some(self) -> None:
        self._inputs.submit_some(len(self._pending), self._pending.append)


class IMapUnorderedIterator(IMapIterator, multiprocessing.pool.IMapUnorderedIterator):  # type: ignore[type-arg]
    """The results as they come. Thread-safe: each result goes to one of the threads that ask."""

    def __init__(self, owner: object, inputs: Inputs) -> None:
        self._done: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()
        self._left = 0  # submitted, and not taken
        super().__init__(owner, inputs)

    def next(self, timeout: float | None = None) -> Any:
        """As `IMapIterator.next`."""
        seconds = checks.wait_time("timeout", timeout)
        self._submit_some()
        with self._lock:
            if not self._left:
                self._owner = None
                raise StopIteration
            self._left -= 1
        future = None
        try:
            future = self._done.get(timeout=None if seconds is None else max(0.0, seconds))
        except queue.Empty:
            raise multiprocessing.TimeoutError from None
        finally:
            if future is None:
                with self._lock:
                    self._left += 1
        self._submit_some()
        try:
            return _value_of(future)
        finally:
            del future  # as in `IMapIterator.next`

    __next__ = next  # noqa: A003

    def submit_rest(self) -> None:
        """Submit all inputs that are left: the pool is to be joined."""
        self._inputs.submit_rest(self._await)

    def _submit_some(self) -> None:
        self._inputs.submit_some(self._left, self._await)

    def _await(self, future: Future[Any]) -> None:
        with self._lock:
            self._left += 1
        future.add_done_callback(self._done.put)


def _value_of(future: Future[Any]) -> Any:
    try:
        return future.result()
    except BaseException as failure:
        error = translated(failure)
    try:
        raise error
    finally:
        del future, error  # as in `IMapIterator.next`
