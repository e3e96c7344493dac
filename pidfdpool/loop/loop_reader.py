"""An asyncio event loop that reads the workers' channels itself, so that no answer needs a wake-up of the loop.

A `LoopReader` belongs to one event loop. It has an epoll of its own, the *hub*, which the event loop watches as it
watches sockets (`add_reader`). A pool that leaves its channels to the loop has its inner epoll watched by the hub.
So any thread can begin and end that by one system call, and needs no help of the event loop, which may be blocked.

When answers have come, the loop calls `_read_all` in its thread. Results of one pickle with nothing in it but plain
values are rebuilt there. What calls code of the user's or a library's, or is large, is left to the pool thread, and
so is everything behind it: it must not hold up the loop. The same holds while the pool thread serves something, which
may take long. Whether the loop reads at all is decided by the pool thread (`Watchdog`), and so is when it does no
longer. If the loop finds that it is not to read, it has the hub watch that pool no more.

The hub is closed when its last pool has ended, in the loop's thread, because only there the loop can be told to watch
it no more; or when the loop is closed or gone.

In the main thread signal handlers may raise anywhere, and an answer that was served half breaks the pool. So signals
are blocked meanwhile which are likely to have a handler. Where handlers are expected to raise (at a prompt, or with a
handler of SIGALRM), the loop of the main thread does not read.
"""

from __future__ import annotations

import os
import threading
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pidfdpool.loop.poller import READ, new_epoll
from pidfdpool.process import hygiene, native

if TYPE_CHECKING:
    import asyncio

    from pidfdpool.loop.poller import Poller

_all: weakref.WeakSet[LoopReader] = weakref.WeakSet()


def close_after_loops() -> None:
    """Close the hubs of event loops that are closed, but may not have been collected yet. In any thread."""
    for reader in list(_all):
        reader._close_after_loop()


def release_here() -> None:
    """Close the hubs of the calling thread's event loops that no pool needs at the moment."""
    for reader in list(_all):
        reader.release_here()


class LoopReader:
    """What one event loop watches for the pools whose results are awaited in it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have the loop watch the hub. In the loop's thread.

        Raises:
            NotImplementedError: the loop cannot watch descriptors.
            OSError: no descriptor or memory is left.
        """
        close_after_loops()
        self._loop = weakref.ref(loop)
        self._process = os.getpid()
        self._reads = False
        self.thread: int = threading.get_ident()
        self._lock: Any = native.lock()  # for closing the hub, beside a pool thread that changes it
        self._pollers: dict[int, Poller] = {}  # by descriptor
        self._hub = new_epoll()
        try:
            loop.add_reader(self._hub.fileno(), self._read_all)
        except BaseException:
            self._hub.close()
            raise
        _all.add(self)

    @property
    def reads_here(self) -> bool:
        """Whether the caller is the event loop's thread, in the middle of reading."""
        return self._reads and self.thread == threading.get_ident()

    @property
    def closed(self) -> bool:
        """Whether it can watch nothing any more."""
        return self._hub.closed

    def watch(self, poller: Poller) -> bool:
        """Have the event loop read a pool's channels; return False if it cannot. In the pool thread."""
        fd = poller.inner_fd
        with self._lock:
            if self._hub.closed or os.getpid() != self._process:
                return False
            if fd not in self._pollers:
                try:
                    self._hub.register(fd, READ)
                except OSError:  # no memory, or too many watches
                    return False
                self._pollers[fd] = poller
                poller.readers.add(self)
        return True

    def _unwatch(self, poller: Poller) -> None:
        # Without the lock: a signal handler that runs here may wait for the pool thread, which takes it. If the pool
        # thread has the channels watched again at this moment, it will soon notice that nobody reads.
        if poller.reader is not self and self._pollers.pop(poller.inner_fd, None) is not None:
            with suppress(OSError, ValueError):  # the pool has just ended, or the hub is closed
                self._hub.unregister(poller.inner_fd)

    def _read_all(self) -> None:
        """Serve what has come. The event loop calls this in its thread."""
        for poller in list(self._pollers.values()):
            self._reads = True
            try:
                goes_on = poller.read_in_loop(self)
            finally:
                self._reads = False
            if not goes_on:
                self._unwatch(poller)

    # ---- the end of a pool, or of the event loop -----------------------------------------------------------

    def detach(self, poller: Poller) -> None:
        """Watch a pool's channels no more, because it ends; at the end of the last, close the hub. Pool thread."""
        with self._lock:
            if not self._hub.closed and self._pollers.pop(poller.inner_fd, None) is not None:
                self._hub.unregister(poller.inner_fd)
        loop = self._loop()
        try:
            if loop is None:
                self._close()
            else:
                loop.call_soon_threadsafe(self._release)
        except RuntimeError:  # it is closed
            self._close()

    def release_here(self) -> None:
        """Close the hub if no pool needs it, and if this is the event loop's thread."""
        if self.thread == threading.get_ident():
            self._release()

    def _release(self) -> None:
        loop = self._loop()
        if self._pollers or self._hub.closed or os.getpid() != self._process:
            return
        with suppress(RuntimeError):  # it is closed
            if loop is not None:
                loop.remove_reader(self._hub.fileno())
        self._close()

    def _close_after_loop(self) -> None:
        loop = self._loop()
        if loop is None or loop.is_closed():
            self._close()

    def _close(self) -> None:
        with hygiene.signals_blocked(), self._lock:
            self._hub.close()
            self._pollers.clear()

    def close_in_forked_child(self) -> None:
        """Close the copy of a forked process, without the lock; nothing is unregistered: epoll is the parent's."""
        self._hub.close()
        self._pollers = {}
