"""Waits for descriptors, in the pool thread, and lets other threads end the wait.

A descriptor's number is reused as soon as it is closed, and epoll reports numbers. So each registration is an object
of its own, the *watch*; a batch of events is matched with watches before any of them is served, and a watch that was
forgotten meanwhile is passed over, whatever its number names by then.

Two rules make that sufficient: only the pool thread closes what it watches, and it forgets before it closes. The
second matters beyond numbers, too: where a forked child holds a copy, epoll would go on reporting the closed one.
"""

from __future__ import annotations

import fcntl
import os
import select
import threading
from typing import TYPE_CHECKING

from pidfdpool import native
from pidfdpool.channel import above_stdio

if TYPE_CHECKING:
    from collections.abc import Callable

READ = select.EPOLLIN
WRITE = select.EPOLLOUT


class Watch:
    """One registration: what to call when the descriptor is ready."""

    __slots__ = ("active", "callback", "events", "fd")

    def __init__(self, fd: int, callback: Callable[[int], None], events: int) -> None:
        self.fd = fd
        self.callback = callback
        self.events = events
        self.active = True


def _epoll() -> select.epoll:
    """Return a new epoll instance. A host that has closed its standard streams will open others in their place."""
    made = native.epoll()
    if made.fileno() > 2:
        return made
    with made:
        return type(made).fromfd(fcntl.fcntl(made.fileno(), fcntl.F_DUPFD_CLOEXEC, 3))


class Poller:
    """epoll with watches and a wakeup.

    `wait` is for the pool thread, the rest for any thread that holds the pool's lock; `wake` needs no lock at all.
    """

    _wake_fd = -1  # until there is one: no descriptor may be left

    def __init__(self) -> None:
        # Reentrant, because `wake` is called from weakref callbacks: the collector may run one of those in a thread
        # that is inside `wake` already.
        self._wake_lock = threading.RLock()
        self._epoll = _epoll()
        # Whether the pool's thread is one of the host's greenlets. A wait of its own would stop all of them.
        self.among_greenlets = False
        self._watches: dict[int, Watch] = {}
        self._wake_fd = above_stdio(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
        self.watch(self._wake_fd, self._drain)

    def watch(self, fd: int, callback: Callable[[int], None], events: int = READ) -> Watch:
        """Call back with the mask of events whenever the descriptor is ready (level-triggered)."""
        watch = Watch(fd, callback, events)
        self._epoll.register(fd, events)
        self._watches[fd] = watch
        return watch

    def change(self, watch: Watch, events: int) -> None:
        """Wait for other events on the descriptor."""
        if watch.active and watch.events != events:
            watch.events = events
            self._epoll.modify(watch.fd, events)

    def forget(self, watch: Watch | None) -> None:
        """Stop watching, before the descriptor is closed. Idempotent."""
        if watch is not None and watch.active:
            watch.active = False
            del self._watches[watch.fd]
            self._epoll.unregister(watch.fd)

    def wait(self, timeout: float | None) -> None:
        """Wait for events, at most timeout seconds, and serve them."""
        if self.among_greenlets:
            native.wait_readable(self._epoll, timeout)
            timeout = 0
        ready = [(self._watches.get(fd), mask) for fd, mask in self._epoll.poll(timeout)]
        for watch, mask in ready:
            if watch is not None and watch.active:
                watch.callback(mask)

    def wake(self) -> None:
        """End the current wait, or the next one if there is none. From any thread, at any time."""
        with self._wake_lock:
            if self._wake_fd >= 0:
                os.eventfd_write(self._wake_fd, 1)

    def _drain(self, _mask: int) -> None:
        os.eventfd_read(self._wake_fd)

    def close(self) -> None:
        """Close what is the poller's own."""
        with self._wake_lock:
            fd, self._wake_fd = self._wake_fd, -1
        if fd >= 0:
            self._epoll.close()
            native.close(fd)

    def __del__(self) -> None:
        if self._wake_fd >= 0:
            self.close()  # of a pool whose thread was never started, because nothing came of its first submit

    def close_in_forked_child(self) -> None:
        """Close the copies of a forked process, without the lock, which may have been copied while held.

        Nothing is unregistered: the epoll instance is the parent's too.
        """
        fd, self._wake_fd = self._wake_fd, -1
        if fd >= 0:
            self._epoll.close()
            native.close(fd)
