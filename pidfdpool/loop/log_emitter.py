"""The thread that hands the records of workers to the host's loggers. There is one only while there are records.

The host's handlers may block, raise, and use the pool. So neither the pool thread nor a thread that reads for it may
call them. `put` is called by the thread that reads the workers' answers. The first record starts a thread, which
lingers for a moment when it has handed over the last one, so that a program that logs often does not start one for
each. It is a daemon thread with all signals blocked; where threads are greenlets it is one of them. The pool's
`join` waits for it: for as long as records are handed over, and GRACE seconds for one that is not.

What waits is bounded. Records that do not fit are counted, and the count is logged when there is room again.
"""

from __future__ import annotations

import _thread
import itertools
import logging
import threading
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from pidfdpool.loop import log_emission
from pidfdpool.process import hygiene, interruptible, native, safe_logging

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    # what travelled; the worker's slot and pid; the number of its task, and the name of that task's function
    Item: TypeAlias = tuple[bytes, int, int | None, int | None, str | None]

MOST_BYTES = 32 << 20  # of records that wait; each counts as its data and OVERHEAD
OVERHEAD = 400
LINGER = 0.05  # seconds for which the thread waits for more
GRACE = 3.0  # seconds
_STEP = 0.02

_log = logging.getLogger("pidfdpool.logs")
_numbers = itertools.count(1)


class Emitter:
    """The records of one pool that the host's loggers have not got yet. Thread-safe."""

    def __init__(self, pool: object, emit: Callable[..., object] = log_emission.emit) -> None:
        """pool: is kept alive while there are records. emit: hands one over; an item is its arguments."""
        self._pool: object = pool
        self._emit = emit
        self._items: deque[Item] = deque()
        self._bytes = 0
        self._lost = 0  # records that did not fit, and were not told of yet
        self._done = 0  # records that were handed over, ever
        self._lock = native.lock()  # held for moments; guards all of these
        self._runs = False  # there is a thread, or somebody starts one
        self._ident: int | None = None
        self._thread: threading.Thread | None = None  # None as well where it is a greenlet
        self._news = interruptible.Event()  # for the thread that lingers
        self._over = interruptible.Event()  # of the present thread, or the last one
        self._joined = False  # nothing lingers any more

    def put(self, item: Item) -> None:
        """Have a record handed over. Waits for nobody."""
        size = len(item[0]) + OVERHEAD
        with self._lock:
            if self._bytes + size > MOST_BYTES:
                self._lost += 1
                return
            self._bytes += size
            self._items.append(item)
            starts, self._runs = not self._runs, True
        if starts:
            self._start()
        elif not self._news.is_set():
            self._news.set()

    def lose(self) -> None:
        """Count a record that could not be received."""
        with self._lock:
            self._lost += 1

    # ---- the thread ----------------------------------------------------------------------------------------

    def _start(self) -> None:
        self._over = over = interruptible.Event()
        try:
            if native.threads_are_greenlets():
                _thread.start_new_thread(self._run, (over,))
                return
            with hygiene.signals_blocked():
                self._thread = thread = threading.Thread(
                    target=self._run, args=(over,), name=f"pidfdpool-logs-{next(_numbers)}", daemon=True
                )
                thread.start()
        except RuntimeError:  # there can be no further thread; the next record tries again, or `join` does it
            self._thread, self._runs = None, False
            over.set()

    def _run(self, over: interruptible.Event) -> None:
        self._ident = threading.get_ident()
        lingered = False
        while True:
            self._news.clear()
            if self._emit_all():
                lingered = False
            with self._lock:
                ends = not self._items and (lingered or self._joined)
                if ends:
                    self._runs, self._ident = False, None
            if ends:
                over.set()
                return
            if not self._items:
                self._news.wait(LINGER)
                lingered = not self._items

    def _emit_all(self) -> bool:
        """Hand over what there is; return whether there was anything."""
        emitted = False
        while True:
            with self._lock:
                if not self._items:
                    break
                item = self._items.popleft()
                self._bytes -= len(item[0]) + OVERHEAD
            emitted = True
            with suppress(BaseException):  # handlers and filters are the host's, and may raise anything
                self._emit(*item)
            with self._lock:
                self._done += 1
                lost, self._lost = (self._lost, 0) if self._bytes <= MOST_BYTES // 2 else (0, self._lost)
            if lost:
                message = "%d log records of workers were dropped, because the host's handlers are too slow"
                safe_logging.log(_log, logging.WARNING, message, lost)
        return emitted

    # ---- the end -------------------------------------------------------------------------------------------

    def join(self) -> None:
        """Return when all records are handed over, or if one takes longer than GRACE. Not in the thread itself."""
        if threading.get_ident() == self._ident:
            return
        self._joined = True
        self._news.set()
        try:
            if self._wait() and self._items:
                self._emit_all()  # no thread could be started
            thread = self._thread
            if thread is not None and not self._runs:
                thread.join(GRACE)
        finally:
            self._joined = False

    def _wait(self) -> bool:
        """Wait for the end of the thread; return whether there is none."""
        done, deadline = self._done, time.monotonic() + GRACE
        while self._runs:
            self._over.wait(_STEP)
            if self._done != done:
                done, deadline = self._done, time.monotonic() + GRACE
            elif time.monotonic() >= deadline:
                return False
        return True

    def abandon_in_forked_child(self) -> None:
        """Forget everything in a process that was forked. The lock may have been copied while it was held."""
        self._items.clear()
        self._lock = native.lock()
        self._lost, self._runs, self._joined, self._thread, self._pool = 0, False, True, None, None
