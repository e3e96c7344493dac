"""Reads an iterable for imap and imap_unordered, and submits its chunks: a bounded number ahead of the results.

`multiprocessing.Pool` reads the whole iterable in a thread of its own, whether somebody takes results or not. Here it
is read by the thread that takes results, because the iterable may belong to that thread (a file, a cursor, a
generator that uses one), and no more than AHEAD chunks are under way. `Pool.join` reads what is left.
"""

from __future__ import annotations

from concurrent.futures import Future
from itertools import islice
from typing import TYPE_CHECKING, Any

from pidfdpool.process import locks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

AHEAD = 16  # chunks for each worker: enough that none waits while a result is used


class Inputs:
    """The inputs of one imap. Thread-safe; the iterable is read by one thread at a time."""

    def __init__(
        self,
        iterable: Iterable[Any],
        chunksize: int | None,
        submit: Callable[[Any], Future[Any]],
        ahead: int,
        on_end: Callable[[Inputs], object],
    ) -> None:
        """Read nothing yet.

        chunksize: items of a chunk; None: each item is submitted by itself.
        submit: submits a chunk, a tuple, or an item. ahead: chunks under way at most.
        on_end: called once, when there is nothing left to submit.
        """
        self._items = iter(iterable)
        self._chunksize = chunksize
        self._submit = submit
        self._ahead = ahead
        self._on_end = on_end
        self._lock = locks.reentrant()
        self.ended: bool = False  # nothing is left to submit

    def submit_some(self, pending: int, take: Callable[[Future[Any]], object]) -> int:
        """Submit until there are enough under way, and have each future taken. Return how many are pending then.

        An exception of the iterable takes the place of a chunk, and ends the inputs.
        """
        while pending < self._ahead and not self.ended:
            pending += self._submit_one(take)
        return pending

    def submit_rest(self, take: Callable[[Future[Any]], object]) -> None:
        """Submit all that is left, however much it is."""
        while not self.ended:
            self._submit_one(take)

    def end(self) -> None:
        """Submit no more."""
        with self._lock:
            ended, self.ended = self.ended, True
        if not ended:
            self._on_end(self)

    def _submit_one(self, take: Callable[[Future[Any]], object]) -> int:
        with self._lock:
            if self.ended:
                return 0
            try:
                if self._chunksize is None:
                    chunk = next(self._items)
                else:
                    chunk = tuple(islice(self._items, self._chunksize))
                    if not chunk:
                        raise StopIteration
                future = self._submit(chunk)
            except StopIteration:
                self.end()
                return 0
            except Exception as error:
                future = Future()
                future.set_exception(error)
                self.end()
            take(future)
            return 1
