"""Waits for descriptors, in the pool thread, and lets other threads end the wait.

The channels of the workers are watched by an epoll of their own, the *inner* one. The pool's epoll watches the inner
one. So one call takes all channels away from the pool thread, for a thread that reads them itself (the *leader*, see
`leader`), and one call gives them back.

A descriptor's number is reused as soon as it is closed, and epoll reports numbers. So each registration is an object,
the *watch*. A batch of events is matched with watches before any of them is served. A watch that was forgotten
meanwhile is skipped, whatever its number names by then.

This is sufficient because of two rules. Only the pool thread closes what it watches. And it forgets a descriptor
before it closes it. The second rule has another reason, too: while a forked child holds a copy of a descriptor, epoll
goes on reporting it after the host has closed its own.
"""

from __future__ import annotations

import os
import select
import threading
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from pidfdpool.process import counters, locks, native, sandbox
from pidfdpool.typed import Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

READ = select.EPOLLIN
WRITE = select.EPOLLOUT

_getpid = os.getpid  # names that begin in this way are the first to be cleared, see `_ring`


class Reader(Protocol):
    """What the poller needs of a `LoopReader`."""

    def close_in_forked_child(self) -> None:
        """Close the copies of a forked process."""


class Watch:
    """One registration: what to call when the descriptor is ready."""

    __slots__ = ("active", "callback", "epoll", "events", "fd")

    def __init__(self, epoll: select.epoll, fd: int, callback: Callable[[int], None], events: int) -> None:
        self.epoll: select.epoll = epoll
        self.fd: int = fd
        self.callback: Callable[[int], None] = callback
        self.events: int = events
        self.active: bool = True


def _call_each(watches: list[tuple[Watch | None, int]]) -> None:
    for watch, mask in watches:
        if watch is not None and watch.active:
            watch.callback(mask)


def new_epoll() -> select.epoll:
    """Return a new epoll instance. A host that has closed its standard streams will open others in their place."""
    made = native.epoll()
    if made.fileno() > 2:
        return made
    with made:
        return type(made).fromfd(native.duplicate(made.fileno()))


class Poller:
    """epoll with watches and a wakeup.

    `wait` is for the pool thread, the rest for any thread that holds the pool's lock; `wake` needs no lock at all.
    """

    _wake_fd = -1  # until there is one: no descriptor may be left

    def __init__(self) -> None:
        # Reentrant, because `wake` is called from weakref callbacks: the collector may run one of those in a thread
        # that is inside `wake` already.
        self._wake_lock = locks.reentrant()
        self._process = os.getpid()
        sandbox.check()
        self._epoll = new_epoll()
        self._inner = new_epoll()
        self.inner_fd: int = self._inner.fileno()
        # Held by the thread that serves what is ready: the pool thread or the leader.
        self.serving: Any = native.reentrant_lock()
        self.is_served: bool = False  # somebody does at the moment
        self.leader: dict[None, int] = {}  # the leader's thread, if there is one; a dictionary decides in one step
        # Others read the channels, and the pool thread only looks whether they do: see `watchdog`.
        self.guarded: bool = False
        self.reader: Reader | None = None  # whose event loop reads, if it is one
        self.readers: WeakSet[Any] = WeakSet()  # that ever did
        self.reads: int = 0  # by leaders and event loops, ever
        self.left_at: float = 0.0  # when the last leader left, as time.monotonic() tells it
        # Whether the pool thread is to leave the channels to others though there is something to read.
        self.stands_back: Callable[[], bool] = bool
        # Serves what has come in the thread of an event loop; False: it is not to read.
        self.read_in_loop: Callable[[Any], bool] = bool
        # Whether the pool's thread is one of the host's greenlets. A wait of its own would stop all of them.
        self.among_greenlets = False
        self._watches: dict[int, Watch] = {}
        self._led_fd = counters.make()
        try:
            self._wake_fd = counters.make()
        except OSError:
            native.close(self._led_fd)
            raise
        self.watch(self._wake_fd, self._drain)
        self.watch(self._inner.fileno(), self._serve_inner)
        # C functions, so that no signal handler runs on the way to what they do.
        # `lead` takes the channels from the pool thread, `follow` gives them back.
        self.lead: Callable[[], None] = partial(self._epoll.modify, self._inner.fileno(), 0)
        self.follow: Callable[[], None] = partial(self._epoll.modify, self._inner.fileno(), READ)
        self.watch(self._led_fd, self._drain_led, inner=True)

    def watch(self, fd: int, callback: Callable[[int], None], events: int = READ, *, inner: bool = False) -> Watch:
        """Call back with the mask of events whenever the descriptor is ready (level-triggered).

        inner: call back in the thread that reads the channels at the time, the pool thread or the leader.
        """
        watch = Watch(self._inner if inner else self._epoll, fd, callback, events)
        watch.epoll.register(fd, events)
        self._watches[fd] = watch
        return watch

    def change(self, watch: Watch, events: int) -> None:
        """Wait for other events on the descriptor."""
        if watch.active and watch.events != events:
            watch.events = events
            with suppress(FileNotFoundError):  # the reader has come to its end, and forgotten it
                watch.epoll.modify(watch.fd, events)

    def forget(self, watch: Watch | None) -> None:
        """Stop watching, before the descriptor is closed. Idempotent."""
        if watch is not None and watch.active:
            watch.active = False
            del self._watches[watch.fd]
            watch.epoll.unregister(watch.fd)

    def wait(self, timeout: float | None) -> None:
        """Wait for events, at most timeout seconds, and serve them. Returns sooner where that is a long time."""
        if timeout is not None:
            timeout = min(timeout, native.LONGEST_WAIT)
        if self.among_greenlets:
            native.wait_readable(self._epoll, timeout)
            timeout = 0
        ready = self._epoll.poll(timeout)
        if ready:
            self.serve(ready)

    def serve(self, ready: list[tuple[int, int]]) -> None:
        """Serve what is ready. In the pool thread or the leader."""
        with self.serving:
            outer, self.is_served = self.is_served, True
            try:
                watches = [(self._watches.get(fd), mask) for fd, mask in ready]
                _call_each(watches)
            finally:
                self.is_served = outer

    def serve_all(self) -> None:
        """Serve all that is ready at this moment, each once; channels, too, if somebody leads. The pool thread."""
        with self.serving:
            most = max(1, len(self._watches))
            self.serve([*self._inner.poll(0, most), *self._epoll.poll(0, most)])

    def _serve_inner(self, _mask: int) -> None:
        if not self.stands_back():
            self.serve(self._inner.poll(0))

    # ---- for the leader ------------------------------------------------------------------------------------

    def wait_for_answers(self, timeout: float | None) -> list[tuple[int, int]]:
        """Return what is ready of the channels, for `serve`, after at most timeout seconds, or sooner nothing."""
        if timeout is not None and timeout > native.LONGEST_WAIT:
            timeout = native.LONGEST_WAIT
        return self._inner.poll(timeout)

    def wake_leader(self) -> None:
        """End the leader's current wait, or its next one. From any thread, at any time."""
        self._ring(leader=True)

    def _drain_led(self, _mask: int) -> None:
        counters.clear(self._led_fd)
        # The pool thread may still be at the channels when another takes them over. What it drains is for that one.
        me = threading.get_ident()
        if self.leader.get(None, me) != me:
            self.wake_leader()

    def wake(self) -> None:
        """End the current wait, or the next one if there is none. From any thread, at any time."""
        self._ring(leader=False)

    def _ring(self, *, leader: bool) -> None:
        if _getpid is None:
            return  # the interpreter clears its modules as the last thing it does, and what is in them is lost then
        if _getpid() != self._process:
            # A forked child's collector is at it. There is nobody to be woken in there, and another thread of the
            # parent's may have been in the middle of this: the copy of its lock would never be given back.
            return
        with self._wake_lock:
            if self._wake_fd >= 0:  # both are there, or both are closed
                counters.add(self._led_fd if leader else self._wake_fd)

    def _drain(self, _mask: int) -> None:
        counters.clear(self._wake_fd)

    def close(self) -> None:
        """Close what is the poller's own."""
        with self._wake_lock:
            fd, self._wake_fd = self._wake_fd, -1
        self._close(fd)

    def _close(self, fd: int) -> None:
        if fd >= 0:
            self._epoll.close()
            self._inner.close()
            native.close(fd)
            native.close(self._led_fd)

    def __del__(self) -> None:
        if self._wake_fd >= 0:  # of a pool whose thread was never started, because nothing came of its first submit
            if os.getpid() == self._process:
                self.close()
            else:
                self.close_in_forked_child()

    def close_in_forked_child(self) -> None:
        """Close the copies of a forked process, without the lock, which may have been copied while held.

        Nothing is unregistered: the epoll instance is the parent's too.
        """
        for reader in list(self.readers):
            reader.close_in_forked_child()
        fd, self._wake_fd = self._wake_fd, -1
        self._close(fd)
